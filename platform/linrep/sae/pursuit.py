"""Vectors rebuilt from few decoder rows: how sparse a direction is in an SAE, as cosine over the number of latents."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from linrep.sae.start import unit_rows


def pursue(
    decoder: Float[Tensor, "f d"], vectors: Float[Tensor, "v d"], most: int
) -> tuple[Float[Tensor, "v k"], Int[Tensor, "v k"]]:
    """Cosine of each vector with its best combination of 1, 2, ... decoder rows, chosen greedily, and the rows in that order.

    At each step the row most aligned with what is left, of either sign, joins, and all coefficients are fitted again: a class
    direction is a difference, so latents may also be taken away.

    Args:
        decoder: The SAE's rows; their norms do not matter.
        vectors: What to rebuild; not zero.
        most: Rows to use at most.

    Raises:
        ValueError: More rows than the SAE or the space has, or a vector is zero.

    Source: Pati et al., "Orthogonal matching pursuit", 1993; its use on steering vectors, Rajaram et al. 2025.
    """
    if not 0 < most <= min(decoder.shape):
        raise ValueError(f"can use 1 to {min(decoder.shape)} rows of an SAE of {tuple(decoder.shape)}, asked for {most}")
    norms = vectors.double().norm(dim=1, keepdim=True)
    if not bool((norms > 0).all()):
        raise ValueError(f"vector {int((norms.flatten() == 0).nonzero()[0])} is zero: it has no direction to rebuild")
    lengths = decoder.norm(dim=1).clamp_min(1e-12)
    wanted = vectors.double() / norms
    chosen = torch.zeros(len(vectors), 0, dtype=torch.int64, device=decoder.device)
    basis = wanted.new_zeros(len(vectors), 0, decoder.shape[1])
    left, cosines = wanted.clone(), []
    for _ in range(most):
        # The choice in the decoder's own precision: a copy of it in float64 would be the largest thing in memory.
        scores = ((left.to(decoder) @ decoder.t()) / lengths).abs().scatter(1, chosen, -1.0)
        best = scores.argmax(1)
        chosen = torch.cat([chosen, best[:, None]], dim=1)
        # An orthonormal basis of the chosen rows: each new row loses what the basis holds (twice, against rounding).
        new = torch.nn.functional.normalize(decoder[best].double(), dim=1)
        for _ in range(2):
            new = new - torch.einsum("vkd,vk->vd", basis, torch.einsum("vkd,vd->vk", basis, new))
        length = new.norm(dim=1, keepdim=True)
        new = torch.where(length > 1e-9, new / length.clamp_min(1e-9), torch.zeros_like(new))
        basis = torch.cat([basis, new[:, None]], dim=1)
        left = wanted - torch.einsum("vkd,vk->vd", basis, torch.einsum("vkd,vd->vk", basis, wanted))
        cosines.append((1 - left.square().sum(1)).clamp(0, 1).sqrt())
    return torch.stack(cosines, dim=1).to(vectors.dtype), chosen


def random_vectors(like: Float[Tensor, "v d"], seed: int) -> Float[Tensor, "v d"]:
    """The control: random directions with the norms of some vectors."""
    return unit_rows(len(like), like.shape[1], seed, "vectors").to(like) * like.norm(dim=1, keepdim=True)


def latents_needed(cosines: Float[Tensor, "v k"], cosine: float) -> Int[Tensor, " v"]:
    """How many rows each vector needs to reach a cosine; one more than were tried where it does not."""
    return (cosines < cosine).sum(1) + 1
