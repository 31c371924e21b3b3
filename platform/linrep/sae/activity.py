"""What latents do at the level of samples: the largest activation over a sample's rows, sparse.

A dense table of ten thousand samples and a hundred thousand latents takes gigabytes; most of it is zero.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.sae.sae import Sae

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Activity:
    """Latents of n samples; what is not listed is 0.

    Attributes:
        latents: Latent of each entry, in ascending order.
        samples: Its sample.
        values: Its activation, above 0; within a latent from the largest down.
        n_samples: n.
        n_latents: f.
    """

    latents: Int[Tensor, " s"]
    samples: Int[Tensor, " s"]
    values: Float[Tensor, " s"]
    n_samples: int
    n_latents: int

    @classmethod
    def of(
        cls, latents: Int[Tensor, " s"], samples: Int[Tensor, " s"], values: Float[Tensor, " s"], n_samples: int, n_latents: int
    ) -> "Activity":
        """From entries in any order, each sample and latent once."""
        order = values.argsort(descending=True, stable=True)
        order = order[latents[order].argsort(stable=True)]
        return cls(latents[order], samples[order], values[order], n_samples, n_latents)

    @classmethod
    def from_dense(cls, z: Float[Tensor, "n f"]) -> "Activity":
        """The entries above 0 of a dense tensor."""
        samples, latents = (z > 0).nonzero(as_tuple=True)
        return cls.of(latents, samples, z[samples, latents], *z.shape)

    def columns(self, latents: Int[Tensor, " k"]) -> Float[Tensor, "n k"]:
        """A few latents, dense; each is named once."""
        place = torch.full((self.n_latents,), -1, device=self.latents.device)
        place[latents] = torch.arange(len(latents), device=place.device)
        here = place[self.latents] >= 0
        dense = self.values.new_zeros(self.n_samples, len(latents))
        dense[self.samples[here], place[self.latents[here]]] = self.values[here]
        return dense

    def only(self, samples: Int[Tensor, " m"]) -> "Activity":
        """Some of the samples, in a new order."""
        place = torch.full((self.n_samples,), -1, device=self.samples.device)
        place[samples] = torch.arange(len(samples), device=place.device)
        renamed = place[self.samples]
        here = renamed >= 0
        return Activity(self.latents[here], renamed[here], self.values[here], len(samples), self.n_latents)

    def sums(self, of: Bool[Tensor, " n"]) -> Float[Tensor, " f"]:
        """Each latent's activations summed over some samples."""
        here = of[self.samples]
        total = torch.zeros(self.n_latents, dtype=torch.float64, device=self.values.device)
        return total.index_add_(0, self.latents[here], self.values[here].double())


def highest(
    saes: Sequence[Sae], pieces: Iterable[tuple[Float[Tensor, "_ d"], Int[Tensor, " _"]]], n_samples: int
) -> list[Activity]:
    """The largest activation of each latent over the rows of each sample, for several SAEs in one pass.

    Args:
        saes: The SAEs.
        pieces: Rows, on any device, and the sample of each; a sample's rows may lie in several pieces.
        n_samples: Samples.

    Returns:
        One for each SAE, in the memory of the CPU.
    """
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in saes]
    for x, owner in pieces:
        for rows, samples in zip(x.split(ROWS_AT_ONCE), owner.split(ROWS_AT_ONCE), strict=True):
            for sae, parts in zip(saes, found, strict=True):
                codes = sae.codes(rows.to(sae.b_dec))
                active = codes.values > 0
                cells = samples.to(codes.latents)[codes.rows()] * sae.n_latents + codes.latents
                places, values = _largest(cells[active], codes.values[active].float())
                parts.append((places.cpu(), values.cpu()))
    return [_merged(sae, parts, n_samples) for sae, parts in zip(saes, found, strict=True)]


def _merged(sae: Sae, parts: Sequence[tuple[Tensor, Tensor]], n_samples: int) -> Activity:
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0)
    cells, values = _largest(*(torch.cat(some) for some in zip(nothing, *parts, strict=True)))
    return Activity.of(cells % sae.n_latents, cells // sae.n_latents, values, n_samples, sae.n_latents)


def _largest(cells: Int[Tensor, " s"], values: Float[Tensor, " s"]) -> tuple[Int[Tensor, " u"], Float[Tensor, " u"]]:
    """Each cell once, with the largest of its values."""
    unique, inverse = cells.unique(return_inverse=True)
    return unique, values.new_zeros(len(unique)).scatter_reduce_(0, inverse, values, "amax")
