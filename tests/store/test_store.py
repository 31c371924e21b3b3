"""The store's contract: files appear whole, commits decide, readers give back what was written."""

import numpy as np
import polars as pl
import pytest
import torch

import linrep.store
from linrep.errors import StoreError
from linrep.places import Place, place
from linrep.store.commit import read_commits
from linrep.store.layout import commit_file
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.statistics import Sums
from linrep.store.write import samples_table, vector_column, writing_chunk
from schemas import vectors
from tests.stores import files_in

D = 6
KINDS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def rows(chunk: int, dtype: str, n: int = 5) -> tuple[dict, torch.Tensor]:
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(chunk)).to(KINDS[dtype])
    columns = {
        "sample_id": [f"images/{chunk}-{i}" for i in range(n)],
        "position": list(range(n)),
        "norm": [1.0] * n,
        "split": ["train" if i % 2 else "test" for i in range(n)],
    }
    return columns, x


def table_of(columns: dict, x: torch.Tensor, dtype: str):
    import pyarrow as pa

    schema = vectors(D, dtype)
    words = (x.view(torch.int16) if dtype == "bfloat16" else x).numpy()
    arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    arrays["vector"] = vector_column(words)
    return pa.Table.from_arrays([arrays.get(f.name, pa.nulls(len(x), f.type)) for f in schema], schema=schema)


def write(here: Place, chunk: int, dtype: str = "float16") -> torch.Tensor:
    columns, x = rows(chunk, dtype)
    with writing_chunk(here, chunk, vectors(D, dtype)) as writer:
        writer.vectors("tokens", 3, "image", table_of(columns, x, dtype))
        writer.commit(samples_table([]), {(3, "image"): Sums.zero(D)}, 5, 5, (), 0.1, "float32")
    return x


def manifest(dtype: str = "float16", n_chunks: int = 2) -> Manifest:
    return Manifest(
        name="t",
        digest="0",
        model={"path": "m", "n_layers": 4, "digest": "x"},
        layers=(3,),
        views=("tokens",),
        dtype=dtype,
        width=D,
        corpora={},
        harvest={},
        n_chunks=n_chunks,
        chunk_size=5,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_was_written_is_read_back_bit_for_bit(tmp_path, dtype):
    here = place(tmp_path)
    write_manifest(here, manifest(dtype))
    written = torch.cat([write(here, chunk, dtype) for chunk in (0, 1)])
    selection = linrep.store.open(str(tmp_path)).select("tokens", 3, "image")
    read = selection.torch()
    assert len(selection) == 10
    assert read.dtype == KINDS[dtype]
    assert torch.equal(read, written)
    assert np.array_equal(selection.numpy(), written.float().numpy() if dtype == "bfloat16" else written.numpy())
    frame = selection.polars()
    assert frame["sample_id"].to_list() == [f"images/{c}-{i}" for c in (0, 1) for i in range(5)]
    assert isinstance(selection.scan(), pl.LazyFrame)
    assert frame["vector"][3] == written[3].view(torch.uint8).numpy().tobytes()


def test_a_split_selects_its_rows_in_every_form(tmp_path):
    here = place(tmp_path)
    write_manifest(here, manifest())
    written = torch.cat([write(here, chunk) for chunk in (0, 1)])
    train = linrep.store.open(str(tmp_path)).select("tokens", 3, "image", split="train")
    wanted = [1, 3, 6, 8]
    assert torch.equal(train.torch(), written[wanted])
    assert len(train) == len(train.polars()) == sum(b.num_rows for b in train.batches(["norm"], batch_size=2)) == 4
    assert train.table(["position"])["position"].to_pylist() == [1, 3, 1, 3]


def test_special_tokens_are_left_out_or_taken_alone_in_every_form(tmp_path):
    import pyarrow as pa

    here = place(tmp_path)
    write_manifest(here, manifest(n_chunks=1))
    columns, x = rows(0, "float16")
    columns["is_special"] = [True, False, None, True, False]  # null: a mean
    with writing_chunk(here, 0, vectors(D, "float16")) as writer:
        writer.vectors("tokens", 3, "text", table_of(columns, x, "float16"))
        writer.commit(samples_table([]), {(3, "text"): Sums.zero(D)}, 5, 5, (), 0.1, "float32")
    store = linrep.store.open(str(tmp_path))
    for special, split, wanted in ((False, None, [1, 2, 4]), (True, None, [0, 3]), (False, "train", [1]), (None, None, range(5))):
        some = store.select("tokens", 3, "text", split, special)
        assert torch.equal(some.torch(), x[list(wanted)])
        assert some.table(["position"])["position"].to_pylist() == list(wanted)
        assert pa.Table.from_batches(some.batches(["position"], 2))["position"].to_pylist() == list(wanted)
        assert some.polars()["position"].to_list() == list(wanted)
        assert len(some) == len(wanted)


def test_rows_without_a_commit_are_not_there(tmp_path):
    here = place(tmp_path)
    write_manifest(here, manifest())
    write(here, 0)
    write(here, 1)
    (tmp_path / commit_file(1)).unlink()
    store = linrep.store.open(str(tmp_path))
    assert not store.complete
    assert len(store.select("tokens", 3)) == 5
    assert "1 of 2 chunks" in str(store)


def test_a_chunk_that_fails_leaves_nothing_behind(tmp_path):
    here = place(tmp_path)
    columns, x = rows(0, "float16")

    def fail() -> None:
        with writing_chunk(here, 0, vectors(D, "float16")) as writer:
            writer.vectors("tokens", 3, "image", table_of(columns, x, "float16"))
            writer._flush(next(iter(writer._waiting)))
            assert files_in(here)
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match=r"disk on fire"):
        fail()
    assert files_in(here) == set()
    assert read_commits(here) == {}


