"""Small stores written by hand: every row says in its first coordinates which row it is."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from linrep.places import place
from linrep.store.manifest import Manifest, now, write_manifest
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.store.statistics import Sums, merge, norm_bin
from linrep.store.write import samples_table, vector_column, write_statistics, writing_chunk
from schemas import vectors

N_BINS = len(Sums.zero(1).norm_counts)


def sums_of(x: np.ndarray) -> Sums:
    finite = x[np.isfinite(x).all(1)].astype(np.float64)
    norms = np.linalg.norm(finite, axis=1).astype(np.float32)
    counts = np.bincount(norm_bin(norms), minlength=N_BINS)
    return Sums(len(x), len(x) - len(finite), finite.sum(0), (finite**2).sum(0), counts)


def write_store(
    folder: Path,
    rows: dict[tuple[int, str], list[np.ndarray]],
    special: dict[tuple[int, str], list[np.ndarray]] | None = None,
    splits: tuple[str, ...] = ("train",),
    width: int | None = None,
) -> Store:
    """A complete store with a tokens view.

    Args:
        folder: Where to.
        rows: By layer and modality, the rows of each chunk.
        special: Which of them are special tokens, in the same shape.
        splits: Rows take them in turn.
        width: What the manifest says, if not the truth.
    """
    here = place(folder)
    n_chunks = max(len(chunks) for chunks in rows.values())
    d = next(iter(rows.values()))[0].shape[1]
    schema, parts = vectors(d, "float16"), []
    for chunk in range(n_chunks):
        sums = {}
        with writing_chunk(here, chunk, schema) as writer:
            for (layer, modality), chunks in rows.items():
                if chunk >= len(chunks) or not len(chunks[chunk]):
                    continue
                x = chunks[chunk]
                marks = special[layer, modality][chunk] if special else np.zeros(len(x), bool)
                columns = {
                    "sample_id": pa.array([f"{modality}/{chunk}-{i}" for i in range(len(x))]),
                    "is_special": pa.array(marks),
                    "norm": pa.array(np.linalg.norm(x.astype(np.float32), axis=1)),
                    "split": pa.array([splits[i % len(splits)] for i in range(len(x))]),
                    "vector": vector_column(x.astype(np.float16)),
                }
                arrays = [columns.get(f.name, pa.nulls(len(x), f.type)) for f in schema]
                writer.vectors("tokens", layer, modality, pa.Table.from_arrays(arrays, schema=schema))  # type: ignore[arg-type]
                sums[layer, modality] = sums_of(x)
            writer.commit(samples_table([]), sums, 1, 1, (), 0.0, "float32")
        parts.append(sums)
    write_statistics(here, merge(parts))
    layers = tuple(sorted({layer for layer, _ in rows}))
    manifest = Manifest(
        name="t", digest="0" * 10, model={}, layers=layers, views=("tokens",), dtype="float16", width=width or d, corpora={},
        harvest={}, n_chunks=n_chunks, chunk_size=1, status="complete", created=now(), finished=now(),
    )  # fmt: skip
    write_manifest(here, manifest)
    return open_store(str(folder))


def numbered(n: int, d: int, start: int = 0, norm: float = 4.0) -> np.ndarray:
    """Rows of one norm; coordinates 0 and 1 are the row's number in base 256, over 256."""
    x = np.random.default_rng(start).standard_normal((n, d))
    number = np.arange(start, start + n)
    x[:, 0], x[:, 1] = number // 256 / 256, number % 256 / 256
    rest = np.sqrt(norm**2 - x[:, 0] ** 2 - x[:, 1] ** 2)
    x[:, 2:] *= (rest / np.linalg.norm(x[:, 2:], axis=1))[:, None]
    return x.astype(np.float32)


def numbers(x: np.ndarray) -> np.ndarray:
    """Which rows these are; for rows as they are stored."""
    x = x.view(np.float16) if x.dtype == np.uint16 else x
    return np.rint(x[:, 0].astype(np.float64) * 256) * 256 + np.rint(x[:, 1].astype(np.float64) * 256)
