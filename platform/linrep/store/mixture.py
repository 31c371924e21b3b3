"""Batches of image and text rows of one layer in a fixed proportion, scaled, whatever the store holds of each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from linrep.errors import StoreError
from linrep.sample import Split
from linrep.store.groups import Keep, RowGroup, count_rows, read_group, row_groups
from linrep.store.layout import MODALITIES, Modality
from linrep.store.read import Store
from linrep.store.selection import Selection
from linrep.store.statistics import BINS_PER_OCTAVE, LOWEST_OCTAVE, N_BINS, Sums, norm_bin
from linrep.store.stream import Stream
from linrep.workers import ALONE, Workers

HighNorm = Literal["drop", "clip", "keep"]


@dataclass(frozen=True)
class Source:
    """Where the rows of one modality of a layer come from; small, and the same for all workers.

    Attributes:
        selection: The store's files.
        groups: Their row groups.
        keep: Which rows count.
        mean_norm: Of the rows that count, from the store's statistics.
        rows: How many there are.
        counted: Whether that is exact, or estimated from some of the files.
    """

    selection: Selection
    groups: tuple[RowGroup, ...]
    keep: Keep
    mean_norm: float
    rows: int
    counted: bool


def find_sources(
    store: Store, layer: int, split: Split | None, special: bool = False, high_norm: HighNorm = "drop"
) -> dict[Modality, Source]:
    """What a store holds of one layer's tokens, by modality; those without rows are left out. Reads footers and small columns.

    Args:
        store: The store.
        layer: Layer k.
        split: Rows of other splits do not count.
        special: Whether start, prompt and template tokens count; they stand under text.
        high_norm: What to do with rows whose norm is above the store's limit for their modality.

    Raises:
        StoreError: The store lacks the layer or the tokens view, or a file is damaged or of another width.
    """
    statistics = store.statistics()
    found: dict[Modality, Source] = {}
    for modality in MODALITIES:
        selection = store.select("tokens", layer, modality)
        sums = statistics.get((layer, modality))
        if not sum(file.rows for file in selection.files) or sums is None or not sums.n:
            continue
        limit = float("inf") if high_norm == "keep" else store.limit("tokens", layer, modality)
        limits = {file.path: selection.limits.get(file.path, float("inf")) for file in selection.files}
        keep = Keep(split, special, limit, high_norm == "clip", {} if high_norm == "keep" else limits)
        groups = row_groups(selection)
        rows, counted = count_rows(selection, keep)
        if rows:
            found[modality] = Source(selection, groups, keep, mean_norm(sums, limit, keep.clip), rows, counted)
    return found


def mean_norm(sums: Sums, limit: float = float("inf"), clip: bool = False) -> float:
    """Mean norm from the histogram of norms, each taken for the middle of its bin (2.2% wide); larger ones left out, or clipped.

    Raises:
        StoreError: There are no rows, or all of them are zero.
    """
    middles = 2.0 ** (LOWEST_OCTAVE + (np.arange(N_BINS) + 0.5) / BINS_PER_OCTAVE)
    counts = (sums.norm_counts + (0 if sums.high_counts is None else sums.high_counts)).astype(np.float64)
    counts[-1] = 0  # what is not finite stands here
    if np.isfinite(limit):
        above = np.arange(N_BINS) > int(norm_bin(np.array([limit]))[0])
        if clip:
            middles = np.minimum(middles, limit)
        else:
            counts[above] = 0
    if not counts.sum() or counts[1:].sum() == 0:
        raise StoreError("the store's statistics know no row of finite norm above zero: there is nothing to scale by")
    return float(counts @ middles / counts.sum())


@dataclass(frozen=True)
class Proportion:
    """Image and text rows in each batch, and what rows of each are multiplied by."""

    n_image: int
    n_text: int
    scale_image: float
    scale_text: float

    @property
    def text_share(self) -> float:
        """Share of text rows."""
        return self.n_text / (self.n_image + self.n_text)


def proportion(
    sources: Mapping[Modality, Source], n: int, text_share: float | None, per_modality: bool, where: str
) -> Proportion:
    """How many rows of each modality make a batch, and how they are scaled to a mean norm of sqrt(d).

    Args:
        sources: What there is.
        n: Rows of a batch.
        text_share: Share of text rows; None for the share that the store has.
        per_modality: Scale each modality by its own mean norm, else both by that of the mixture.
        where: The store and layer in words, for errors.

    Raises:
        StoreError: A modality is asked for of which there are no rows.
    """
    if not sources:
        raise StoreError(f"{where} holds no rows of tokens to train on: harvest the tokens view, or choose another split")
    if text_share is None:
        rows = {m: sources[m].rows if m in sources else 0 for m in MODALITIES}
        text_share = rows["text"] / sum(rows.values())
    n_text = round(text_share * n)
    if 0 < text_share < 1:
        n_text = min(max(n_text, 1), n - 1)
    wanted: dict[Modality, int] = {"image": n - n_text, "text": n_text}
    for modality in MODALITIES:
        if wanted[modality] and modality not in sources:
            share = 0 if modality == "text" else 1
            raise StoreError(
                f"{where} holds no {modality} rows to train on, but a text share of {text_share:g} asks for them: "
                f"harvest some, or set the text share to {share}"
            )
    width = next(iter(sources.values())).selection.width
    norms: dict[Modality, float] = {m: sources[m].mean_norm if m in sources else 0.0 for m in MODALITIES}
    mixed = (wanted["image"] * norms["image"] + wanted["text"] * norms["text"]) / n
    scales: dict[Modality, float] = {m: width**0.5 / (norms[m] if per_modality and wanted[m] else mixed) for m in MODALITIES}
    return Proportion(wanted["image"], n_text, scales["image"], scales["text"])


class Mixture:
    """An endless iterator of batches, the same from any saved position; close it to end its threads."""

    def __init__(
        self,
        sources: Mapping[Modality, Source],
        parts: Proportion,
        seed: int,
        workers: Workers = ALONE,
        shuffle_rows: int = 65536,
    ) -> None:
        """Begin at the first batch.

        Args:
            sources: Where rows come from.
            parts: Rows of each modality in a batch, and their scales.
            seed: Of the order.
            workers: Who takes the same batches at the same time.
            shuffle_rows: Rows of each modality that are mixed at once.
        """
        self.parts = parts
        counts: dict[Modality, int] = {"image": parts.n_image, "text": parts.n_text}
        self._n: dict[Modality, int] = {m: n for m, n in counts.items() if n}
        self._scale: dict[Modality, float] = {"image": parts.scale_image, "text": parts.scale_text}
        self._dtype = next(iter(sources.values())).selection.dtype
        self.streams = {
            m: Stream(s.selection, s.groups, s.keep, 2 * seed + (m == "text"), workers, shuffle_rows)
            for m, s in sources.items()
            if m in self._n
        }

    def next_batch(self) -> tuple[Float[Tensor, "n d"], Bool[Tensor, " n"]]:
        """Scaled rows in float32, image rows first, and which of them are text."""
        pieces = []
        for modality, n in self._n.items():
            taken = self.streams[modality].take(n)
            x = to_tensor(taken.vectors, self._dtype).mul_(self._scale[modality])
            pieces.append(x if taken.factors is None else x.mul_(torch.from_numpy(taken.factors)[:, None]))
        x = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return x, torch.arange(len(x)) >= self.parts.n_image

    def state_dict(self) -> dict[str, Any]:
        """The position, the same on all workers."""
        return {modality: stream.state_dict() for modality, stream in self.streams.items()}

    def counts(self) -> dict[str, Any]:
        """What was read and left out so far, by modality."""
        return {
            modality: {"rows": one.rows, "left_out": dict(one.left_out), "first_nonfinite": one.first_nonfinite}
            for modality, one in self.streams.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position."""
        for modality, stream in self.streams.items():
            stream.load_state_dict(state[modality])

    def close(self) -> None:
        """End the reading threads."""
        for stream in self.streams.values():
            stream.close()


