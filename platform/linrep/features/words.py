"""What the weights alone say of a latent: the words that its decoder row raises and lowers, and the latents nearest to it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.vlm.unembed import Unembedding

ROOM_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Ends:
    """The largest and the smallest of some numbers for each of r rows, from the outermost inwards."""

    high: Float[Tensor, "r k"]
    high_at: Int64[Tensor, "r k"]
    low: Float[Tensor, "r k"]
    low_at: Int64[Tensor, "r k"]


def lens(decoder: Float[Tensor, "r d"], unembedding: Unembedding, k: int) -> Ends:
    """The k tokens that a unit of each latent raises most in the logit lens, and the k that it lowers most."""
    k = min(k, len(unembedding.matrix))
    parts = []
    for rows in decoder.split(_step(len(unembedding.matrix))):
        logits = rows.float() @ unembedding.matrix.T
        high, low = logits.topk(k, dim=1), logits.topk(k, dim=1, largest=False)
        parts.append((high.values, high.indices, low.values, low.indices))
    return Ends(*(torch.cat(part) for part in zip(*parts, strict=True)))


def nearest(decoder: Float[Tensor, "f d"], first: int, last: int, k: int) -> tuple[Float[Tensor, "r k"], Int64[Tensor, "r k"]]:
    """Cosines and numbers of the latents whose decoder rows are nearest to those of a run of latents, nearest first."""
    units = decoder.float() / decoder.float().norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    k = min(k, len(units) - 1)
    parts, step = [], _step(len(units))
    for start in range(first, last, step):
        own = torch.arange(start, min(start + step, last))
        cosines = units[own] @ units.T
        cosines[torch.arange(len(own)), own] = -torch.inf
        parts.append(cosines.topk(k, dim=1))
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def _step(columns: int) -> int:
    return max(1, ROOM_BYTES // (4 * columns))
