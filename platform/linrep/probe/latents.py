"""Few-latent probes: which k latents of a sparse autoencoder name a class, and how well, in two passes for all labels together.

A class needs the moments of its own k latents alone, so memory grows with classes times k squared: a thousand classes may choose
every latent there is between them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.probe.closed import solve_few
from linrep.probe.linear import Linear


class Weighed(NamedTuple):
    """Some rows of latents.

    Attributes:
        z: Latents.
        y: Class number of each row by label column, -1 for none; a column that is missing has none of them.
        group: Which group of rows they belong to, such as their modality.
    """

    z: Float[Tensor, "n f"]
    y: Mapping[str, Int64[np.ndarray, " n"]]
    group: int = 0


LatentPasses = Callable[[], Iterator[Weighed]]
"""Training rows, from the start at each call."""


@dataclass(frozen=True)
class LatentProbe:
    """A probe that sees k latents of each class.

    Attributes:
        latents: The latents that it reads, all classes together, by number.
        probe: The classifier over them.
        k: Latents of each class.
        spread: Standard deviation of each class's score over the training rows.
        n: Training rows.
    """

    latents: Int64[Tensor, " m"]
    probe: Linear
    k: int
    spread: Float[Tensor, " c"]
    n: int

    def scores(self, z: Float[Tensor, "n f"]) -> Float[Tensor, "n c"]:
        """The score of every class for every row of latents."""
        return self.probe.scores(z[:, self.latents])

    def of(self, label: int) -> Int64[Tensor, " _"]:
        """The latents that one class is read from."""
        return self.latents[self.probe.weights[:, label] != 0]


class Sums:
    """Sums of all latents by class, of one label column and group of rows."""

    def __init__(self, n_classes: int, n_latents: int) -> None:
        self.counts = torch.zeros(n_classes, dtype=torch.float64)
        self.sums = torch.zeros(n_classes, n_latents, dtype=torch.float64)

    def add(self, z: Float[Tensor, "n f"], y: Int64[Tensor, " n"]) -> None:
        """Add rows, each of a class."""
        self.counts += torch.bincount(y, minlength=len(self.counts))
        self.sums.index_add_(0, y, z.double())


@dataclass(frozen=True)
class Survey:
    """What the first pass counted.

    Attributes:
        fires: Rows on which each latent fires.
        groups: Sums by label column and group.
    """

    fires: Int64[Tensor, " f"]
    groups: dict[str, dict[int, Sums]] = field(default_factory=dict)

    def most_active(self, most: int) -> Int64[Tensor, " m"]:
        """The latents that fire on most rows, at most `most` of them, by number; those that never fire are not among them."""
        order = self.fires.argsort(descending=True, stable=True)[:most]
        return order[self.fires[order] > 0].sort().values

    def weight(self, column: str, group: int) -> float:
        """What a row of a group counts, so that all groups of a column weigh the same: those of the smallest count whole."""
        sizes = {g: float(own.counts.sum()) for g, own in self.groups[column].items()}
        return min(sizes.values()) / sizes[group]


def survey(passes: LatentPasses, n_latents: int, n_classes: Mapping[str, int]) -> Survey:
    """The first pass: firing counts, and sums of all latents by class.

    Args:
        passes: The training rows.
        n_latents: Latents of the autoencoder.
        n_classes: Classes of each label column.
    """
    fires = torch.zeros(n_latents, dtype=torch.int64)
    groups: dict[str, dict[int, Sums]] = {column: {} for column in n_classes}
    for rows in passes():
        fires += (rows.z > 0).sum(0)
        for column, z, y in _labelled(rows):
            own = groups[column].setdefault(rows.group, Sums(n_classes[column], n_latents))
            own.add(z, y)
    return Survey(fires, groups)


def fit_latents(passes: LatentPasses, found: Survey, ks: Sequence[int]) -> dict[str, list[LatentProbe]]:
    """For each label column and each k the probe that sees, for each class, the k latents with the largest |mean of the class -
    mean of the rest|: the second pass.

    Args:
        passes: The training rows, those of the survey.
        found: What the first pass counted.
        ks: Numbers of latents for each class.

    Source: Karvonen et al., "SAEBench", 2025 (sparse probing).
    """
    fits = {column: _Fit(column, found, max(ks)) for column, groups in found.groups.items() if groups and ks}
    for rows in passes():
        for column, z, y in _labelled(rows):
            if column in fits and len(y):
                fits[column].add(z, found.weight(column, rows.group))
    return {column: [fit.probe(k) for k in ks] for column, fit in fits.items()}


def bytes_of_fit(n_classes: Sequence[int], n_latents: int, k: int) -> int:
    """Memory that the sums of label columns of `n_classes` classes take, for probes of k latents."""
    return 8 * sum(c * (n_latents + min(k, n_latents) ** 2) for c in n_classes)


class _Fit:
    """The moments of one label column, class by class."""

    def __init__(self, column: str, found: Survey, k: int) -> None:
        shares = [(found.weight(column, group), own) for group, own in found.groups[column].items()]
        self._counts = torch.stack([w * own.counts for w, own in shares]).sum(0)
        sums = torch.stack([w * own.sums for w, own in shares]).sum(0)
        self._n, total = float(self._counts.sum()), sums.sum(0)
        self._mean = total / max(self._n, 1.0)
        inside = sums / self._counts.clamp(min=1e-300)[:, None]
        outside = (total - sums) / (self._n - self._counts).clamp(min=1e-300)[:, None]
        seen = (self._counts > 0)[:, None]
        self._order = torch.where(seen, inside - outside, 0.0).abs().argsort(dim=1, descending=True, stable=True)[:, :k]
        self._between = torch.where(seen, inside - self._mean, 0.0).gather(1, self._order)
        k = self._order.shape[1]
        self._scatter = torch.zeros(len(self._order), k, k, dtype=torch.float64)

    def add(self, z: Float[Tensor, "n f"], weight: float) -> None:
        for chosen, scatter in zip(self._order, self._scatter, strict=True):
            own = z[:, chosen].double() - self._mean[chosen]
            scatter.addmm_(own.T, own, alpha=weight)

    def probe(self, k: int) -> LatentProbe:
        order, scatter = self._order[:, :k], self._scatter[:, :k, :k]
        found, bias = solve_few(scatter, self._between[:, :k], self._counts, self._n)
        latents = order.unique()
        weights = torch.zeros(len(order), len(latents), dtype=torch.float64)
        weights.scatter_(1, torch.searchsorted(latents, order.contiguous()), found)
        variance = torch.einsum("ci,cij,cj->c", found, scatter, found) / max(self._n, 1.0)
        probe = Linear("latents", self._mean[latents], weights.T.contiguous(), bias, float(k))
        return LatentProbe(latents, probe, k, variance.clamp(min=0).sqrt(), round(self._n))


def _labelled(rows: Weighed) -> Iterator[tuple[str, Float[Tensor, "n f"], Int64[Tensor, " n"]]]:
    """The rows that have a class, for each label column; columns of the same rows share them."""
    of: dict[bytes, Tensor] = {}
    for column, codes in rows.y.items():
        has = codes >= 0
        key = has.tobytes()
        if key not in of:
            of[key] = rows.z if has.all() else rows.z[torch.from_numpy(has)]
        yield column, of[key], torch.from_numpy(codes[has])
