"""The words that the stream is nearest to at each position and layer: the model's own final norm and output matrix."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.vlm.unembed import Unembedding

ROOM_BYTES = 64 * 2**20
"""Logits held at once."""


class NearestWords(NamedTuple):
    """The likeliest next tokens at t positions of l layers, were each the last layer."""

    ids: Int64[Tensor, "l t k"]
    """Tokens, the likeliest first."""
    p: Float[Tensor, "l t k"]
    """Their probabilities over the whole vocabulary."""


def nearest_words(h: Float[Tensor, "l t d"], unembedding: Unembedding, k: int) -> NearestWords:
    """The k likeliest words of each vector of the stream.

    Args:
        h: The stream by layer and position.
        unembedding: Of the model; its matrix says on which device the logits are computed.
        k: Words of a vector; the whole vocabulary where that is smaller.

    Source: nostalgebraist, "interpreting GPT: the logit lens", 2020; on image tokens, Neo et al., ICLR 2025.
    """
    v = len(unembedding.matrix)
    k, step = min(k, v), max(1, ROOM_BYTES // (4 * v))
    rows = h.flatten(0, 1)
    ids, p = [], []
    for start in range(0, len(rows), step):
        some = rows[start : start + step].to(unembedding.matrix.device)
        top = unembedding.logits(some).softmax(-1).topk(k, dim=-1)
        ids.append(top.indices.cpu())
        p.append(top.values.cpu())
    empty = torch.zeros(0, k)
    shape = (*h.shape[:2], k)
    return NearestWords(torch.cat(ids or [empty.long()]).reshape(shape), torch.cat(p or [empty]).reshape(shape))
