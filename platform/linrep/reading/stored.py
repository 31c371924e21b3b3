"""Samples of a store read from the rows that it holds: nothing runs the model.

Where a store holds a draw of tokens, so does a reading: its `n_image` and `n_text` say how many the sample has in all.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.errors import StoreError
from linrep.reading.read import Reader, Reading
from linrep.reading.tokens import Tokens, joined
from linrep.store.commit import WrittenFile
from linrep.store.layout import MODALITIES, Modality, View, parse_folder
from linrep.store.read import Store
from linrep.store.selection import as_array, as_tensor, raw_kind

COLUMNS = ("sample_id", "position", "token_id", "tile", "row", "col", "is_newline", "is_special", "norm", "vector")
WHOLE = ("sample_id", "vector")


class StoredSample(NamedTuple):
    """A sample's row of the samples table, as far as a reading needs it."""

    chunk: int
    seen: tuple[int, int] | None
    n_image: int
    n_text: int


def read_stored(
    store: Store, names: Sequence[str], reader: Reader, modality: Modality = "image"
) -> Iterator[tuple[str, Reading]]:
    """Readings of some samples, chunk by chunk; those without a row in the tokens view give none.

    A chunk's files are read once, and the rows of the wanted samples are all that is held.

    Args:
        store: The activations.
        names: Names of samples.
        reader: What they are read with; its probes are those of the modality.
        modality: image for samples that hold an image, else text.

    Raises:
        StoreError: The store holds no single tokens, or lacks a sample.
    """
    if "tokens" not in store.manifest.views:
        raise StoreError(f"{store.place} holds no single tokens: harvest the view tokens to read samples one by one")
    known = find_samples(store, names)
    lacking = [name for name in names if name not in known]
    if lacking:
        raise StoreError(f"no sample {lacking[0]!r} in {store.place}")
    for chunk in sorted({known[name].chunk for name in names}):
        own = [name for name in dict.fromkeys(names) if known[name].chunk == chunk]
        held = _held(store, chunk, own)
        whole = _whole(store, chunk, own, modality)
        for name in own:
            if name in held:
                yield name, _reading(store, reader, known[name], held[name], whole.get(name, {}))


def find_samples(store: Store, names: Sequence[str]) -> dict[str, StoredSample]:
    """What the samples table says of some samples, by name; those that it lacks, or that were skipped, are left out."""
    wanted, found = pa.array(list(names), pa.string()), {}
    columns = ("sample_id", "height", "width", "n_image_tokens", "n_text_tokens", "error")
    for chunk, table in store.samples_by_chunk(columns):
        for row in table.filter(_among(table["sample_id"], wanted)).to_pylist():
            if row["error"] is None:
                seen = None if row["height"] is None else (row["height"], row["width"])
                found[row["sample_id"]] = StoredSample(chunk, seen, row["n_image_tokens"] or 0, row["n_text_tokens"] or 0)
    return found


class _Rows(NamedTuple):
    """The rows of one sample in one modality: its positions, their norms, and their vectors by layer."""

    tokens: Tokens
    norms: dict[int, np.ndarray]
    vectors: dict[int, Tensor]


def _reading(
    store: Store,
    reader: Reader,
    sample: StoredSample,
    held: Mapping[Modality, _Rows],
    whole: Mapping[tuple[View, int], Tensor],
) -> Reading:
    layers = store.manifest.layers
    modalities: list[Modality] = [m for m in MODALITIES if m in held]
    tokens = joined([held[m].tokens for m in modalities])
    order = np.argsort(tokens.position, kind="stable")
    tokens = Tokens(*(getattr(tokens, name)[order] for name in Tokens.__dataclass_fields__))
    at = torch.from_numpy(order)
    h = torch.stack([torch.cat([held[m].vectors[layer] for m in modalities])[at] for layer in layers])
    source = store.manifest.source_of(sample.chunk)
    limits = {(layer, m): store.limit("tokens", layer, m, source) for layer in layers for m in modalities}
    high = [np.concatenate([_high(held[m].norms[layer], limits[layer, m]) for m in modalities])[order] for layer in layers]
    counts = sample.n_image, sample.n_text
    return reader.read(h, layers, tokens, torch.from_numpy(np.stack(high)), whole, counts, sample.seen)


