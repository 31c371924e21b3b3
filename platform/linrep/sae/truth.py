"""Latents against known attributes: the best single latent for each value, and probes on few of them.

Choices are made on one half of the samples and scored on the other: the best of thousands of latents is otherwise good by luck.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LATENTS_AT_ONCE = 1024


@dataclass(frozen=True)
class BestLatent:
    """The latent that tells one value of an attribute best.

    Attributes:
        value: The value's number.
        latent: The latent.
        threshold: It says yes at and above this activation.
        f1: On the samples that had no part in the choice.
        f1_chosen_on: On those that had.
    """

    value: int
    latent: int
    threshold: float
    f1: float
    f1_chosen_on: float


def best_latents(
    z: Float[Tensor, "n f"], y: Int[Tensor, " n"], z_test: Float[Tensor, "m f"], y_test: Int[Tensor, " m"]
) -> list[BestLatent]:
    """For each value of an attribute the latent and threshold of the best F1, scored on samples of their own.

    Args:
        z: Activations at the level of samples (the largest of each image's tokens, say), to choose on.
        y: The attribute's value of each sample.
        z_test: Likewise, to score on.
        y_test: Likewise.

    Returns:
        One for each value that occurs in `y`, in the order of the values.
    """
    values = y.unique()
    present: Bool[Tensor, "n values"] = y[:, None] == values[None]
    found = torch.zeros(len(values), dtype=torch.float64), torch.zeros(len(values)).long(), torch.zeros(len(values))
    for start in range(0, z.shape[1], LATENTS_AT_ONCE):
        ranked = z[:, start : start + LATENTS_AT_ONCE].sort(dim=0, descending=True)
        # A threshold may only lie where the next activation is smaller, and above zero.
        last = torch.ones_like(ranked.values, dtype=torch.bool)
        last[:-1] = ranked.values[1:] < ranked.values[:-1]
        last &= ranked.values > 0
        said = torch.arange(1, len(y) + 1, device=z.device, dtype=torch.float64)[:, None]
        for i in range(len(values)):
            right = present[ranked.indices, i].double().cumsum(0)
            f1 = torch.where(last, 2 * right / (said + present[:, i].sum()), torch.zeros_like(right))
            best = int(f1.argmax())
            row, column = divmod(best, f1.shape[1])
            if f1[row, column] > found[0][i]:
                found[0][i], found[1][i], found[2][i] = f1[row, column], start + column, ranked.values[row, column]
    return [
        BestLatent(int(v), int(j), float(t), f1_of(z_test[:, j] >= t, y_test == v) if best > 0 else 0.0, float(best))
        for v, best, j, t in zip(values, *found, strict=True)
    ]


def f1_of(said: Bool[Tensor, " n"], true: Bool[Tensor, " n"]) -> float:
    """F1 of a yes-or-no answer; 0 where nothing is said and nothing is true."""
    both = int(said.sum()) + int(true.sum())
    return 2 * int((said & true).sum()) / both if both else 0.0


def sparse_probe(
    z: Float[Tensor, "n f"],
    y: Bool[Tensor, " n"],
    z_test: Float[Tensor, "m f"],
    y_test: Bool[Tensor, " m"],
    k: int,
    ridge: float = 1e-3,
) -> float:
    """Balanced accuracy of a logistic regression on the k latents whose means differ most between the two classes.

    Args:
        z: Activations to choose and fit on.
        y: True where the concept is present; both classes occur.
        z_test: Activations to score on.
        y_test: Likewise.
        k: Latents.
        ridge: Weight of the squared coefficients, of standardised activations, per sample.

    Raises:
        ValueError: Only one class is there.

    Source: SAEBench, 2025 (choice of latents).
    """
    for part in (y, y_test):
        if part.all() or not part.any():
            raise ValueError(f"need both classes, got {int(part.sum())} positive of {len(part)}")
    chosen = (z[y].mean(0) - z[~y].mean(0)).abs().topk(min(k, z.shape[1])).indices
    mean, std = z[:, chosen].mean(0), z[:, chosen].std(0, correction=0).clamp_min(1e-12)

    def features(part: Tensor) -> Tensor:
        return torch.cat([(part[:, chosen] - mean) / std, torch.ones_like(part[:, :1])], dim=1).double()

    x, target = features(z), y.double()
    # Both classes weigh the same, whatever their numbers: the score is balanced too.
    weight = torch.where(y, 0.5 / target.mean(), 0.5 / (1 - target).mean())
    penalty = torch.full((x.shape[1],), ridge * len(x), dtype=torch.float64)
    penalty[-1] = 0.0
    w = torch.zeros(x.shape[1], dtype=torch.float64)
    for _ in range(50):  # Newton's method; a handful of coefficients, a convex loss
        p = (x @ w).sigmoid()
        gradient = x.t() @ (weight * (p - target)) + penalty * w
        curvature = (x * (weight * p * (1 - p))[:, None]).t() @ x + torch.diag(penalty + 1e-9)
        step = torch.linalg.solve(curvature, gradient)
        w = w - step * min(1.0, 4.0 / float(step.norm().clamp_min(1e-12)))
        if step.norm() < 1e-8:
            break
    said = features(z_test) @ w > 0
    return float((said[y_test].double().mean() + (~said[~y_test]).double().mean()) / 2)
