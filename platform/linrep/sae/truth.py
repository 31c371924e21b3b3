"""Latents against known attributes: the best single latent for each value, and probes on few of them.

Choices are made on one half of the samples and scored on the other: the best of thousands of latents is otherwise good by luck.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.sae.activity import Activity
from linrep.stats.auroc import of_scores


@dataclass(frozen=True)
class BestLatent:
    """The latent that separates one value of an attribute best.

    Attributes:
        value: The value's number.
        latent: The latent of the best F1.
        threshold: It says yes at and above this activation.
        f1: On the samples that had no part in the choice.
        f1_chosen_on: On those that had.
        auroc: Of the latent whose own AUROC is best, which needs no threshold; on the samples that had no part in the choice.
    """

    value: int
    latent: int
    threshold: float
    f1: float
    f1_chosen_on: float
    auroc: float


def best_latents(z: Activity, y: Int[Tensor, " n"], z_test: Activity, y_test: Int[Tensor, " m"]) -> list[BestLatent]:
    """For each value of an attribute the latent and threshold of the best F1, and the best AUROC, scored on samples of their own.

    Args:
        z: Activations at the level of samples (the largest of each image's tokens, say), to choose on.
        y: The attribute's value of each sample.
        z_test: Likewise, to score on.
        y_test: Likewise.

    Returns:
        One for each value that occurs in `y`, in the order of the values.
    """
    values, number, counts = y.unique(return_inverse=True, return_counts=True)
    if not len(z.values):  # a dead SAE says nothing of any sample
        return [BestLatent(v, 0, 0.0, 0.0, 0.0, 0.5) for v in values.tolist()]
    ranks = _Ranks.of(z, number, len(values))
    f1, at = _first_best(2 * ranks.right / (ranks.said + counts[ranks.value]), ranks.value, len(values))
    latents, thresholds = z.latents[at], z.values[at]
    by_area = ranks.best_area(z, counts)
    columns, areas = (
        dict(zip(ids.tolist(), z_test.columns(ids).t(), strict=True)) for ids in (latents.unique(), by_area.unique())
    )
    found = []
    for v, j, t, best, k in zip(
        values.tolist(), latents.tolist(), thresholds.tolist(), f1.tolist(), by_area.tolist(), strict=True
    ):
        true = y_test == v
        score = f1_of(columns[j] >= t, true) if best > 0 else 0.0
        found.append(BestLatent(v, j, t, score, best, of_scores(areas[k].cpu().numpy(), true.cpu().numpy())))
    return found


@dataclass(frozen=True)
class _Ranks:
    """Where each entry of an activity stands within its latent, and how many above it are right.

    Attributes:
        value: Number of the value that the entry's sample has.
        said: Samples at and above its activation.
        right: Those of them that have the same value.
        above: Samples above its activation.
    """

    value: Int[Tensor, " s"]
    said: Float[Tensor, " s"]
    right: Float[Tensor, " s"]
    above: Float[Tensor, " s"]

    @classmethod
    def of(cls, z: Activity, number: Int[Tensor, " n"], n_values: int) -> "_Ranks":
        value = number[z.samples]
        _, latent = z.latents.unique_consecutive(return_inverse=True)
        # Entries of equal activation are said together: a threshold lies at the last of them.
        change = torch.ones_like(z.latents, dtype=torch.bool)
        change[1:] = (z.latents.diff() != 0) | (z.values.diff() != 0)
        tie = change.cumsum(0) - 1
        rank = _count(latent)
        said = _most(rank, tie)
        # Sorted by latent and value, an entry's place among those of its kind is its count; the order by activation stays.
        kind = latent * n_values + value
        order = kind.argsort(stable=True)
        right = torch.empty_like(rank)
        right[order] = _count(kind[order].unique_consecutive(return_inverse=True)[1])
        _, same = (tie * n_values + value).unique(return_inverse=True)
        n_tied = torch.bincount(tie)[tie]
        return cls(value, said.double(), _most(right, same).double(), (said - n_tied).double())

    def best_area(self, z: Activity, counts: Int[Tensor, " v"]) -> Int[Tensor, " v"]:
        """For each value the latent whose activation has the best AUROC; silent samples share the last rank."""
        n_values = len(counts)
        kind, cell = (z.latents * n_values + self.value).unique(return_inverse=True)
        latent, value = kind // n_values, kind % n_values
        listed = torch.bincount(z.latents, minlength=z.n_latents)[latent].double()
        # Mean rank from the top of each entry: those above, and the middle of its ties.
        ranks = torch.zeros(len(kind), dtype=torch.float64, device=kind.device).index_add_(
            0, cell, (self.above + self.said + 1) / 2
        )
        silent = (counts[value] - torch.bincount(cell, minlength=len(kind))).double()
        total = ranks + silent * (listed + z.n_samples + 1) / 2
        positive = counts[value].double()
        worse = total - positive * (positive + 1) / 2  # pairs in which a sample without the value stands above one with it
        area = 1 - worse / (positive * (z.n_samples - positive)).clamp_min(1)
        return latent[_first_best(area, value, n_values)[1]]


def _count(group: Int[Tensor, " s"]) -> Int[Tensor, " s"]:
    """1, 2, ... within each of the consecutive groups, which are numbered from 0."""
    sizes = torch.bincount(group)
    return torch.arange(1, len(group) + 1, device=group.device) - (sizes.cumsum(0) - sizes)[group]


def _most(values: Int[Tensor, " s"], group: Int[Tensor, " s"]) -> Int[Tensor, " s"]:
    """For each entry the largest of its group."""
    n = int(group.max()) + 1 if len(group) else 0
    return values.new_zeros(n).scatter_reduce_(0, group, values, "amax")[group]


def _first_best(score: Float[Tensor, " s"], value: Int[Tensor, " s"], n_values: int) -> tuple[Tensor, Int[Tensor, " v"]]:
    """For each value its best score, and where it first stands; 0 and the first entry for a value without entries."""
    best = score.new_zeros(n_values).scatter_reduce_(0, value, score, "amax")
    wins = (score == best[value]).nonzero()[:, 0]
    last = torch.full((n_values,), len(score), device=score.device)
    at = last.scatter_reduce_(0, value[wins], wins, "amin")
    return best, torch.where(at < len(score), at, torch.zeros_like(at))


def f1_of(said: Bool[Tensor, " n"], true: Bool[Tensor, " n"]) -> float:
    """F1 of a yes-or-no answer; 0 where nothing is said and nothing is true."""
    both = int(said.sum()) + int(true.sum())
    return 2 * int((said & true).sum()) / both if both else 0.0


def sparse_probe(
    z: Activity, y: Bool[Tensor, " n"], z_test: Activity, y_test: Bool[Tensor, " m"], k: int, ridge: float = 1e-3
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
    apart = z.sums(y) / y.sum() - z.sums(~y) / (~y).sum()
    chosen = apart.abs().topk(min(k, z.n_latents)).indices
    active, active_test = z.columns(chosen), z_test.columns(chosen)
    mean, std = active.mean(0), active.std(0, correction=0).clamp_min(1e-12)

    def features(part: Tensor) -> Tensor:
        return torch.cat([(part - mean) / std, torch.ones_like(part[:, :1])], dim=1).double()

    x, target = features(active), y.double()
    # Both classes weigh the same, whatever their numbers: the score is balanced too.
    weight = torch.where(y, 0.5 / target.mean(), 0.5 / (1 - target).mean())
    penalty = x.new_full((x.shape[1],), ridge * len(x))
    penalty[-1] = 0.0
    w = x.new_zeros(x.shape[1])
    for _ in range(50):  # Newton's method; a handful of coefficients, a convex loss
        p = (x @ w).sigmoid()
        gradient = x.t() @ (weight * (p - target)) + penalty * w
        curvature = (x * (weight * p * (1 - p))[:, None]).t() @ x + torch.diag(penalty + 1e-9)
        step = torch.linalg.solve(curvature, gradient)
        w = w - step * min(1.0, 4.0 / float(step.norm().clamp_min(1e-12)))
        if step.norm() < 1e-8:
            break
    said = features(active_test) @ w > 0
    return float((said[y_test].double().mean() + (~said[~y_test]).double().mean()) / 2)
