"""The lease of a driver in an object store: kept through failures, never silently lost, never another's removed."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from linrep.cluster import lease_file, lock
from linrep.cluster.lock import LOCK, sole_driver
from linrep.errors import WorkspaceBusy
from linrep.places import Place, place

OTHER = {"id": "another", "who": "process 7 on elsewhere"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A folder without locks of the operating system, as an object store is, and no time between renewals."""
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(lock, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(lease_file, "SETTLE_SECONDS", 0.0)
    return replace(place(tmp_path), local=False)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], threading.Event]:
    """Makes the next n writes of places fail; the event is set when a later one succeeded."""
    real = Place.write_json

    def fail(n: int) -> threading.Event:
        left, through = [n], threading.Event()

        def write(self: Place, value: Any) -> None:
            if left[0] > 0:
                left[0] -= 1
                raise OSError("slow down")
            real(self, value)
            through.set()

        monkeypatch.setattr(Place, "write_json", write)
        return through

    return fail


def drive(folder: Place, meanwhile: Callable[[], object]) -> None:
    """A driver that works for a minute unless something stops it."""
    with sole_driver(folder):
        meanwhile()
        time.sleep(60)


def test_a_renewal_that_fails_is_tried_again_and_the_lease_is_kept(folder, failing):
    with sole_driver(folder):
        before = (folder / LOCK).read_json()
        assert failing(5).wait(60)
        after = (folder / LOCK).read_json()
        assert (after["id"], after["who"]) == (before["id"], before["who"])
        assert after["time"] > before["time"]
        with pytest.raises(WorkspaceBusy, match="another driver"), sole_driver(folder):
            pass
    assert not (folder / LOCK).exists()


def test_a_lease_that_runs_out_stops_its_driver_and_says_why(folder, failing, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_SECONDS", 1.0)
    with pytest.raises(WorkspaceBusy, match=r"was lost: it could not be renewed for 1 s \(slow down\).*again to resume"):
        drive(folder, lambda: failing(10**9))


def test_a_driver_whose_lease_was_taken_over_stops_and_leaves_the_other_one_alone(folder, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 1.0)  # long after the other one wrote: between reading and writing is a gap
    taken = {**OTHER, "time": time.time()}
    with pytest.raises(WorkspaceBusy, match=r"process 7 on elsewhere\) took it over"):
        drive(folder, lambda: (folder / LOCK).write_json(taken))
    assert (folder / LOCK).read_json() == taken


def test_a_driver_that_ends_after_a_take_over_does_not_remove_the_others_lease(folder, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 1000)
    taken = {**OTHER, "time": time.time()}
    with sole_driver(folder):
        (folder / LOCK).write_json(taken)
    assert (folder / LOCK).read_json() == taken


def test_the_successor_of_a_dead_driver_waits_until_its_lease_runs_out_and_enters(folder, monkeypatch, capsys):
    monkeypatch.setattr(lock, "LEASE_SECONDS", 1.0)
    died = time.time() - 0.3
    (folder / LOCK).write_json({**OTHER, "time": died})
    with sole_driver(folder):
        assert died + 1.0 <= time.time() < died + 10.0
        assert (folder / LOCK).read_json()["id"] != OTHER["id"]
    said = capsys.readouterr().err
    assert "process 7 on elsewhere) holds" in said
    assert "waiting 1 s at most, until it says that it is at work or its lease runs out" in said


def test_a_driver_that_renews_while_another_one_waits_is_at_work(folder, monkeypatch):
    (folder / LOCK).write_json({**OTHER, "time": time.time()})
    monkeypatch.setattr(lock.time, "sleep", lambda _: (folder / LOCK).write_json({**OTHER, "time": time.time()}))
    with pytest.raises(WorkspaceBusy, match=r"process 7 on elsewhere\) is writing .*: nothing done"), sole_driver(folder):
        pass


def test_an_interrupt_of_the_user_stays_one(folder):
    with pytest.raises(KeyboardInterrupt), sole_driver(folder):
        raise KeyboardInterrupt
    assert not (folder / LOCK).exists()
