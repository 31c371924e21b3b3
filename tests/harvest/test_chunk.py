"""A chunk from samples to commit: it streams, notices a changed corpus on the way, and says where its time goes."""

import functools
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import linrep.harvest.chunk as chunks
import linrep.harvest.harvester as harvesters
from linrep.corpora import Corpora
from linrep.corpora.index import build_index
from linrep.harvest.batches import micro_batches
from linrep.harvest.chunk import harvest_chunk, prepare_chunk, sample_row
from linrep.harvest.clock import Clock, DeviceTurns, shares, time_line
from linrep.harvest.config import HarvestConfig
from linrep.harvest.harvester import Harvester
from linrep.harvest.take import Origin, OriginLost, TakenRows
from linrep.places import place
from linrep.store.commit import Commit, read_commit
from linrep.store.write import samples_table
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import VLM, load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared

CONFIG = HarvestConfig(layers=(0, 2), tokens_per_sample=5, dtype="float32")


@pytest.fixture(scope="module")
def vlm(random_vlm: ModelConfig) -> VLM:
    return load(random_vlm, 2)


@pytest.fixture(scope="module")
def prepared(random_vlm: ModelConfig, corpora: Corpora) -> list[Prepared]:
    """The images of the corpora."""
    images = build_index(corpora).chunks(1000)[0]
    found = [one for one in prepare_chunk(images, corpora, Preparer.from_path(random_vlm)) if isinstance(one, Prepared)]
    assert len(found) == 22
    return found


def harvester_of(vlm: VLM) -> Harvester:
    return Harvester(vlm, CONFIG, (0, 2), 400)


def test_a_chunk_holds_a_window_of_samples_however_long_it_is(vlm, prepared, monkeypatch, tmp_path):
    window = 6 * max(one.n_bytes for one in prepared)
    monkeypatch.setattr(harvesters, "micro_batches", functools.partial(micro_batches, window=window))
    alive: weakref.WeakSet[np.ndarray] = weakref.WeakSet()
    most = 0

    class Watched(np.ndarray):
        """An array that can be hashed, by which it is known."""

        __hash__ = object.__hash__

    def stream() -> Iterator[Prepared]:
        nonlocal most
        for _ in range(10):
            for one in prepared:
                ids = one.input_ids.copy().view(Watched)
                alive.add(ids)
                most = max(most, len(alive))
                yield Prepared(**{name: getattr(one, name) for name in Prepared.__slots__} | {"input_ids": ids})
                del ids

    commit = harvest_chunk(harvester_of(vlm), stream(), place(tmp_path), 0)
    assert commit.n_samples == 220
    n_window = window // min(one.n_bytes for one in prepared)
    n_batch = 400 // min(map(len, prepared))
    assert most <= n_window + 2 * n_batch + 2 < 60  # with two micro-batches under way, and one sample at either end


def test_a_streamed_chunk_has_the_rows_of_one_packed_whole(vlm, prepared, monkeypatch, tmp_path):
    def rows(folder: str) -> dict[tuple, np.ndarray]:
        found = {}
        for own in harvester_of(vlm)(prepared):
            for (view, layer, modality), table in own.tables.items():
                for row in table.to_pylist():
                    key = folder, view, layer, modality, row["sample_id"], row.get("position")
                    found[key[1:]] = np.frombuffer(row["vector"], np.float32)
        return found

    whole = rows("whole")
    monkeypatch.setattr(harvesters, "micro_batches", functools.partial(micro_batches, window=10_000))
    streamed = rows("streamed")
    assert streamed.keys() == whole.keys()
    assert all(np.abs(streamed[key] - own).max() <= 1e-5 * np.abs(own).max() for key, own in whole.items())


def test_a_changed_corpus_is_noticed_on_the_way_and_at_the_end(vlm, prepared, monkeypatch, tmp_path):
    table = samples_table([sample_row(one) for one in prepared])
    other = samples_table(
        [{**sample_row(one), "uri": "elsewhere"} if i == 5 else sample_row(one) for i, one in enumerate(prepared)]
    )
    monkeypatch.setattr(chunks, "CHECKED_AT_ONCE", 4)
    taken: list[int] = []

    def stream() -> Iterator[Prepared]:
        for i, one in enumerate(prepared):
            taken.append(i)
            yield one

    for then, seen in ((other, 8), (table.slice(0, 20), 22), (samples_table([*table.to_pylist(), table.to_pylist()[0]]), 22)):
        taken.clear()
        monkeypatch.setattr(chunks, "take", lambda writer, origins, then=then: TakenRows(then, {}, ()))
        origin = Origin("earlier", place(tmp_path), Commit(0, (), 22, 0, (), 0.0, "float32"), frozenset())
        with pytest.raises(OriginLost, match="not those that earlier was made of"):
            harvest_chunk(harvester_of(vlm), stream(), place(tmp_path), 0, [origin])
        assert len(taken) == seen
        assert read_commit(place(tmp_path), 0) is None
    monkeypatch.setattr(chunks, "take", lambda writer, origins: TakenRows(table, {}, ()))
    assert harvest_chunk(harvester_of(vlm), stream(), place(tmp_path), 0, [origin]).n_samples == 22


def test_a_chunk_says_where_its_time_goes(vlm, prepared, tmp_path):
    clock, begun = Clock(), time.perf_counter()
    harvest_chunk(harvester_of(vlm), iter(prepared), place(tmp_path), 0, clock=clock)
    passed = time.perf_counter() - begun
    for work in ("forward", "copy", "write"):
        assert 0 < clock.seconds[work] < passed
    assert clock.seconds["read"] == clock.seconds["decode"] == clock.seconds["prepare"] == 0
    assert 0 <= clock.seconds["wait"] < passed
    assert clock.seconds["forward"] + clock.seconds["wait"] <= passed


def test_a_device_waits_from_the_end_of_a_micro_batch_to_the_next_ones_beginning(monkeypatch):
    """Two devices that a model lies on: its time is that of the slower one, and it waits only while both do."""
    moments = iter([(10.0, 10.0), (11.0, 13.0), (15.0, 15.0), (18.0, 17.0)])
    monkeypatch.setattr("linrep.harvest.clock.moment", lambda devices: next(moments))
    turns, clock = DeviceTurns([torch.device("cpu")]), Clock()
    for forward, wait in ((3.0, 0.0), (3.0 + 3.0, 2.0)):  # before the first one nothing waited
        with turns.turn() as turn:
            pass
        turn.settle(clock)
        assert (clock.seconds["forward"], clock.seconds["wait"]) == (forward, wait)


def test_shares_are_of_the_time_of_devices():
    clock = Clock()
    assert shares(clock.seconds) == {}
    assert time_line(clock.seconds) == "time: no device has run"
    clock.take_in({"forward": 30.0, "wait": 10.0, "decode": 4.0, "prepare": 20.0})
    clock.add("write", 2.0)
    assert shares(clock.seconds) == {
        "forward": 0.75, "wait": 0.25, "decode": 0.1, "prepare": 0.5, "write": 0.05, "read": 0.0, "copy": 0.0
    }  # fmt: skip
    assert time_line(clock.seconds) == (
        "time: 40 s of devices: forward 75%, wait 25%; beside them, in the same measure, "
        "read 0%, decode 10%, prepare 50%, copy 0%, write 5%"
    )
