"""The latents that fire at each position, the strongest first."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from linrep.encoder import Encoder, active

NONE = -1
"""Stands for no latent, where fewer fire than are asked for."""


class Strongest(NamedTuple):
    """The strongest latents of t positions."""

    latents: Int64[Tensor, "t k"]
    """Latents by falling activation, `NONE` where no more fire."""
    values: Float[Tensor, "t k"]
    """Their activations, 0 likewise."""
    n_active: Int64[Tensor, " t"]
    """How many fire in all."""


def strongest(encoder: Encoder, x: Float[Tensor, "t d"], k: int, keep: Bool[Tensor, " t"] | None = None) -> Strongest:
    """The k latents that fire most strongly at each position; equal ones in the order of their numbers.

    Args:
        encoder: An SAE.
        x: The stream at its layer.
        k: Latents of a position.
        keep: Positions to read; the others have none.
    """
    t = len(x)
    with torch.no_grad():
        found = active(encoder, x.float())
    row, latent, value = found.row, found.latent, found.value
    if keep is not None:
        kept = keep[row]
        row, latent, value = row[kept], latent[kept], value[kept]
    n_active = torch.bincount(row, minlength=t)
    by_value = value.argsort(descending=True, stable=True)  # within a row latents rise, so that equal values stay in order
    order = by_value[row[by_value].argsort(stable=True)]
    rank = torch.arange(len(row)) - (n_active.cumsum(0) - n_active).repeat_interleave(n_active)
    shown = rank < k
    at = row[order][shown], rank[shown]
    latents, values = torch.full((t, k), NONE), torch.zeros(t, k)
    latents[at], values[at] = latent[order][shown], value[order][shown].float()
    return Strongest(latents, values, n_active)


class Peaks(NamedTuple):
    """The strongest latents of several positions together."""

    latents: Int64[Tensor, " n"]
    """By falling activation."""
    values: Float[Tensor, " n"]
    """The largest activation of each."""
    positions: Int64[Tensor, " n"]
    """Where that is, among the positions."""
    n_tokens: Int64[Tensor, " n"]
    """Positions at which each is among the strongest."""


def peaks(found: Strongest, among: Bool[Tensor, " t"], n: int) -> Peaks:
    """The n latents with the largest activation at some positions.

    Args:
        found: The strongest of each position.
        among: Which positions.
        n: Latents, at most.
    """
    rows = among.nonzero()[:, 0]
    latents, values = found.latents[rows].flatten(), found.values[rows].flatten()
    where = rows.repeat_interleave(found.latents.shape[1])
    fires = latents != NONE
    latents, values, where = latents[fires], values[fires], where[fires]
    order = values.argsort(descending=True, stable=True)
    best: dict[int, tuple[float, int, int]] = {}
    for latent, value, place in zip(latents[order].tolist(), values[order].tolist(), where[order].tolist(), strict=True):
        first = best.get(latent, (value, place, 0))
        best[latent] = (first[0], first[1], first[2] + 1)
    top = list(best.items())[:n]
    return Peaks(
        torch.tensor([latent for latent, _ in top], dtype=torch.long),
        torch.tensor([one[0] for _, one in top], dtype=torch.float32),
        torch.tensor([one[1] for _, one in top], dtype=torch.long),
        torch.tensor([one[2] for _, one in top], dtype=torch.long),
    )
