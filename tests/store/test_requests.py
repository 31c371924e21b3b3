"""What the store asks of an object store: few requests, many of them at once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bench.slow_s3 import LATENCY, SlowS3, by_method
from linrep.places import Place, place
from linrep.store.commit import read_commit
from linrep.store.layout import commit_file
from linrep.store.write import samples_table, vector_column, writing_chunk
from schemas import vectors

D, LAYERS = 16, 33


@pytest.fixture(scope="module")
def slow() -> Iterator[SlowS3]:
    server = SlowS3()
    yield server
    server.stop()


def rows(n: int) -> pa.Table:
    schema, x = vectors(D, "float16"), np.random.default_rng(0).standard_normal((n, D)).astype(np.float16)
    columns = {"sample_id": pa.array([f"images/{i}" for i in range(n)]), "norm": pa.array(np.ones(n, np.float32))}
    columns |= {"split": pa.array(["train"] * n), "vector": vector_column(x)}
    return pa.Table.from_arrays([columns.get(f.name, pa.nulls(n, f.type)) for f in schema], schema=schema)


def write(here: Place) -> None:
    """A chunk of 33 layers, two views and two modalities: 132 files of vectors."""
    with writing_chunk(here, 0, vectors(D, "float16")) as writer:
        for layer in range(LAYERS):
            for view in ("pooled", "tokens"):
                for modality in ("image", "text"):
                    writer.vectors(view, layer, modality, rows(8))
        writer.commit(samples_table([]), {}, 1, 1, (), 0.0, "float32")


def test_a_chunk_is_published_with_one_request_a_file_many_at_once_and_the_commit_last(slow: SlowS3, tmp_path: Path) -> None:
    here = slow.folder("publish")
    with slow.counting(LATENCY) as requests:
        write(here)
    assert by_method(requests) == {"PUT": 4 * LAYERS + 3}
    assert requests[-1][1] == f"publish/{commit_file(0)}"
    assert slow.most >= 6  # pyarrow sends eight at once: 135 requests of 30 ms take half a second, one by one four
    write(place(tmp_path))
    assert read_commit(here, 0) == read_commit(place(tmp_path), 0)
    assert {path: (here / path).read_bytes() for path, _ in here.walk()} == {
        path: (place(tmp_path) / path).read_bytes() for path, _ in place(tmp_path).walk()
    }


def test_a_large_file_still_goes_in_parts(slow: SlowS3) -> None:
    file = slow.folder("large") / "file"
    with slow.counting() as requests:
        file.write_bytes(b"n" * 12_000_000)
    assert by_method(requests) == {"POST": 2, "PUT": 2}
    assert file.read_bytes() == b"n" * 12_000_000


def test_a_publication_that_fails_commits_nothing_and_leaves_no_upload_open(
    slow: SlowS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file of many fails while others go: all that run are awaited, and no commit is written."""
    from linrep.places import PendingFile

    whole, here = PendingFile.publish, slow.folder("fails")

    def fails(self: PendingFile) -> None:
        if "layer=7" in self.target.path:
            raise OSError("gone away")
        whole(self)

    monkeypatch.setattr(PendingFile, "publish", fails)
    with slow.counting(LATENCY) as requests, pytest.raises(OSError, match="gone away"):
        write(here)
    assert not (here / commit_file(0)).exists()
    n = len(requests)
    assert not any("layer=7/" in path for path, _ in here.walk())
    monkeypatch.undo()
    write(here)  # tried again, it is whole
    assert len(read_commit(here, 0).files) == 4 * LAYERS + 2  # type: ignore[union-attr]
    assert n < 4 * LAYERS
