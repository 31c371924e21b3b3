"""The life of an artefact, as every stage has it: whenever it is stopped, it ends as if it had not been."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest

from linrep import artefact
from linrep.artefact import Artefact
from linrep.cluster import stage as stages
from linrep.cluster.lock import sole_driver
from linrep.cluster.progress import within
from linrep.cluster.report import MOST_LINES, outcome_lines
from linrep.cluster.stage import Counts, Records, Shown, run_stage
from linrep.errors import StoreError, WorkspaceBusy
from linrep.kind import Kind, UnitCommit
from linrep.places import Place, place
from linrep.tracking import Run
from tests.stores import files_in

SCHEMA = pa.schema([pa.field("unit", pa.string()), pa.field("value", pa.int64())])


@dataclass(frozen=True)
class About:
    """What the manifest of the planted stage says."""

    n: int
    mean: float | None = None


SQUARES = Kind("squares", "squares", "squares", 1, About, {"squares": SCHEMA})


@dataclass(frozen=True)
class Squares:
    """A stage whose units are numbers, and whose work is to square them."""

    artefact: Artefact[About]
    computed: list[str]
    counts = Counts("numbers", "numbers")
    on_ray = True

    def of(self, artefact: Artefact[About]) -> "Squares":
        return replace(self, artefact=artefact)

    def compute(self, todo, run) -> Iterator[UnitCommit]:
        for unit in todo:
            self.computed.append(unit)
            table = pa.table({"unit": [unit], "value": [int(unit) ** 2]}, SCHEMA)
            yield self.artefact.write(unit, {"squares": table}, 0.0, 1)

    def finish(self) -> dict[str, object]:
        self.artefact.finish()
        values = self.artefact.table()["value"].to_pylist()
        return {"mean": sum(values) / len(values)}

    def show(self) -> Shown:
        lines = [f"  line {i}" for i in range(40)]
        return Shown([f"The mean square is {self.artefact.about.mean:g}."], lines, [("look", "open it")])

    def records(self) -> Records:
        return Records({"mean": self.artefact.about.mean or 0.0}, {"squares": self.artefact.table()})


class Untracked(Run):
    """An MLflow run that keeps nothing."""

    def _ask(self, call):
        return None


UNTRACKED = Untracked("none", "sqlite:///nowhere.db", None)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def untracked(monkeypatch):
    """Stages without MLflow, and without a cluster."""
    monkeypatch.setattr(stages.tracking, "run", lambda *args: contextlib.nullcontext(UNTRACKED))
    monkeypatch.setattr(stages.tracking, "uri_of", lambda workspace, thing: UNTRACKED.uri)
    monkeypatch.setattr(stages, "check_services", lambda *args: None)
    monkeypatch.setattr(stages, "cluster", contextlib.nullcontext)


def planned(workspace: Path, n: int = 3) -> Squares:
    head = artefact.plan(
        SQUARES, place(workspace), "t", decisive={"n": n}, parents={"harvest": "h"}, config={}, units=[str(i) for i in range(n)],
        about=About(n),
    )  # fmt: skip
    return Squares(head, [])


def content(folder: Path) -> dict[str, bytes]:
    """What an artefact holds, but for its dates and its lock."""
    return {n: (folder / n).read_bytes() for n in files_in(folder) if n not in ("manifest.json", "driver.lock")}


def test_the_page_of_the_run_is_said_when_a_job_begins_without_a_password(untracked, monkeypatch, tmp_path, capsys):
    served = Untracked("r1", "http://me:hunter2@mlflow.test:5000/", None, "7")  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(stages.tracking, "run", lambda *args: contextlib.nullcontext(served))
    with within("2/3 "):
        run_stage(planned(tmp_path), place(tmp_path))
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "2/3 squares: its run is http://mlflow.test:5000/#/experiments/7/runs/r1"
    assert rest  # progress comes after it
    run_stage(planned(tmp_path / "of a database"), place(tmp_path / "of a database"))
    monkeypatch.setattr(stages.tracking, "run", lambda *args: contextlib.nullcontext(UNTRACKED))
    run_stage(planned(tmp_path / "kept"), place(tmp_path / "kept"))
    assert capsys.readouterr().err.count("its run is") == 1


class Killed(BaseException):
    """The end of a process, as far as one process can play it."""


@pytest.mark.usefixtures("untracked")
def test_stopped_before_any_write_it_ends_in_the_bytes_of_the_undisturbed_one(tmp_path, monkeypatch):
    whole = planned(tmp_path / "whole")
    run_stage(whole, place(tmp_path / "whole"))
    expected = content(Path(whole.artefact.place.path))
    writing, writes = Place.writing, 0

    def counted(self: Place, *args, **kwargs):
        nonlocal writes, left
        writes += 1
        left -= 1
        if left < 0:
            raise Killed
        return writing(self, *args, **kwargs)

    left = 10**6
    monkeypatch.setattr(Place, "writing", counted)
    run_stage(planned(tmp_path / "counted"), place(tmp_path / "counted"))
    total = writes
    assert total >= 3 * 2 + 4  # of each unit a table and a commit, the head twice, the whole table, the summary
    for at in range(total):
        workspace, stage = tmp_path / f"w{at}", planned(tmp_path / f"w{at}")
        left = at
        with pytest.raises(Killed):
            run_stage(stage, place(workspace))
        left = 10**6
        there = artefact.find(SQUARES, stage.artefact.place)
        assert there is None or not there.complete  # complete is the last write of all
        begun = planned(workspace)
        late = replace(begun, artefact=replace(begun.artefact, manifest=replace(begun.artefact.manifest, created="later")))
        outcome = run_stage(late, place(workspace))
        assert outcome.artefact.complete
        assert len(late.computed) + len(stage.computed) <= 4  # of three units, only the one under way again
        assert outcome.artefact.manifest.created == ("later" if there is None else there.manifest.created)
        assert content(Path(stage.artefact.place.path)) == expected


@pytest.mark.usefixtures("untracked")
def test_a_complete_one_is_left_alone_and_says_so(tmp_path):
    first = run_stage(planned(tmp_path), place(tmp_path))
    folder = Path(first.artefact.place.path)
    before = {n: (folder / n).stat().st_mtime_ns for n in files_in(folder)}
    again = planned(tmp_path)
    outcome = run_stage(again, place(tmp_path))
    assert (outcome.n_new, again.computed) == (0, [])
    assert outcome.artefact.manifest == first.artefact.manifest
    after = {n: (folder / n).stat().st_mtime_ns for n in files_in(folder)}
    assert {n for n in after if after[n] != before[n]} <= {"driver.lock"}
    lines = outcome_lines(outcome)
    assert lines[0] == "Nothing to do: the squares are complete."
    assert lines[1] == "The mean square is 1.66667."
    assert len(lines) <= MOST_LINES
    assert any("more lines in" in line for line in lines)
    assert (folder / "summary.txt").read_text().count("line ") == 40


@pytest.mark.usefixtures("untracked")
def test_one_that_grows_does_what_is_asked_of_it_later_and_keeps_what_it_has(tmp_path):
    growing = replace(SQUARES, grows=True)

    def asked(*units: str) -> Squares:
        head = artefact.plan(
            growing, place(tmp_path), "t", decisive={}, parents={}, config={"units": units}, units=units, about=About(0)
        )
        return Squares(head, [])

    first, same, more = asked("1", "2"), asked("2"), asked("2", "5")
    began = run_stage(first, place(tmp_path)).artefact
    assert run_stage(same, place(tmp_path)).n_new == 0
    assert run_stage(more, place(tmp_path)).artefact.complete
    assert (first.computed, same.computed, more.computed) == (["1", "2"], [], ["5"])
    now = artefact.open(growing, began.place)
    assert now.manifest.units == ["1", "2", "5"]
    assert now.manifest.created == began.manifest.created
    assert sorted(now.table()["value"].to_pylist()) == [1, 4, 25]

    # Units that were asked for and never done are given up where others are asked for.
    head = asked("9").artefact.begun()
    assert head.todo() == ["9"]
    last = asked("2", "7")
    run_stage(last, place(tmp_path))
    assert last.computed == ["7"]
    assert artefact.open(growing, began.place).manifest.units == ["1", "5", "2", "7"]


@pytest.mark.usefixtures("untracked")
def test_a_second_driver_leaves(tmp_path):
    stage = planned(tmp_path)
    with sole_driver(stage.artefact.place), pytest.raises(WorkspaceBusy, match="nothing done"):
        run_stage(planned(tmp_path), place(tmp_path))
    assert stage.computed == []


@pytest.mark.usefixtures("untracked")
def test_what_is_read_is_what_was_written_of_this_kind_and_version(tmp_path):
    outcome = run_stage(planned(tmp_path), place(tmp_path))
    here = outcome.artefact
    assert artefact.open(SQUARES, str(tmp_path)).about == About(3, 5 / 3)
    with pytest.raises(StoreError, match=r"no others at .*w: manifest\.json is missing; run jobs/others\.py"):
        artefact.open(replace(SQUARES, stage="others", what="others", folder="others"), str(tmp_path / "w"))
    with pytest.raises(StoreError, match="is of the stage 'squares', not others: name another folder"):
        artefact.find(replace(SQUARES, stage="others"), here.place)
    with pytest.raises(StoreError, match="has schema version 1, this program reads 2"):
        artefact.find(replace(SQUARES, version=2), here.place)
    run_stage(planned(tmp_path, 2), place(tmp_path))
    with pytest.raises(StoreError, match=r"holds 2 squares, name one of them: t-\w+, t-\w+"):
        artefact.open(SQUARES, str(tmp_path))
    one, other = (Path(here.folder(unit).path) / "squares.parquet" for unit in ("1", "2"))
    one.write_bytes(other.read_bytes())  # a whole table, but another unit's
    with pytest.raises(StoreError, match=r"squares\.parquet .*delete .*commits/1\.json"):
        here.part("1", "squares")


@dataclass(frozen=True)
class Plain(Squares):
    """The same stage without Ray."""

    on_ray = False


def test_a_stage_that_needs_no_ray_starts_none(untracked, tmp_path, monkeypatch):
    started = []

    @contextlib.contextmanager
    def cluster():
        started.append(1)
        yield

    monkeypatch.setattr(stages, "cluster", cluster)
    assert run_stage(Plain(planned(tmp_path / "a").artefact, []), place(tmp_path / "a")).n_new == 3
    assert started == []
    run_stage(planned(tmp_path / "b"), place(tmp_path / "b"))
    assert started == [1]
