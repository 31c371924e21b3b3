"""Gathering from a store takes as much memory from many rows as from few."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import linrep.store
from linrep.places import place
from linrep.probe.config import ProbeConfig
from linrep.probe.moments import Gatherer
from linrep.probe.study import Study, Unit, plan_study
from linrep.probe.unit import gather_part, parts_of
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.statistics import Sums
from linrep.store.write import samples_table, vector_column, writing_chunk
from schemas import vectors

WIDTH = 256
SAMPLES = 64
UNIT = Unit("pooled", 0)
MB = 2**20


def study_of(folder: Path, rows_per_sample: int) -> Study:
    """Images of two classes in one file, with `rows_per_sample` rows each."""
    splits = ("train", "train", "val", "test")
    samples = [
        {"sample_id": f"images/{i}.jpg", "corpus": "images", "modality": "image", "uri": f"{i}.jpg", "label": i % 2,
         "class_name": "ab"[i % 2], "split": splits[i // 2 % 4], "n_image_tokens": 1, "n_text_tokens": 0}
        for i in range(SAMPLES)
    ]  # fmt: skip
    schema, rng = vectors(WIDTH, "float16"), np.random.default_rng(0)
    n = 8 * rows_per_sample  # eight samples at a time: the writer must not hold the store either
    with writing_chunk(place(folder), 0, schema) as writer:
        for some in (samples[i : i + 8] for i in range(0, SAMPLES, 8)):
            columns = {
                "sample_id": pa.array([s["sample_id"] for s in some for _ in range(rows_per_sample)], pa.string()),
                "norm": pa.array(np.ones(n, np.float32)),
                "split": pa.array([s["split"] for s in some for _ in range(rows_per_sample)], pa.string()),
                "is_special": pa.array(np.zeros(n, bool)),
                "is_newline": pa.array(np.zeros(n, bool)),
                "vector": vector_column(rng.standard_normal((n, WIDTH)).astype(np.float16)),
            }
            arrays = [columns.get(f.name, pa.nulls(n, f.type)) for f in schema]
            writer.vectors("pooled", 0, "image", pa.Table.from_arrays(arrays, schema=schema))
        writer.commit(samples_table(samples), {(0, "image"): Sums.zero(WIDTH)}, SAMPLES, SAMPLES, (), 0.1, "float32")
    write_manifest(
        place(folder),
        Manifest(
            name="t", digest="feedbeef01", model={"path": "none", "n_layers": 1, "digest": "x"}, layers=(0,), views=("pooled",),
            dtype="float16", width=WIDTH, corpora={}, harvest={}, n_chunks=1, chunk_size=SAMPLES, status="complete",
        ),
    )  # fmt: skip
    return plan_study(linrep.store.open(str(folder)), ProbeConfig(curve=(), min_per_class=1))


def peak_of_gathering(study: Study, monkeypatch) -> int:
    """Bytes by which the process's own memory, without the pages of the mapped file, stands at most above where it began."""
    (part,) = parts_of(study, UNIT)
    pa.default_memory_pool().release_unused()
    before, seen = _own_memory(), []
    add = Gatherer._add

    def watched(*args) -> None:
        add(*args)
        seen.append(_own_memory())

    with monkeypatch.context() as patch:
        patch.setattr(Gatherer, "_add", watched)
        gather_part(study, UNIT, part)
    return max(seen) - before


def _own_memory() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="Linux shows a process its own memory")
def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    """Eight times the rows, 28 MB more of them in the store; the half to train on takes 56 MB in float64. Only noise above."""
    monkeypatch.setattr("linrep.store.blocks.BATCH_BYTES", MB)
    monkeypatch.setattr("linrep.probe.moments.BLOCK_BYTES", MB)
    monkeypatch.setattr("linrep.probe.unit.PARTS", 1)
    small, large = study_of(tmp_path / "small", 128), study_of(tmp_path / "large", 1024)
    peak_of_gathering(small, monkeypatch)  # what is loaded once is loaded now
    assert peak_of_gathering(large, monkeypatch) < peak_of_gathering(small, monkeypatch) + 24 * MB
