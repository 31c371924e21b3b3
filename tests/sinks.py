"""A store written again with attention sinks among its tokens: an independent way to make one, for any planted store."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import linrep.store
from linrep.places import place
from linrep.store import Store
from linrep.store.layout import STATISTICS, parse_folder, samples_file, statistics_file
from linrep.store.manifest import write_manifest
from linrep.store.statistics import from_table
from linrep.store.write import vector_column, write_statistics, writing_chunk
from schemas import vectors

SINK = 25_000.0


def with_sinks(store: Store, folder: Path, coordinate: int = 3) -> Store:
    """The same store, but each sample's first token, and its image's third, has one more before it: huge in one coordinate."""
    here, old = place(folder), Path(store.place.path)
    schema = vectors(store.manifest.width, store.manifest.dtype)
    kind = np.dtype({"float16": "<f2", "float32": "<f4"}[store.manifest.dtype])
    sink = np.zeros((1, store.manifest.width), kind)
    sink[0, coordinate] = SINK
    for number, commit in sorted(store.commits.items()):
        with writing_chunk(here, number, schema) as writer:
            for file in commit.files:
                found = parse_folder(file.path)
                if found is not None:
                    table = pq.read_table(old / file.path, partitioning=None)
                    writer.vectors(*found, _planted(table, found[2], sink) if found[0] == "tokens" else table)
            samples = pq.read_table(old / samples_file(number))
            sums = from_table(pq.read_table(old / statistics_file(number)))
            writer.commit(samples, sums, commit.n_samples, commit.n_tokens, commit.skipped, 0.0, commit.precision)
    if (old / STATISTICS).is_file():
        write_statistics(here, store.statistics())
    write_manifest(here, store.manifest)
    return linrep.store.open(str(folder))


def _planted(table: pa.Table, modality: str, sink: np.ndarray) -> pa.Table:
    names, pieces, seen = table["sample_id"].to_pylist(), [], dict[str, int]()
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] == 1 or (modality == "image" and seen[name] == 3):
            pieces.append(_sink(table.slice(i, 1), sink, 1000 + seen[name]))
        pieces.append(table.slice(i, 1))
    return pa.concat_tables(pieces)


def _sink(row: pa.Table, sink: np.ndarray, position: int) -> pa.Table:
    own = {
        "norm": pa.array([SINK], pa.float32()),
        "vector": vector_column(sink),
        "position": pa.array([position], pa.int32()),
        "is_special": pa.array([False]),
        "is_newline": pa.array([False]),
    }
    return pa.Table.from_arrays([own.get(field.name, row[field.name]) for field in row.schema], schema=row.schema)
