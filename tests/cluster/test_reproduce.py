"""All stages of a recipe in their turn: which are asked for, what is said of the time, and what the report holds."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from linrep import tracking
from linrep.cluster import reproduce as whole
from linrep.cluster.reproduce import NAMES, PARTS, Clock, asked, planned_lines
from linrep.cluster.run_control import ControlOutcome
from linrep.errors import RecipeError
from linrep.explorer.claims import Finding
from linrep.places import Place, place
from linrep.recipe import Recipe, load_yaml, validate

ROOT = Path(__file__).parents[2]
FORMS = (whole.REPORT, whole.PAGE)


def command(job: str) -> str:
    return f"the command of {job}"


def demo(**changes: object) -> Recipe:
    return validate({**load_yaml(str(ROOT / "recipes/demo.yaml")), **changes}, "demo")


def test_the_shares_of_the_stages_are_the_whole_time():
    assert sum(part.share for part in PARTS) == pytest.approx(1.0)


def test_the_stages_are_the_sections_of_the_recipe():
    assert [part.name for part in asked(demo())] == list(NAMES)
    minimal = validate({"name": "t", "corpora": {"text": {"path": "x"}}, "model": {"path": "m"}, "probe": {}}, "t")
    assert [part.name for part in asked(minimal)] == ["harvest", "probe", "explore"]
    without = demo(sharing={"untrained": None})
    assert "control" not in [part.name for part in asked(without)]
    assert [part.name for part in asked(demo(), until="steer")] == ["harvest", "regions", "probe", "steer"]
    assert [part.name for part in asked(demo(), only="tune")] == ["tune"]
    with pytest.raises(RecipeError, match=r"^--until harvests: there is no such stage; did you mean --until harvest\?$"):
        asked(demo(), until="harvests")
    with pytest.raises(RecipeError, match=r"^--only xyz: there is no such stage; name one of harvest, regions, probe,"):
        asked(demo(), only="xyz")
    with pytest.raises(RecipeError, match=r"^--only control: this recipe has no section for it; name one of harvest,"):
        asked(without, only="control")


def test_the_time_that_is_left_comes_from_stages_that_had_work():
    now = 0.0
    clock = Clock(PARTS, lambda: now)
    assert clock.left(PARTS[0]) == ""
    clock.begin()
    clock.end(PARTS[0], is_new=False)  # complete before: says nothing of this machine
    assert clock.left(PARTS[1]) == ""
    clock.begin()
    now = 10.0
    clock.end(PARTS[1], is_new=True)
    rest = sum(part.share for part in PARTS[2:]) / PARTS[1].share * 10
    assert clock.left(PARTS[2]) == f"; 0:10 gone, about {int(rest) // 60}:{int(rest) % 60:02d} left"


def test_what_a_dry_run_says_it_makes_nothing(tmp_path):
    lines = list(planned_lines(demo(), place(tmp_path / "w"), PARTS))
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert all(line.endswith("nothing there yet") for line in lines)
    assert not (tmp_path / "w").exists()
    (tmp_path / "w/probes/demo-1").mkdir(parents=True)
    (tmp_path / "w/probes/demo-1/x").write_bytes(bytes(2_000_000))
    (probe,) = [line for line in planned_lines(demo(), place(tmp_path / "w"), PARTS) if line.startswith("  probe")]
    assert "1 in " in probe
    assert "2.0 MB" in probe


def test_each_stage_runs_once_in_its_turn_and_the_report_follows(tmp_path, monkeypatch):
    ran: list[str] = []

    def part(name: str, n_new: int) -> whole.Part:
        def run(recipe: Recipe, workspace: object, command: object) -> ControlOutcome:
            ran.append(name)
            return ControlOutcome((), n_new, place(tmp_path / name))

        return whole.Part(name, run, 0.5)

    monkeypatch.setattr(whole, "finding", lambda name, *_: Finding(name, f"{name}s/t-1", "t-1", [f"{name} says so."]))
    said: list[str] = []
    done = whole.reproduce(demo(), place(tmp_path), command, [part("harvest", 0), part("probe", 2)], said.append)
    assert ran == ["harvest", "probe"]
    assert done.n_new == 1
    assert [line for line in said if line.startswith("reproduce:")][1].startswith("reproduce: stage 2 of 2, probe")
    text = (tmp_path / "report.md").read_text()
    assert "**probe says so.**" in text
    assert "the command of probe" in text
    assert text.count("Not measured") == 3
    page = (tmp_path / "report.html").read_text()
    assert "probe says so." in page
    assert page.count("Not measured") == 6  # in the claims, and in the list of them


class Stages:
    """Two stages that only open their runs: a control, and probes."""

    def __init__(self, here: Path) -> None:
        self.here, self.complete, self.stop = here, set[str](), False
        self.parts = [whole.Part(name, self._job(name), 0.5) for name in ("control", "probe")]

    def _job(self, name: str):
        def job(recipe: Recipe, workspace: Place, command: object) -> ControlOutcome:
            thing = workspace / name
            if name in self.complete:
                tracking.uri_of(workspace, thing)
                return ControlOutcome((), 0, thing)
            with tracking.run(workspace, name, name, tracking.key_of(workspace, thing), {}) as run:
                run.child("trial", f"part of {name}", f"key {name}", {}, {}, [])
                if self.stop:
                    raise KeyboardInterrupt
            self.complete.add(name)
            return ControlOutcome((), 1, thing)

        return job

    def reproduce(self, alone: bool = False) -> None:
        whole.reproduce(demo(), place(self.here), "the command of {}".format, self.parts, lambda line: None, alone)

    def runs(self) -> dict:
        client = MlflowClient(tracking.tracking_uri(place(self.here)))
        return {run.info.run_name: run for run in client.search_runs(["1"])}


@pytest.fixture
def stages(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "finding", lambda name, *_: Finding(name, f"{name}s/t-1", "t-1", [f"{name} says so."]))
    return Stages(tmp_path)


def test_the_runs_of_a_recipe_lie_below_one_run_and_theirs_below_them(stages, tmp_path):
    stages.parts[0].run(demo(), place(tmp_path), command)  # by its own job: complete before, and taken in
    assert tracking.PARENT not in stages.runs()["control"].data.tags
    stages.reproduce()
    runs = stages.runs()
    top = runs["reproduce demo"]
    above = {name: run.data.tags.get(tracking.PARENT) for name, run in runs.items()}
    assert above == {
        "reproduce demo": None,
        **dict.fromkeys(("control", "probe"), top.info.run_id),
        **{f"part of {name}": runs[name].info.run_id for name in ("control", "probe")},
    }
    assert top.info.status == "FINISHED"
    assert top.data.tags["mlflow.note.content"] == "**control** control says so.\n\n**probe** probe says so."
    for form in FORMS:
        (kept,) = (tmp_path / "mlartifacts" / top.info.run_id).rglob(form)
        assert kept.read_bytes() == (tmp_path / form).read_bytes()


def test_a_recipe_that_was_stopped_goes_on_in_the_same_run_and_is_reported_last(stages, tmp_path):
    stages.stop = True
    with pytest.raises(KeyboardInterrupt):
        stages.reproduce()
    stopped = stages.runs()["reproduce demo"].info
    assert stopped.status == "KILLED"
    for form in FORMS:
        text = (tmp_path / form).read_text()
        assert "Not finished" in text
        assert "the command of reproduce" in text
    stages.stop = False
    stages.reproduce()
    runs = stages.runs()
    assert len(runs) == 5
    assert (runs["reproduce demo"].info.run_id, runs["reproduce demo"].info.status) == (stopped.run_id, "FINISHED")
    assert "**probe says so.**" in (tmp_path / "report.md").read_text()


def test_a_stage_that_was_asked_for_alone_leaves_the_report_of_all(stages, tmp_path):
    stages.reproduce()
    before = [(tmp_path / form).read_bytes() for form in FORMS]
    stages.parts = stages.parts[1:]
    stages.reproduce(alone=True)
    assert [(tmp_path / form).read_bytes() for form in FORMS] == before
    stages.complete.clear()
    stages.reproduce(alone=True)
    for form in FORMS:  # what it says is no longer so
        assert "Not finished" in (tmp_path / form).read_text()
    assert stages.runs()["reproduce demo"].data.tags["mlflow.note.content"].startswith("**control**")


@pytest.mark.parametrize("lost", FORMS)
def test_where_all_is_complete_and_reported_mlflow_is_not_asked(stages, tmp_path, monkeypatch, lost):
    stages.reproduce()
    before = [(tmp_path / form).read_bytes() for form in FORMS]
    with monkeypatch.context() as patch:
        patch.setattr(tracking.runs, "open_client", lambda uri: pytest.fail("asked"))
        stages.reproduce()
    assert [(tmp_path / form).read_bytes() for form in FORMS] == before
    (tmp_path / lost).unlink()
    stages.reproduce()
    assert [(tmp_path / form).read_bytes() for form in FORMS] == before
    assert stages.runs()["reproduce demo"].info.status == "FINISHED"
