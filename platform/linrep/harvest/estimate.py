"""What a harvest will hold and run, from a few of its own samples: tokens, rows, bytes, objects. No weights are read."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from linrep.corpora.index import Chunk
from linrep.errors import CorpusError
from linrep.harvest.calibrate import calibration_turns
from linrep.harvest.chunk import prepare_chunk, sample_row
from linrep.harvest.config import HarvestConfig
from linrep.harvest.plan import Plan
from linrep.harvest.select import ViewRows, choose, choose_patches
from linrep.places import place
from linrep.sample import Skipped
from linrep.stats.interval import Interval, of_mean
from linrep.store.commit import write_commit
from linrep.store.layout import (
    GROUPS,
    LAST_GROUPS,
    NO_LAYER,
    TOWER,
    Folder,
    Modality,
    View,
    commit_file,
    folder_of,
    parse_folder,
    samples_file,
    site_group,
    statistics_file,
    view_and_site,
)
from linrep.store.manifest import TOWER_WIDTH
from linrep.store.statistics import BINS_PER_OCTAVE, N_BINS, Sums
from linrep.store.write import samples_table, writing_chunk
from linrep.vlm.card import ModelCard
from linrep.vlm.patches import patches_of
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from schemas.activations import vectors_of

LOOKED = 96
"""Samples of each source that are prepared: how much images of many sizes vary is then known to a few percent."""
BESIDE = 3
"""Objects of a chunk beside its vectors: samples, statistics, commit."""


@dataclass(frozen=True)
class Part:
    """What one sample of a source comes to on average, and what a chunk costs beside.

    Attributes:
        source: Which source.
        n_samples: Samples that it gives, skipped ones included.
        n_chunks: Chunks that it is cut into.
        n_looked: Samples that were prepared.
        n_skipped: Of these, how many cannot be used.
        tokens: Positions a sample that is used, with its 95% interval over the samples that were looked at.
        squares: Mean square of these positions: attention costs by it.
        patches: Patches that the vision tower sees.
        rows: Rows a sample that is used, by view and modality; those of the vision tower beside.
        bytes_of_row: Bytes of a row in its file, by view and modality.
        bytes_of_file: Bytes of a file beside its rows, likewise.
        beside: Bytes of samples, statistics and commit a chunk.
    """

    source: str
    n_samples: int
    n_chunks: int
    n_looked: int
    n_skipped: int
    tokens: Interval
    squares: float
    patches: float
    rows: Mapping[tuple[Folder, Modality], float]
    bytes_of_row: Mapping[tuple[Folder, Modality], float]
    bytes_of_file: Mapping[tuple[Folder, Modality], float]
    beside: float

    @property
    def n_used(self) -> float:
        """Samples that go through the model, if as many of the others can be used."""
        return self.n_samples * (1 - self.n_skipped / self.n_looked)

    def bytes_of(self, view: Folder) -> float:
        """Bytes of a view at one layer of one site, or of a view of the vision tower."""
        return sum(
            self.n_used * rows * self.bytes_of_row[key] + self.n_chunks * self.bytes_of_file[key]
            for key, rows in self.rows.items()
            if key[0] == view
        )


@dataclass(frozen=True)
class Estimate:
    """A harvest before it runs.

    Attributes:
        parts: By source.
        views: Views that are kept.
        n_stored: Layers that are kept, those of other sites beside the residual stream counted too.
        of_tower: Views of the vision tower's patches that are kept.
    """

    parts: tuple[Part, ...]
    views: tuple[View, ...]
    n_stored: int
    of_tower: tuple[Folder, ...] = ()

    @property
    def n_tokens(self) -> Interval:
        """Positions of all samples, with a 95% interval."""
        value = sum(part.n_used * part.tokens.value for part in self.parts)
        spread = math.sqrt(sum((part.n_used * (part.tokens.high - part.tokens.low) / 2) ** 2 for part in self.parts))
        return Interval(value, value - spread, value + spread)

    @property
    def n_bytes(self) -> float:
        """Bytes of the store."""
        vectors = sum(part.bytes_of(view) for part in self.parts for view in self.views) * self.n_stored
        patches = sum(part.bytes_of(view) for part in self.parts for view in self.of_tower)
        return vectors + patches + sum(part.n_chunks * part.beside for part in self.parts)

    @property
    def n_objects(self) -> int:
        """Files of the store; objects, where it is one."""
        return sum(part.n_chunks * (self._n_files(part) + BESIDE) for part in self.parts)

    def _n_files(self, part: Part) -> int:
        """Files of vectors of a chunk."""
        return sum(1 if view in self.of_tower else self.n_stored for view, _ in part.rows)


def estimate(plan: Plan, card: ModelCard, preparer: Preparer, looked: int = LOOKED) -> Estimate:
    """Work out what a harvest will come to.

    Samples are spread over the chunks of each source, prepared as the harvest prepares them, and written with vectors of zeros to
    a store that is thrown away: vectors are not compressed, so that their values do not matter.

    Args:
        plan: The harvest.
        card: Of its model.
        preparer: What prepares its samples.
        looked: Samples of each source to look at.

    Raises:
        CorpusError: None of a source can be used.
    """
    config, layers = plan.job.config, plan.job.layers
    beside = [site for site in config.sites if site != TOWER]
    n_stored = len(layers) + len(beside) * sum(layer < card.n_layers for layer in layers)
    by_source: dict[str, list[Chunk]] = {}
    for chunk in plan.chunks:
        by_source.setdefault(chunk.source, []).append(chunk)
    turns = calibration_turns(plan.chunks, looked)
    parts = []
    for source, chunks in by_source.items():
        seen: list[Prepared | Skipped] = []
        for turn in turns[source]:
            if len(seen) < looked:
                seen += [one for part in turn for one in prepare_chunk(part, plan.job.corpora, preparer)]
        parts.append(_part(source, chunks, seen, config, card, n_stored, plan.manifest.model.get(TOWER_WIDTH, 0)))
    return Estimate(tuple(parts), config.views, n_stored, plan.manifest.folders(NO_LAYER))


def _part(
    source: str,
    chunks: Sequence[Chunk],
    seen: Sequence[Prepared | Skipped],
    config: HarvestConfig,
    card: ModelCard,
    n_stored: int,
    tower_width: int,
) -> Part:
    used = [one for one in seen if isinstance(one, Prepared)]
    if not used:
        reason = next((one.reason for one in seen if isinstance(one, Skipped)), "it is empty")
        raise CorpusError(f"of {len(seen)} samples of {source} none can be used: {reason}")
    lengths = np.array([len(one) for one in used], np.float64)
    # As many samples as a chunk has, where so many were looked at: then nothing is extrapolated.
    n = min(len(used), -(-sum(chunk.n_samples for chunk in chunks) // len(chunks)))
    half, whole = (_written(used[:some], config, card, n_stored, tower_width) for some in (max(1, n // 2), n))
    per_row: dict[tuple[Folder, Modality], float] = {}
    for key, rows in whole.rows.items():
        more = rows - half.rows.get(key, 0)
        per_row[key] = (whole.files[key] - half.files[key]) / more if key in half.rows and more else whole.files[key] / rows
    kept = {key: len(rows) for key, rows in _kept(used, config, card).items()}
    n_samples = sum(chunk.n_samples for chunk in chunks)
    return Part(
        source=source,
        n_samples=n_samples,
        n_chunks=len(chunks),
        n_looked=len(seen),
        n_skipped=len(seen) - len(used),
        tokens=of_mean(lengths),
        squares=float((lengths**2).mean()),
        patches=float(np.mean([_patches(one, card) for one in used])),
        rows={key: rows / len(used) for key, rows in kept.items() if key in per_row},
        bytes_of_row=per_row,
        bytes_of_file={key: max(0.0, whole.files[key] - rows * per_row[key]) for key, rows in whole.rows.items()},
        beside=whole.samples * n_samples / len(chunks) / n + whole.fixed,
    )


@dataclass(frozen=True)
class _Written:
    """Bytes of some samples in a chunk: of each file of one layer, of their own table, of statistics and commit of all layers."""

    rows: dict[tuple[Folder, Modality], int]
    files: dict[tuple[Folder, Modality], int]
    samples: int
    fixed: int


def _kept(used: Sequence[Prepared], config: HarvestConfig, card: ModelCard) -> dict[tuple[Folder, Modality], ViewRows]:
    """The rows of some samples at one layer of one site, and of the vision tower where it is kept."""
    found: dict[tuple[Folder, Modality], ViewRows] = {**choose(used, config).views}
    shown = [one for one in used if one.pixels is not None]
    if TOWER in config.sites and shown:
        of_tower = choose_patches(shown, [patches_of(one, card) for one in shown], config)
        found |= {(folder_of(view, TOWER), modality): rows for (view, modality), rows in of_tower.views.items()}
    return found


def _written(used: Sequence[Prepared], config: HarvestConfig, card: ModelCard, n_stored: int, tower_width: int) -> _Written:
    widths = {TOWER: tower_width}
    views = _kept(used, config, card)
    draw = np.random.default_rng(0)
    groups = (*GROUPS, *(LAST_GROUPS if "last" in config.views else ()))
    with (
        tempfile.TemporaryDirectory() as folder,
        writing_chunk(place(folder), 0, vectors_of("residual", card.width, config.stored)) as writer,
    ):
        for (own, modality), kept in views.items():
            view, site = view_and_site(own)
            schema = vectors_of(site, widths.get(site, card.width), config.stored)
            zeros = np.zeros((len(kept), schema.field("vector").type.byte_width), np.uint8)
            norms = draw.random(len(kept), np.float32)
            ones = np.ones(len(kept), np.int32)
            counts = {"n_tokens": ones, "n_high_norm": 0 * ones} if view == "pooled" else None
            writer.vectors(own, NO_LAYER if site == TOWER else 0, modality, kept.table(schema, zeros, norms, counts))
        sums = {(layer, group): _sums(draw.random(card.width)) for layer in range(n_stored) for group in groups}
        if TOWER in config.sites:
            sums[NO_LAYER, site_group("image", TOWER)] = _sums(draw.random(tower_width))
        commit = writer.commit(samples_table([sample_row(one) for one in used]), sums, len(used), 0, (), 0.0, "float32")
        files: dict[tuple[Folder, Modality], int] = {}
        of_layer = []
        for file in commit.files:
            at = parse_folder(file.path)
            if at is not None:
                files[at[0], at[2]] = file.bytes
                of_layer += [file] if at[1] != NO_LAYER else []
        sizes = {file.path: file.bytes for file in commit.files}
        vectors_of_all = of_layer * (n_stored - 1)
        write_commit(place(folder), replace(commit, chunk=1, files=(*commit.files, *vectors_of_all)))
        fixed = sizes[statistics_file(0)] + (place(folder) / commit_file(1)).size()
    return _Written({key: len(kept) for key, kept in views.items()}, files, sizes[samples_file(0)], fixed)


def _sums(values: Float[np.ndarray, " d"]) -> Sums:
    """Sums that compress as those of a model do: norms within a factor of two."""
    counts = np.bincount(np.random.default_rng(0).integers(0, BINS_PER_OCTAVE, 1000), minlength=N_BINS)
    return Sums(1000, 0, values, values**2, counts, 0 * counts, np.zeros(0, np.int64))


def _patches(one: Prepared, card: ModelCard) -> int:
    """Patches that the vision tower sees of a sample."""
    return 0 if one.pixels is None else one.pixels[:, 0].size // card.patch_size**2