def to_tensor(vectors: np.ndarray, dtype: str) -> Float[Tensor, "n d"]:
    """Stored bits as float32, a copy."""
    kind = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}[dtype]
    bits = torch.from_numpy(np.ascontiguousarray(vectors).view(np.int32 if dtype == "float32" else np.int16)).view(kind)
    return bits.clone() if dtype == "float32" else bits.float()


def passes(sources: Mapping[Modality, Source], parts: Proportion, n_batches: int) -> list[str]:
    """How often a run reads each modality, in lines."""
    wanted: dict[Modality, int] = {"image": parts.n_image * n_batches, "text": parts.n_text * n_batches}
    lines = []
    for modality, source in sources.items():
        n, about = wanted[modality], "" if source.counted else "about "
        how = "repeated" if n > source.rows else "a part of them" if n < source.rows else "each once"
        lines.append(f"{modality}: {n:,} rows from {about}{source.rows:,} ({n / source.rows:.2f} passes: {how})")
    return lines


def held_out(sources: Mapping[Modality, Source], limit: int) -> "dict[Modality, Float[Tensor, 'n d']]":
    """Up to `limit` unscaled rows of each modality, held in memory: from as many row groups, in random order, as it takes."""
    found = {}
    for modality, source in sources.items():
        pieces, missing = [], limit
        for i in np.random.default_rng(0).permutation(len(source.groups)):
            rows = read_group(source.selection, source.groups[i], replace(source.keep, clip=False)).vectors[:missing]
            pieces.append(to_tensor(rows, source.selection.dtype))
            missing -= len(rows)
            if not missing:
                break
        found[modality] = torch.cat(pieces)
    return found
