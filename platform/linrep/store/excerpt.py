"""Rows of some samples of a store as plain tables that any program reads: vectors are lists of float32, which holds every format.

Texts are kept back unless they are asked for, in all that gives them away: the column itself, ids of tokens, and the vectors of
single text tokens, whose words can be read back from them (at layer 0 exactly).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linrep.sample import unit_hash
from linrep.store.layout import MODALITIES, Modality, View
from linrep.store.read import Store
from linrep.store.selection import Selection, as_array, as_tensor, raw_kind
from schemas.activations import EXCERPT_SAMPLES, excerpt_vectors

DRAW = "excerpt"
"""What the draw of samples is seeded with, beside their names."""


def draw_samples(store: Store, n: int) -> pa.Table:
    """Samples that were harvested: as many of each modality, drawn by a hash of their names, in the order of the store.

    Args:
        store: The store.
        n: How many, at most.
    """
    table = store.samples()
    table = table.filter(table["error"].is_null())
    kinds = sorted(set(table["modality"].to_pylist()))
    rows = list(zip(table["sample_id"].to_pylist(), table["modality"].to_pylist(), strict=True))
    drawn = []
    for number, kind in enumerate(kinds):
        own = sorted((unit_hash(name, DRAW), i) for i, (name, modality) in enumerate(rows) if modality == kind)
        share = n // len(kinds) + (number < n % len(kinds))
        drawn += [i for _, i in own[:share]]
    return table.take(sorted(drawn))


def samples_excerpt(samples: pa.Table, texts: bool) -> pa.Table:
    """Samples as others see them: where their files lie is left out.

    Args:
        samples: Rows of the samples contract.
        texts: Whether with their texts.
    """
    names = [name for name in EXCERPT_SAMPLES.names if texts or name != "text"]
    schema = pa.schema([EXCERPT_SAMPLES.field(name) for name in names])
    return samples.select(names).cast(schema)


def vectors_excerpt(store: Store, view: View, layer: int, ids: Sequence[str], texts: bool) -> pa.Table:
    """All rows of some samples in a view and layer, those of high norm included.

    Args:
        store: The store.
        view: pooled, tokens or last.
        layer: Layer k, the residual stream entering block k.
        ids: Names of the samples.
        texts: Whether with single text tokens, and ids of tokens.
    """
    own: tuple[Modality, ...] = ("image",) if view == "tokens" and not texts else MODALITIES
    schema = excerpt_vectors(store.manifest.width, texts)
    wanted = pc.SetLookupOptions(value_set=pa.array(list(ids), pa.string()))
    parts = [
        _excerpt(rows, modality, selection, schema)
        for modality in own
        for selection in [store.select(view, layer, modality, high_norm=None)]
        for rows in _rows(selection, wanted)
    ]
    return pa.concat_tables([schema.empty_table(), *parts])


def _rows(selection: Selection, wanted: pc.SetLookupOptions) -> Iterator[pa.Table]:
    """The rows of some samples, row group by row group; vectors are read only where a sample is."""
    for file in selection.files:
        with selection.open_file(file) as parquet:
            for i in range(parquet.num_row_groups):
                known = parquet.read_row_group(i, columns=["sample_id"])["sample_id"]
                found = pc.call_function("index_in", [known], wanted).is_valid()
                if found.to_numpy().any():
                    yield parquet.read_row_group(i).filter(found)


def _excerpt(rows: pa.Table, modality: Modality, selection: Selection, schema: pa.Schema) -> pa.Table:
    column = rows["vector"].combine_chunks()
    raw = as_array(column, selection.width, raw_kind(selection.dtype)).copy()
    flat = as_tensor(raw, selection.dtype).float().numpy().astype(np.float32, copy=False).reshape(-1)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat), selection.width)
    made = {"modality": pa.array([modality] * len(rows), pa.string()), "vector": vectors}
    return pa.table({name: made[name] if name in made else rows[name] for name in schema.names}).cast(schema)
