"""What steering needs of a sparse autoencoder, and directions made of its latents. Any object with this shape will do."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class SaeLike(Protocol):
    """An SAE of `n_latents` directions in a stream of width `d_model`, on the CPU."""

    @property
    def d_model(self) -> int:
        """Width of the stream."""
        ...

    @property
    def n_latents(self) -> int:
        """How many directions it has."""
        ...

    @property
    def decoder(self) -> Float[Tensor, "f d"]:
        """What one unit of each latent adds to the reconstruction, one row a latent."""
        ...

    def encode(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """The latents of some vectors, in the model's own scale; zero where a latent is silent."""
        ...

    def decode(self, z: Float[Tensor, "n f"]) -> Float[Tensor, "n d"]:
        """The vectors that latents stand for."""
        ...


def decoder_row(sae: SaeLike, latent: int) -> Float[Tensor, " d"]:
    """What one unit of a latent adds to the reconstruction, whatever the decoder's offset is.

    Raises:
        ValueError: The SAE has no such latent.
    """
    return decoder_rows(sae, torch.tensor([latent]))[0]


def decoder_rows(sae: SaeLike, latents: Tensor) -> Float[Tensor, "k d"]:
    """As `decoder_row`, for several latents."""
    outside = [i for i in latents.tolist() if not 0 <= i < sae.n_latents]
    if outside:
        raise ValueError(f"no latent {outside[0]}: the SAE has 0..{sae.n_latents - 1}")
    return sae.decoder[latents].float()


def best_latent(sae: SaeLike, target: Float[Tensor, " f"], other: Float[Tensor, " f"]) -> int:
    """The latent whose mean activation is higher on the target's tokens than on the others' by the most, in decoder norms.

    Args:
        sae: The SAE.
        target: Mean of each latent over the target's tokens.
        other: The same of the other class.

    Raises:
        ValueError: No latent is higher on the target.
    """
    gap = target - other
    candidates = gap.topk(min(64, sae.n_latents)).indices
    weighted = gap[candidates] * decoder_rows(sae, candidates).norm(dim=1)
    if weighted.max() <= 0:
        raise ValueError("no latent is more active on the target than on the others: the SAE does not separate them")
    return int(candidates[weighted.argmax()])


def sparse_reconstruction(sae: SaeLike, v: Float[Tensor, " d"], k: int) -> tuple[Float[Tensor, " d"], Tensor]:
    """A vector rebuilt from k decoder rows, found greedily and refitted after each step (orthogonal matching pursuit).

    Args:
        sae: Whose decoder rows.
        v: The vector; a class direction.
        k: Rows to use, at most.

    Returns:
        The reconstruction, and the latents used in the order in which they were found.

    Raises:
        ValueError: k is not positive, or the widths differ.

    Source: Pati et al., "Orthogonal matching pursuit", 1993; for class vectors see the paper's sparse reconstruction.
    """
    if k < 1:
        raise ValueError(f"need at least one latent, got k = {k}")
    if v.shape[0] != sae.d_model:
        raise ValueError(f"the vector has width {v.shape[0]}, the SAE {sae.d_model}")
    norms = sae.decoder.norm(dim=1).clamp(min=1e-12)
    residual, chosen, built = v.clone(), [], torch.zeros_like(v)
    for _ in range(min(k, sae.n_latents, sae.d_model)):
        score = (sae.decoder @ residual).abs() / norms  # the rows are not copied: an SAE may take half of the memory
        score[chosen] = -1
        best = int(score.argmax())
        if score[best] <= 1e-6 * v.norm():
            break
        chosen.append(best)
        basis = (sae.decoder[chosen] / norms[chosen, None]).T
        built = basis @ torch.linalg.lstsq(basis, v[:, None]).solution[:, 0]
        residual = v - built
    return built, torch.tensor(chosen, dtype=torch.long)
