"""A store with packs reads what its chunks' own files say: at every moment, whatever is killed, damaged or made anew."""

import json
import logging
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

import linrep.store
from linrep.cluster.run_harvest import HarvestStage
from linrep.errors import StoreError, TooManySkipped
from linrep.harvest.artefact import HARVESTS
from linrep.places import PendingFile, place
from linrep.store import packs, read, verify
from linrep.store.commit import Commit, WrittenFile, committed, read_commits, write_commit
from linrep.store.layout import commit_file, pack_file, samples_file, statistics_file
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.packing import drop_stale, pack
from linrep.store.read import Store, read_store
from linrep.store.write import samples_table, vector_column, writing_chunk
from schemas import SAMPLES, vectors
from tests.store.planted_store import sums_of

D, N, MANY = 4, 3, 39_063


def sample(chunk: int, i: int, seed: int) -> dict[str, object]:
    own = {"sample_id": f"images/{chunk}-{i}", "corpus": "images", "modality": "image", "uri": f"{i}.jpg", "split": "train"}
    lists = {"image_widths": [i, seed], "image_grids": ["2x3"], "turn_first": []} if i % 2 else {}
    return {**own, **lists, "n_image_tokens": seed, "n_text_tokens": 0, "text": None if i else "a text"}


def write_chunk(folder: Path, chunk: int, seed: int = 0) -> None:
    """A chunk of 3 samples (of none, where its number is 2), and one that was skipped; chunk 0 has their vectors, too."""
    n = 0 if chunk == 2 else 3
    x = np.random.default_rng([chunk, seed]).standard_normal((3, D)).astype(np.float16)
    schema = vectors(D, "float16")
    columns = {
        "sample_id": pa.array([f"images/{chunk}-{i}" for i in range(3)]), "norm": pa.array(np.ones(3, np.float32)),
        "split": pa.array(["train"] * 3), "vector": vector_column(x),
    }  # fmt: skip
    with writing_chunk(place(folder), chunk, schema) as writer:
        table = pa.Table.from_arrays([columns.get(f.name, pa.nulls(3, f.type)) for f in schema], schema=schema)
        if not chunk:
            writer.vectors("tokens", 0, "image", table)
        samples = samples_table([sample(chunk, i, seed) for i in range(n)])
        why = "no image" if seed < 10 else "no image at all"
        writer.commit(samples, {(0, "image"): sums_of(x)}, n, n, ((f"images/{chunk}-x", why),), 0.5, "float32")


def manifest(n_chunks: int = N) -> Manifest:
    return Manifest(
        name="t", digest="0" * 10, model={}, layers=(0,), views=("tokens",), dtype="float16", width=D, corpora={}, harvest={},
        n_chunks=n_chunks, chunk_size=3,
    )  # fmt: skip


def drive(folder: Path, seed: int = 0) -> None:
    """What a driver does: the head, the chunks that have no commit, packs on the way and at the end."""
    here = place(folder)
    drop_stale(here)
    write_manifest(here, manifest())
    todo = [chunk for chunk in range(N) if chunk not in committed(here)]
    for i, chunk in enumerate(todo):
        write_chunk(folder, chunk, seed)
        if i % 2:
            pack(here, todo[i - 1 : i + 1])
    pack(here)


def contents(store: Store) -> object:
    """All that packs could change."""
    rows = [(chunk, table.to_pylist()) for chunk, table in store.samples_by_chunk(["text", "sample_id", "turn_first"])]
    firsts = {chunk: table["n_image_tokens"].to_pylist() for chunk, table in store.samples_by_chunk()}
    return store.commits, store.samples().to_pylist(), rows, firsts, store.first_sample


