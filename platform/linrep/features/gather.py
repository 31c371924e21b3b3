"""One pass over a run of latents of the turned codes: everything that is summed, counted or kept, by parts, then together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

from linrep.features.columns import Columns, in_pieces
from linrep.features.config import FeaturesConfig
from linrep.features.labels import BINS, Attribute, Histograms
from linrep.features.monosemanticity import Embedded, Weighted
from linrep.features.peaks import peaks
from linrep.features.rates import Rates
from linrep.features.regions import Overlaps, RegionFacts
from linrep.largest import Largest, draw_key, strength_key
from linrep.store.layout import MODALITIES, Modality

OVERSAMPLED = 3
"""Samples drawn for each that the quantiles show: they say where the quantiles lie."""


@dataclass(frozen=True)
class SampleFacts:
    """What is known of the store's s samples.

    Attributes:
        rank: Place of each sample when all are sorted by the hashes of their names: breaks ties, draws, and parts the halves.
        by_rank: The sample of each place.
        attributes: By modality.
        embedded: Vectors of another encoder, if there are any.
        regions: What covers their patches, if that is known.
    """

    rank: Int64[np.ndarray, " s"]
    by_rank: Int64[np.ndarray, " s"]
    attributes: dict[Modality, tuple[Attribute, ...]]
    embedded: Embedded | None
    regions: RegionFacts | None = None

    @property
    def half(self) -> Int64[np.ndarray, " s"]:
        """Half of each sample: 0 to choose on, 1 to score on."""
        return self.rank % 2


class LatentSums:
    """What is known of f latents after some of the codes."""

    def __init__(self, f: int, known: SampleFacts, config: FeaturesConfig) -> None:
        self.rates = {m: Rates.none(f) for m in MODALITIES}
        self.top = {m: Largest(f, config.top) for m in MODALITIES}
        self.drawn = {m: Largest(f, n_drawn(config)) for m in MODALITIES}
        self.labels = {m: Histograms(f, known.attributes[m]) for m in MODALITIES}
        self.overlaps = None if known.regions is None else Overlaps(f, known.regions.n)
        self.alike = None if known.embedded is None else Weighted(f, known.embedded.units.shape[1])

    def merge(self, other: "LatentSums") -> None:
        """Take in what another one gathered."""
        for m in MODALITIES:
            self.rates[m] = self.rates[m] + other.rates[m]
            self.top[m].merge(other.top[m])
            self.drawn[m].merge(other.drawn[m])
            self.labels[m].merge(other.labels[m])
        if self.overlaps is not None and other.overlaps is not None:
            self.overlaps.merge(other.overlaps)
        if self.alike is not None and other.alike is not None:
            self.alike.merge(other.alike)


def n_drawn(config: FeaturesConfig) -> int:
    """Samples drawn for the quantiles of a latent in a modality."""
    return config.quantiles * config.per_quantile * OVERSAMPLED


def bytes_per_latent(known: SampleFacts, config: FeaturesConfig) -> int:
    """What `LatentSums` holds for each latent."""
    values = sum(len(a.values) for own in known.attributes.values() for a in own)
    values += 0 if known.regions is None else known.regions.n + 1
    vectors = 0 if known.embedded is None else known.embedded.units.shape[1]
    return 2 * (44 + 12 * (config.top + n_drawn(config))) + values * (8 + 8 * BINS) + 8 * vectors + 32


def runs(n_latents: int, known: SampleFacts, config: FeaturesConfig) -> list[tuple[int, int]]:
    """The latents in runs that fit into memory, as even as can be; each run is a pass over the codes."""
    most = max(1, int(config.memory_gb * 1e9) // bytes_per_latent(known, config))
    n = -(-n_latents // most)
    ends = [n_latents * i // n for i in range(n + 1)]
    return list(pairwise(ends))


def gather(columns: Sequence[Columns], run: tuple[int, int], known: SampleFacts, config: FeaturesConfig) -> LatentSums:
    """Read a run of latents from some files of turned codes, and gather it."""
    f = run[1] - run[0]
    found = LatentSums(f, known, config)
    for modality, fired in in_pieces(columns, run):
        own = peaks(fired)
        found.rates[modality] = found.rates[modality] + Rates.of(fired, own, f)
        rank = known.rank[own.sample]
        found.top[modality].offer(own.latent, strength_key(own.value, rank), own.position)
        found.drawn[modality].offer(own.latent, draw_key(own.value, rank), own.position)
        found.labels[modality].add(own, fired.samples, known.attributes[modality], known.half)
        if found.alike is not None and known.embedded is not None and modality == "image":
            found.alike.add(own, fired.samples, known.embedded)
    if found.overlaps is not None and known.regions is not None:
        for one in columns:
            if one.shape.modality == "image":
                found.overlaps.add(one, one.fired(run), known.regions, known.half)
    return found
