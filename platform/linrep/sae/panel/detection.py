"""How well explanations hold on held-out images: detection, retrieval among latents of equal density, and one latent a value."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from linrep.sae.panel.agreement import f1, mcc
from linrep.sae.panel.data import PanelData
from linrep.sae.panel.explained import Explained, counts

CANDIDATES = 10
"""Latents that an explanation is to find its own among."""


@dataclass(frozen=True)
class Detection:
    """Scores over images of r weights each.

    Attributes:
        agreement: Mean Matthews correlation of a latent's firing with its explanation; over latents drawn by energy.
        retrieval: Share of latents, drawn by energy, that agree with their own explanation better than latents of like density.
        one_to_one: Mean F1 over values, each with a latent of its own.
    """

    agreement: Float[np.ndarray, " r"]
    retrieval: Float[np.ndarray, " r"]
    one_to_one: Float[np.ndarray, " r"]


def detection(found: Explained, data: PanelData, weights: Float[np.ndarray, "r s"]) -> Detection:
    """Score what was chosen on training images on the held-out ones.

    Args:
        found: The latents and their explanations.
        data: The images.
        weights: How often each held-out image counts, a row for each resample.
    """
    own, latents, values = found.explanation.clamp_min(0), *assigned(found, data)
    others, share = like_density(found), found.weight
    fired = torch.from_numpy(found.held_fires).float()
    rows = []
    for weight in torch.from_numpy(weights).float():
        both, said, true, n = counts(fired, data.held_values, weight)
        agrees = mcc(both, said, true, n)
        mine = agrees.gather(1, own[:, None])
        rivals = agrees[others, own[:, None]]
        # Of latents that agree equally well, each is found as often.
        wins = (mine >= rivals).all(1) / (1 + (mine == rivals).sum(1))
        scores = f1(both[latents, values], said[latents, values], true[0, values])
        rows.append([float(share @ mine[:, 0]), float(share @ wins.double()), float(scores.sum()) / both.shape[1]])
    return Detection(*np.array(rows).T)


def like_density(found: Explained, n: int = CANDIDATES) -> Int[Tensor, "f n_1"]:
    """For each latent the others that fire on the most similar number of training images; of those that fire at all."""
    rates = torch.from_numpy(found.train_fires.mean(0))
    order = rates.argsort(stable=True)
    order = order[rates[order] > 0]
    if len(order) < 2:
        raise ValueError(f"{len(order)} latents fire on training images: retrieval needs at least two")
    n = min(n, len(order))
    # The nearest in rate are among the n - 1 before and the n - 1 after it, where it stands or would stand.
    place = torch.searchsorted(rates[order], rates)
    window = place[:, None] + torch.arange(-n, n + 1)
    outside = (window < 0) | (window >= len(order))
    others = order[window.clamp(0, len(order) - 1)]
    far = (rates[others] - rates[:, None]).abs()
    far[outside | (others == torch.arange(len(rates))[:, None])] = torch.inf
    return others.gather(1, far.argsort(dim=1, stable=True)[:, : n - 1])


def assigned(found: Explained, data: PanelData) -> tuple[Int[Tensor, " w"], Int[Tensor, " w"]]:
    """A latent for each value, none for two, so that their F1 on training images is highest; and the values.

    Source: Kuhn, "The Hungarian method for the assignment problem", 1955.
    """
    both, said, true, _ = counts(
        torch.from_numpy(found.train_fires).float(), data.train_values, torch.ones(len(found.train_fires))
    )
    latents, values = linear_sum_assignment(f1(both, said, true).numpy(), maximize=True)
    return torch.from_numpy(latents), torch.from_numpy(values)


def halves(n: int, seed: int) -> Bool[np.ndarray, " n"]:
    """Which of n images are the second half: drawn by seed."""
    second = np.zeros(n, bool)
    second[np.random.default_rng([seed, n]).permutation(n)[: n // 2]] = True
    return second