def test_a_full_disk_hides_no_cause_and_leaves_nothing_behind(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    here = place(tmp_path)
    columns, x = rows(0, "float16")
    real = pq.ParquetWriter.close

    def full(self: pq.ParquetWriter) -> None:
        real(self)
        raise OSError("no space left for the footer")

    def fail() -> None:
        with writing_chunk(here, 0, vectors(D, "float16")) as writer:
            for layer in (3, 4):
                writer.vectors("tokens", layer, "image", table_of(columns, x, "float16"))
            for name in list(writer._waiting):
                writer._flush(name)
            assert len(files_in(here)) == 2
            monkeypatch.setattr(pq.ParquetWriter, "close", full)
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        fail()
    assert files_in(here) == set()


def test_writing_a_chunk_twice_changes_nothing(tmp_path):
    here = place(tmp_path)
    write_manifest(here, manifest())
    write(here, 0)
    before = {name: (tmp_path / name).read_bytes() for name in files_in(here)}
    write(here, 0)
    assert {name: (tmp_path / name).read_bytes() for name in files_in(here)} == before


def test_vectors_are_read_without_a_copy_per_value(tmp_path):
    """The column is plain, uncompressed, fixed-size binary: what makes reading as fast as memory."""
    import pyarrow.parquet as pq

    here = place(tmp_path)
    write(here, 0)
    meta = pq.ParquetFile(tmp_path / "tokens/layer=3/modality=image/part-000000.parquet").metadata
    column = next(meta.row_group(0).column(i) for i in range(meta.num_columns) if meta.schema.column(i).name == "vector")
    assert column.compression == "UNCOMPRESSED"
    assert column.physical_type == "FIXED_LEN_BYTE_ARRAY"
    assert "RLE_DICTIONARY" not in column.encodings


def test_wrong_questions_are_answered_in_one_line(tmp_path):
    here = place(tmp_path)
    with pytest.raises(StoreError, match=r"no activation store at .*manifest.json is missing"):
        linrep.store.open(str(tmp_path))
    write_manifest(here, manifest())
    store = linrep.store.open(str(tmp_path))
    with pytest.raises(StoreError, match=r"no view 'pooled'.*tokens"):
        store.select("pooled", 3)
    with pytest.raises(StoreError, match=r"no layer 4.*it has 3"):
        store.select("tokens", 4)
    assert len(store.select("tokens", 3)) == 0
    assert store.select("tokens", 3).torch().shape == (0, D)
    assert store.select("tokens", 3).polars().is_empty()


def test_a_workspace_with_one_harvest_opens_as_that_harvest(tmp_path):
    inner = tmp_path / "harvests" / "t-0"
    write_manifest(place(inner), manifest())
    assert linrep.store.open(str(tmp_path)).manifest.name == "t"
    write_manifest(place(tmp_path / "harvests" / "t-1"), manifest())
    with pytest.raises(StoreError, match=r"2 harvests.*t-0, t-1"):
        linrep.store.open(str(tmp_path))


def test_a_damaged_commit_is_named(tmp_path):
    here = place(tmp_path)
    write_manifest(here, manifest())
    write(here, 0)
    (tmp_path / commit_file(0)).write_text("{")
    with pytest.raises(StoreError, match=r"000000.json is damaged"):
        linrep.store.open(str(tmp_path))
