"""What the store asks of an object store: few requests, many of them at once, and the same rows as from a disk."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import linrep.store
from bench.objects import manifest, rows, write_copies
from bench.slow_s3 import LATENCY, SlowS3, by_method
from bench.workers_in_threads import Member, together
from linrep.errors import StoreError
from linrep.places import Place, place
from linrep.store import packs, read, stream
from linrep.store import write as store_write
from linrep.store.commit import read_commit
from linrep.store.groups import GroupRows, Keep, row_groups
from linrep.store.layout import commit_file
from linrep.store.manifest import write_manifest
from linrep.store.read import Store
from linrep.store.statistics import Sums
from linrep.store.stream import Stream
from linrep.store.write import samples_table, writing_chunk
from linrep.workers import ALONE, Workers
from schemas import vectors

D, LAYERS = 16, 33


@pytest.fixture(scope="module")
def slow() -> Iterator[SlowS3]:
    server = SlowS3()
    yield server
    server.stop()


def write(here: Place) -> None:
    """A chunk of 33 layers, two views and two modalities: 132 files of vectors."""
    table = rows(8, D)
    with writing_chunk(here, 0, vectors(D, "float16")) as writer:
        for layer in range(LAYERS):
            for view in ("pooled", "tokens"):
                for modality in ("image", "text"):
                    writer.vectors(view, layer, modality, table)
        writer.commit(samples_table([]), {}, 1, 1, (), 0.0, "float32")


def test_a_chunk_is_published_with_one_request_a_file_many_at_once_and_the_commit_last(slow: SlowS3, tmp_path: Path) -> None:
    here = slow.folder("publish")
    with slow.counting(4 * LATENCY) as requests:
        write(here)
    assert by_method(requests) == {"PUT": 4 * LAYERS + 3}
    assert requests[-1][1] == f"publish/{commit_file(0)}"
    assert slow.most >= 4  # pyarrow sends eight at once, where the machine has the time
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
    with slow.counting(4 * LATENCY) as requests, pytest.raises(OSError, match="gone away"):
        write(here)
    assert not (here / commit_file(0)).exists()
    n = len(requests)
    assert not any("layer=7/" in path for path, _ in here.walk())
    monkeypatch.undo()
    write(here)  # tried again, it is whole
    assert len(read_commit(here, 0).files) == 4 * LAYERS + 2  # type: ignore[union-attr]
    assert n < 4 * LAYERS


def opened(slow: SlowS3, folder: Path, name: str) -> tuple[Store, pa.Table, int, int]:
    """A store in the object store and its samples, with the requests of opening it and of both."""
    here = slow.folder(name)
    slow.fill(folder, here)
    with slow.counting() as requests:
        store = linrep.store.open(here.uri)
        n_open = len(requests)
        samples = store.samples()
        return store, samples, n_open, len(requests)


def test_a_packed_store_opens_and_gives_its_samples_in_few_requests(
    slow: SlowS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (packs, read):
        monkeypatch.setattr(module, "CHUNKS", 25)
    write_copies(tmp_path / "s", 50)
    store, samples, n_open, n = opened(slow, tmp_path / "s", "packed")
    local = linrep.store.open(str(tmp_path / "s"))
    assert (store.commits, samples) == (local.commits, local.samples())
    assert (len(store.commits), len(samples)) == (50, 200)
    assert n_open <= 11
    assert n <= 16
    for file in (tmp_path / "s" / packs.PACKS).iterdir():
        file.unlink()
    _, same, n_open, n = opened(slow, tmp_path / "s", "single")
    assert same == samples
    assert n_open >= 2 * 50  # what it costs without them
    assert n >= 4 * 50


@pytest.mark.slow
def test_a_store_of_2000_chunks_opens_and_gives_its_samples_in_20_requests(slow: SlowS3, tmp_path: Path) -> None:
    write_copies(tmp_path / "s", 2000)
    store, samples, _, n = opened(slow, tmp_path / "s", "many")
    assert (len(store.commits), len(samples)) == (2000, 8000)
    assert n <= 20


WIDTH, ROWS = 128, 600


@pytest.fixture(scope="module")
def fed(slow: SlowS3, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """A store with files of one, two and three row groups, on a disk and in the object store."""
    folder, patch = tmp_path_factory.mktemp("feed"), pytest.MonkeyPatch()
    patch.setattr(store_write, "ROW_GROUP_BYTES", 1)
    for chunk in range(9):
        with writing_chunk(place(folder), chunk, vectors(WIDTH, "float16")) as writer:
            for i in range(chunk % 3 + 1):
                writer.vectors("tokens", 0, "image", rows(ROWS, WIDTH, 10 * chunk + i))
            writer.commit(samples_table([]), {(0, "image"): Sums.zero(WIDTH)}, 1, 1, (), 0.0, "float32")
    patch.undo()
    write_manifest(place(folder), manifest(9, WIDTH, complete=False))
    there = slow.folder("feed")
    slow.fill(folder, there)
    return linrep.store.open(str(folder)), linrep.store.open(there.uri)


def feed(store: Store, shuffle_rows: int = 4000, workers: Workers = ALONE, **keep) -> Stream:
    selection = store.select("tokens", 0, "image", high_norm=None)
    return Stream(selection, row_groups(selection), Keep(**keep), 0, workers, shuffle_rows)


@pytest.mark.parametrize("keep", [{}, {"split": "train", "special": True}, {"limit": 11.3}, {"limit": 11.3, "clip": True}])
def test_rows_from_an_object_store_are_those_of_a_disk_in_the_same_order(fed: tuple[Store, Store], keep: dict) -> None:
    local, remote = (feed(store, **keep) for store in fed)
    for n in (1, 999, 2500, 7000):  # more than a pass
        one, other = local.take(n), remote.take(n)
        assert (one.vectors == other.vectors).all()
        assert (one.factors is None) == (other.factors is None)
        assert one.factors is None or (one.factors == other.factors).all()  # type: ignore[operator]
    assert local.state_dict() == remote.state_dict()
    local.close()
    remote.close()


def test_workers_pass_on_rows_with_the_factors_that_clip_them(fed: tuple[Store, Store]) -> None:
    alone = feed(fed[0], limit=11.3, clip=True)
    expected = [alone.take(900) for _ in range(12)]
    alone.close()
    assert any(taken.factors is not None and (taken.factors < 1).any() for taken in expected)

    def work(worker: Member) -> None:
        one = feed(fed[0], workers=worker, limit=11.3, clip=True)
        for theirs in expected:
            mine = one.take(900)
            assert (mine.vectors == theirs.vectors).all()
            assert (mine.factors == theirs.factors).all()  # type: ignore[union-attr]
        one.close()

    together(3, work)


def test_a_row_group_costs_two_requests_at_most_and_eight_are_read_at_once(
    slow: SlowS3, fed: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, lock, whole = feed(fed[1]), threading.Lock(), stream.read_group
    read, running, most = 0, 0, 0

    def counted(*args: object) -> GroupRows:
        nonlocal read, running, most
        with lock:
            read, running = read + 1, running + 1
            most = max(most, running)
        try:
            return whole(*args)  # type: ignore[arg-type]
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(stream, "read_group", counted)
    with slow.counting(4 * LATENCY) as requests:
        one.take(18 * ROWS // 2)
        one.close()
    assert len(requests) <= 2 * read
    assert 4 <= most <= 8
    assert slow.most >= 4
    with slow.counting() as requests:
        one.take(18 * ROWS)
        one.close()
        again = read
        requests.clear()
        one.take(18 * ROWS)
        one.close()
    assert len(requests) <= read - again  # files that were opened before


def test_what_is_read_at_once_is_checked_each_time(slow: SlowS3, fed: tuple[Store, Store]) -> None:
    here = slow.folder("damaged")
    slow.fill(Path(fed[0].place.path), here)
    one = feed(linrep.store.open(here.uri), shuffle_rows=1)
    one.take(18 * ROWS)
    one.close()
    (key,) = [key for key in slow.objects if key.endswith("damaged/tokens/layer=0/modality=image/part-000004.parquet")]
    data = bytearray(slow.objects[key])
    data[200_000] ^= 1
    slow.objects[key] = bytes(data)
    with pytest.raises(
        StoreError, match=r"part-000004.parquet.* is damaged \(bytes 0 to 262,144 are not those that were written\)"
    ):
        one.take(40 * ROWS)
    one.close()
