"""What of a planted world a design finds, and whether what it calls shared is."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from linrep.sae.paired.matching import correlations
from linrep.sae.paired.shared import called, own_correlations
from linrep.sae.paired.sides import Codes
from linrep.sae.paired.world import Planted
from linrep.stats.auroc import of_scores

HOLDS = 0.7
"""Least correlation of a latent's activation with a feature that it is said to hold."""


@dataclass(frozen=True)
class Recovered:
    """What was found in one planted world. Means are NaN, and shares of nothing, where the world has nothing to measure.

    Attributes:
        one_latent: Mean correlation of each shared feature with a latent of its own: the lower one of both modalities.
        apart: The same with a latent of its own in each modality, which need not be one.
        private: The same of the private features of each modality.
        auroc: How well a feature's latent, by its correlation across pairs, separates shared from private features.
        called: Latents that are called shared.
        recall: Shared features that a called latent holds in both modalities, and all of them.
        precision: Called latents that hold one shared feature in both modalities, and all called ones.
        hedged: Private features whose latent is called shared, and all private features that a latent holds.
    """

    one_latent: float
    apart: float
    private: float
    auroc: float
    called: int
    recall: tuple[int, int]
    precision: tuple[int, int]
    hedged: tuple[int, int]


def recovered(codes: Codes, world: Planted) -> Recovered:
    """What a design finds of a planted world.

    Args:
        codes: Of the held-out pairs.
        world: The pairs and their truth.
    """
    s, p = world.n_shared, world.n_private
    image, text = correlations(world.truth.image, codes.image), correlations(world.truth.text, codes.text)
    shared, own = (image[:s], text[:s]), (image[s : s + p], text[s + p :])
    calls, score = called(codes), own_correlations(codes)[0]
    lower = torch.minimum(*shared)
    held = lower[:, calls] >= HOLDS
    private_calls = torch.cat([calls[latents[holds]] for latents, holds in map(_holders, own)])
    return Recovered(
        one_latent=_assigned(lower),
        apart=float(np.mean([_assigned(part) for part in shared])),
        private=float(np.mean([_assigned(part) for part in own])),
        auroc=_auroc(score, shared, own),
        called=int(calls.sum()),
        recall=(int(held.any(1).sum()), s),
        precision=(int(held.any(0).sum()) if s else 0, int(calls.sum())),
        hedged=(int(private_calls.sum()), len(private_calls)),
    )


def _assigned(score: Float[Tensor, "m f"]) -> float:
    """Mean score of each feature with a latent of its own; features that are left without one score 0.

    Source: Hyvarinen & Morioka, 2016 (mean correlation of assigned sources).
    """
    if not len(score):
        return math.nan
    rows, columns = linear_sum_assignment(score.numpy(), maximize=True)
    return float(score.numpy()[rows, columns].sum()) / len(score)


def _holders(score: Float[Tensor, "m f"]) -> tuple[Int[Tensor, " m"], Bool[Tensor, " m"]]:
    """The latent that goes best with each feature, and whether it holds it."""
    if not len(score):
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    best = score.max(1)
    return best.indices, best.values >= HOLDS


def _auroc(score: Float[Tensor, " f"], shared: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor]) -> float:
    values = [score[_holders(seen)[0]].numpy() for seen in (*shared, *own)]
    labels = [np.full(len(found), i < len(shared)) for i, found in enumerate(values)]
    return of_scores(np.concatenate(values), np.concatenate(labels))
