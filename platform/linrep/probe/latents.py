"""Few-latent probes: which k latents of a sparse autoencoder name a class, and how well: two passes, no full Gram matrix."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.dictionary import Encoder
from linrep.probe.closed import sparse
from linrep.probe.linear import Linear
from linrep.probe.moments import Gatherer, Moments

MOST_TOGETHER = 8192
"""Latents that all classes' choices may hold together: their Gram matrix takes 0.5 GB then."""

Rows = Callable[[], Iterator[tuple[Float[Tensor, "n d"], Int64[np.ndarray, " n"]]]]
"""Training rows, from the start at each call: vectors of the residual stream and class numbers."""


@dataclass(frozen=True)
class LatentProbe:
    """A probe that sees k latents of each class.

    Attributes:
        latents: The latents that it reads, all classes together, by number.
        probe: The classifier over them.
        k: Latents of each class.
        moments: Of the training rows' chosen latents.
    """

    latents: Int64[Tensor, " m"]
    probe: Linear
    k: int
    moments: Moments

    def scores(self, encoder: Encoder, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """The score of every class for every row of the residual stream."""
        return self.probe.scores(encoder.encode(x)[:, self.latents])

    def of(self, label: int) -> Int64[Tensor, " _"]:
        """The latents that one class is read from."""
        return self.latents[self.probe.weights[:, label] != 0]


def fit_latents(rows: Rows, encoder: Encoder, n_classes: int, ks: Sequence[int]) -> list[LatentProbe]:
    """For each k the probe that sees, for each class, the k latents with the largest |mean of the class - mean of the rest|.

    One pass finds the means of all latents, a second one the moments of those that any class chose.

    Args:
        rows: The training rows.
        encoder: The autoencoder.
        n_classes: Classes.
        ks: Numbers of latents for each class.

    Raises:
        ValueError: The rows are of another width than the encoder, or the classes choose too many latents together.

    Source: Karvonen et al., "SAEBench", 2025 (sparse probing).
    """
    order = _order(rows, encoder, n_classes)
    chosen = order[:, : max(ks)].unique()
    if len(chosen) > MOST_TOGETHER:
        raise ValueError(f"{n_classes} classes choose {len(chosen):,} latents together, at most {MOST_TOGETHER:,} fit: lower k")
    gatherer = Gatherer({"y": n_classes}, len(chosen))
    for x, y in rows():
        gatherer.add(encoder.encode(x)[:, chosen], {"y": y})
    # Each class's own order, as positions among the chosen latents.
    own = torch.searchsorted(chosen, order[:, : max(ks)].contiguous())
    moments = gatherer.moments
    probes = [replace(sparse(moments, "y", k, own[:, :k]), kind="latents") for k in ks]
    return [LatentProbe(chosen, probe, k, moments) for probe, k in zip(probes, ks, strict=True)]


def _order(rows: Rows, encoder: Encoder, n_classes: int) -> Int64[Tensor, "c f"]:
    sums = torch.zeros(n_classes, encoder.n_latents, dtype=torch.float64)
    counts = torch.zeros(n_classes, dtype=torch.float64)
    for x, y in rows():
        if x.shape[1] != encoder.d_model:
            raise ValueError(f"rows of width {x.shape[1]} for an autoencoder of width {encoder.d_model}")
        labels = torch.from_numpy(y)
        sums.index_add_(0, labels, encoder.encode(x).double())
        counts += torch.bincount(labels, minlength=n_classes)
    total, n = sums.sum(0), counts.sum()
    inside = sums / counts.clamp(min=1)[:, None]
    outside = (total - sums) / (n - counts).clamp(min=1)[:, None]
    return (inside - outside).abs().argsort(dim=1, descending=True, stable=True)