def _high(norms: np.ndarray, limit: float) -> np.ndarray:
    return (norms > limit) & np.isfinite(norms) if math.isfinite(limit) else np.zeros(len(norms), bool)


def _held(store: Store, chunk: int, names: Sequence[str]) -> dict[str, dict[Modality, _Rows]]:
    """The rows of single tokens of some samples of a chunk; positions are the same in every layer."""
    found: dict[str, dict[Modality, _Rows]] = {}
    for modality in MODALITIES:
        for layer in store.manifest.layers:
            table = _table(store, chunk, "tokens", layer, modality, names, COLUMNS)
            if table is None:
                continue
            vectors, norms = vectors_of(table, store), table["norm"].to_numpy()
            coded = table["sample_id"].cast(pa.string()).combine_chunks().dictionary_encode()
            numbers = coded.indices.to_numpy()
            by_sample = np.split(np.argsort(numbers, kind="stable"), np.bincount(numbers).cumsum()[:-1])
            for name, mine in zip(coded.dictionary.to_pylist(), by_sample, strict=True):
                own = found.setdefault(name, {})
                if modality not in own:
                    own[modality] = _Rows(Tokens.stored(table.take(pa.array(mine)), modality), {}, {})
                own[modality].norms[layer] = norms[mine]
                own[modality].vectors[layer] = vectors[torch.from_numpy(mine)]
    return found


def _whole(store: Store, chunk: int, names: Sequence[str], modality: Modality) -> dict[str, dict[tuple[View, int], Tensor]]:
    """The mean and the last vector of some samples of a chunk, by view and layer."""
    found: dict[str, dict[tuple[View, int], Tensor]] = {}
    views: tuple[View, ...] = ("pooled", "last")
    for view in views:
        for layer in store.manifest.layers if view in store.manifest.views else ():
            table = _table(store, chunk, view, layer, modality, names, WHOLE, high_norm=False)
            if table is not None:
                vectors = vectors_of(table, store)
                for i, name in enumerate(table["sample_id"].to_pylist()):
                    found.setdefault(name, {})[view, layer] = vectors[i]
    return found


def _table(
    store: Store,
    chunk: int,
    view: View,
    layer: int,
    modality: Modality,
    names: Sequence[str],
    columns: Sequence[str],
    high_norm: bool | None = None,
) -> pa.Table | None:
    """The rows of some samples in a chunk's file; None where there are none."""
    files: list[WrittenFile] = [f for f in store.commits[chunk].files if parse_folder(f.path) == (view, layer, modality)]
    wanted, pieces = pa.array(list(names), pa.string()), []
    for batch in store.reading(files, high_norm=high_norm).batches(columns):
        piece = pa.Table.from_batches([batch])
        piece = piece.filter(_among(piece["sample_id"], wanted))
        if len(piece):
            pieces.append(piece)
    return pa.concat_tables(pieces).combine_chunks() if pieces else None


def _among(column: pa.ChunkedArray, wanted: pa.Array) -> pa.ChunkedArray:
    return pc.call_function("is_in", [column.cast(pa.string())], pc.SetLookupOptions(value_set=wanted))


def vectors_of(table: pa.Table, store: Store) -> Float[Tensor, "n d"]:
    """The vectors of some rows, in float32."""
    manifest = store.manifest
    kind = raw_kind(manifest.dtype)
    parts = [as_array(chunk, manifest.width, kind).copy() for chunk in table["vector"].chunks]
    raw = np.concatenate(parts) if parts else np.empty((0, manifest.width), kind)
    return as_tensor(raw, manifest.dtype).float()