def without_packs(folder: Path) -> Store:
    copy = folder.with_name(folder.name + "-copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("packs", ".*"))
    return read_store(place(copy))


@pytest.fixture(autouse=True)
def short_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of two chunks, one chunk a row group."""
    for module in (packs, read, verify):
        monkeypatch.setattr(module, "CHUNKS", 2)
    monkeypatch.setattr(packs, "MOST_BYTES", 1)
    packs._warn.cache_clear()


def test_a_packed_store_reads_the_same_and_opens_no_file_of_a_chunk(tmp_path: Path) -> None:
    drive(tmp_path / "s")
    expected = contents(without_packs(tmp_path / "s"))
    store = read_store(place(tmp_path / "s"))
    assert packs.packs_in(store.place) == [0, 1]
    assert contents(store) == expected
    assert store.samples().schema.equals(SAMPLES, check_metadata=True)
    assert store.strangers() == []
    for file in (tmp_path / "s" / "samples").iterdir():
        file.write_bytes(b"nobody reads this")
    for chunk in range(N):
        file = tmp_path / "s" / commit_file(chunk)
        file.write_bytes(b" " * file.stat().st_size)
    assert contents(read_store(place(tmp_path / "s"))) == expected


class Killed(BaseException):
    pass


def killed_at(monkeypatch: pytest.MonkeyPatch, step: int, after: bool) -> None:
    """The driver ends before, or after, a file gets its name."""
    steps, whole = iter(range(10_000)), PendingFile.publish

    def publish(self: PendingFile) -> None:
        here = next(steps) == step
        if here and not after:
            raise Killed
        whole(self)
        if here:
            raise Killed

    monkeypatch.setattr(PendingFile, "publish", publish)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_step_a_store_reads_what_its_commits_say_and_ends_as_an_undisturbed_one(
    tmp_path: Path, after: bool
) -> None:
    drive(tmp_path / "whole")
    expected, step, folder = contents(read_store(place(tmp_path / "whole"))), 1, tmp_path / "s"
    while True:
        with pytest.MonkeyPatch.context() as patch:
            killed_at(patch, step, after)
            try:
                drive(folder)
                break
            except Killed:
                pass
        assert contents(read_store(place(folder))) == contents(without_packs(folder)), step
        drive(folder)
        assert contents(read_store(place(folder))) == expected, step
        shutil.rmtree(folder)
        step += 1
    assert step > 3 * N + 3  # two files and a commit a chunk, and the packs


@pytest.mark.parametrize("after", [False, True])
def test_a_chunk_that_is_made_anew_is_never_read_as_it_was(tmp_path: Path, after: bool) -> None:
    """Its new commit has as many bytes as the old one; the driver dies at any step."""
    drive(tmp_path / "first")
    step, folder = 0, tmp_path / "s"
    size = (tmp_path / "first" / commit_file(1)).stat().st_size
    while True:
        shutil.copytree(tmp_path / "first", folder)
        (folder / commit_file(1)).unlink()
        assert 1 not in read_store(place(folder)).commits
        with pytest.MonkeyPatch.context() as patch:
            killed_at(patch, step, after)
            try:
                drive(folder, seed=1)
                break
            except Killed:
                pass
        assert contents(read_store(place(folder))) == contents(without_packs(folder)), step
        drive(folder, seed=1)
        assert contents(read_store(place(folder))) == contents(without_packs(folder)), step
        assert (folder / commit_file(1)).stat().st_size == size
        assert {row["n_image_tokens"] for row in dict(read_store(place(folder)).samples_by_chunk())[1].to_pylist()} == {1}
        shutil.rmtree(folder)
        step += 1
    assert step >= 5


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "a byte": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "empty": lambda data: b"",
    "another file": lambda data: b"x" * len(data),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_pack_is_passed_over_said_once_and_made_anew(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    drive(tmp_path / "s")
    expected, file = contents(without_packs(tmp_path / "s")), tmp_path / "s" / pack_file(1)
    file.write_bytes(DAMAGES[what](file.read_bytes()))
    with caplog.at_level(logging.WARNING, "linrep.store"):
        store = read_store(place(tmp_path / "s"))
        assert contents(store) == expected
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert pack_file(1) in said[0]
    assert "delete it" in said[0]
    assert [pack_file(1) in line for line in store.verify().damaged] == [True]
    drive(tmp_path / "s")
    assert read_store(place(tmp_path / "s")).verify().whole
    assert contents(read_store(place(tmp_path / "s"))) == expected


def test_a_commit_of_another_size_is_read_itself_and_verify_names_what_differs(tmp_path: Path) -> None:
    drive(tmp_path / "s")
    file = tmp_path / "s" / commit_file(2)
    file.write_bytes(b"{")
    with pytest.raises(StoreError, match=r"000002\.json is damaged"):
        read_store(place(tmp_path / "s"))
    write_chunk(tmp_path / "s", 2, seed=10)  # by hand, without a driver
    assert contents(read_store(place(tmp_path / "s"))) == contents(without_packs(tmp_path / "s"))
    text = (tmp_path / "s" / commit_file(0)).read_text()
    (tmp_path / "s" / commit_file(0)).write_text(text.replace("0.5", "0.7"))
    (line,) = [line for line in read_store(place(tmp_path / "s")).verify().damaged if "000000.json" in line]
    assert "does not say what" in line
    assert pack_file(0) in line


def test_chunks_whose_files_are_damaged_are_not_packed_and_refused_as_before(tmp_path: Path) -> None:
    drive(tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "packs")
    (tmp_path / "s" / samples_file(1)).write_bytes(b"x")
    pack(place(tmp_path / "s"))
    store = read_store(place(tmp_path / "s"))
    assert sorted(packs.packed_chunks(store.place, 0)) == [0]
    with pytest.raises(StoreError, match=r"part-000001.parquet"):
        store.samples()


@pytest.fixture(scope="module")
def commits() -> dict[int, Commit]:
    """Commits of 20 million samples in chunks of 512."""

    def commit(chunk: int) -> Commit:
        files = [WrittenFile(name, 512, 10**6, f"{chunk:016x}") for name in (samples_file(chunk), statistics_file(chunk))]
        return Commit(chunk, tuple(files), 511, 10**5, ((f"images/{chunk}", "no image"),), 1.0, "float32")

    return {chunk: commit(chunk) for chunk in range(MANY)}


def test_a_store_of_39063_chunks_pickles_under_a_megabyte(tmp_path: Path, commits: dict[int, Commit]) -> None:
    store = Store(place(tmp_path), manifest(MANY), commits)
    data = pickle.dumps(store)
    assert len(data) < 10_000
    assert len(pickle.dumps(pickle.loads(data))) < 10_000  # and goes on so, unread


def test_a_pickled_store_reads_its_commits_again_and_refuses_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive(tmp_path)
    store = linrep.store.open(str(tmp_path))
    small = pickle.dumps(store)
    monkeypatch.setattr(read, "CARRIED", 5)
    large = pickle.dumps(store)
    (tmp_path / pack_file(0)).unlink()
    (tmp_path / commit_file(0)).rename(tmp_path / "kept")
    assert pickle.loads(small).commits == store.commits  # a small one carries them
    with pytest.raises(StoreError, match=r"has changed since this job began"):
        pickle.loads(large).samples()
    (tmp_path / "kept").rename(tmp_path / commit_file(0))
    assert pickle.loads(large).commits == store.commits
    assert pickle.loads(large).samples().equals(store.samples())
    with pytest.raises(AttributeError):
        _ = pickle.loads(large).nothing  # type: ignore[attr-defined]


def test_first_samples_and_skipped_ones_are_counted_in_one_pass(tmp_path: Path, commits: dict[int, Commit]) -> None:
    """With 39,063 chunks: a pass over all for each of them took minutes."""
    store, started = Store(place(tmp_path), manifest(MANY), commits), time.process_time()
    for _ in range(100):
        assert store.first_sample[MANY - 1] == 512 * (MANY - 1)
    plan = SimpleNamespace(index=SimpleNamespace(n_samples=2 * MANY), place=place(tmp_path))
    artefact = SimpleNamespace(commits={}, plan=plan, place=place(tmp_path), manifest=manifest(1), kind=HARVESTS)
    stage = SimpleNamespace(artefact=artefact, pool=SimpleNamespace(max_skipped=0.5), _n_skipped=0)
    stage._refuse, stage._pack = partial(HarvestStage._refuse, stage), partial(HarvestStage._pack, stage)
    assert sum(1 for _ in HarvestStage._counted(stage, commits.values())) == MANY  # type: ignore[arg-type]
    assert time.process_time() - started < 2.0


def test_skipped_samples_beyond_the_limit_still_end_a_harvest(tmp_path: Path) -> None:
    plan = SimpleNamespace(index=SimpleNamespace(n_samples=30), place=place(tmp_path))
    artefact = SimpleNamespace(commits={}, plan=plan, place=place(tmp_path), manifest=manifest(1), kind=HARVESTS)
    stage = SimpleNamespace(artefact=artefact, pool=SimpleNamespace(max_skipped=0.1), _n_skipped=0)
    stage._refuse, stage._pack = partial(HarvestStage._refuse, stage), partial(HarvestStage._pack, stage)
    outcomes = [Commit(i, (), 1, 1, ((f"images/{i}", "no image"),), 0.1, "float32") for i in range(10)]
    found = []
    with pytest.raises(TooManySkipped, match=r"4 samples were skipped, .* allows 3 of 30; the latest is images/3"):
        found.extend(HarvestStage._counted(stage, outcomes))  # type: ignore[arg-type]
    assert sorted(artefact.commits) == [0, 1, 2, 3]


def test_commits_that_were_packed_come_back_field_for_field(tmp_path: Path, commits: dict[int, Commit]) -> None:
    from linrep.store.commit import TakenFiles

    full = Commit(0, commits[0].files, 5, 6, (("a", "b\n"), ("ü", "")), 0.125, "bfloat16", (TakenFiles("h-1", 3, 10**12),))
    write_commit(place(tmp_path), full)
    text = (tmp_path / commit_file(0)).read_text()
    packs.write_pack(place(tmp_path), 0, iter([(0, packs.Packed(len(text.encode()), text, "s", SAMPLES.empty_table()))]))
    (tmp_path / commit_file(0)).write_bytes(b" " * len(text.encode()))
    assert asdict(read_commits(place(tmp_path))[0]) == asdict(full)
    assert json.loads(text)["chunk"] == 0
