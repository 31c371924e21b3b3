"""A request that is not possible leaves no trace: what lies in and beside the workspace is as it was."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from linrep.cluster.entry import run_job
from linrep.cluster.ready import check_writable
from linrep.corpora import Corpora
from linrep.errors import PlaceError
from linrep.harvest.config import HarvestConfig
from linrep.harvest.plan import plan_harvest
from linrep.places import place
from linrep.tracking import client
from linrep.vlm.config import ModelConfig
from tests.cluster.test_harvest import harvest_plainly

ROOT = Path(__file__).parents[2]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
LATER = [job for job in JOBS if job not in ("harvest", "plan", "reproduce", "explore")]  # three begin one, one shows any
HARVEST = {"layers": [0, 3], "tokens_per_sample": 5, "chunk_size": 8}
SECTION = {"train_sae": "sae", "tune_sae": "tune.space"}
FIRST = {"interpret": "no features", "explore": "there is nothing to show", "regions": "no section regions"}
WORDS = {"ask": ("--text", "what is it ?")}  # without which a job asks for nothing


@pytest.fixture(scope="module")
def recipe(corpora: Corpora, random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    sections = {"corpora": corpora.model_dump(mode="json"), "model": {"path": random_vlm.path}, "harvest": HARVEST}
    path.write_text(yaml.safe_dump({"name": "t", **sections}))
    return path


@pytest.fixture(scope="module")
def harvested(corpora: Corpora, random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a complete harvest and nothing else."""
    workspace = tmp_path_factory.mktemp("harvested") / "ws"
    harvest_plainly(plan_harvest("t", corpora, random_vlm, HarvestConfig.model_validate(HARVEST), place(workspace)))
    return workspace


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a job that must be refused in one line, and leave all as it was; returns the line."""
    monkeypatch.setattr(client, "FIRST_PAUSES", ())
    monkeypatch.setattr("linrep.tracking.where.FIRST_PAUSES", ())

    def run(job: str, recipe: Path, workspace: Path, *words: str) -> str:
        main = runpy.run_path(str(ROOT / "jobs" / f"{job}.py"), run_name="job")["main"]
        monkeypatch.chdir(workspace.parent)
        before = tree(workspace.parent)
        assert run_job("x", main, ["--config", str(recipe), f"--workspace={workspace}", *WORDS.get(job, ()), *words]) == 1
        assert tree(workspace.parent) == before
        out, said = capsys.readouterr()
        assert out == ""
        (line,) = (one for one in said.splitlines() if not one.startswith("reproduce: "))
        assert line.startswith("error: ")
        return line

    return run


@pytest.mark.parametrize("job", JOBS)
def test_in_a_new_workspace_no_job_leaves_a_trace_of_a_mistake(refuse, recipe, tmp_path, job):
    new = tmp_path / "deep" / "ws"
    new.parent.mkdir()
    # What a job reads is looked for before all else.
    first = FIRST.get(job)
    assert (first or "/nowhere/at/all") in refuse(job, recipe, new, "--model.path", "/nowhere/at/all")
    assert (first or "layer 9") in refuse(job, recipe, new, "--harvest.layers", "9")
    if job == "harvest":
        assert "/nowhere/at/all" in refuse(job, recipe, new, "--corpora.text.path", "/nowhere/at/all")
        assert "no section demo" in refuse(job, recipe, new, "--corpora.text.path", "demo://text.jsonl")
        # The embedded world has no such file, and no such class: it must be looked at to see that.
        world = ("--demo.n_images", "3", "--demo.n_texts", "3")
        assert "none.jsonl" in refuse(job, recipe, new, "--corpora.text.path", "demo://none.jsonl", *world)
        classes = ("--corpora.images.path", "demo://images", "--corpora.images.classes", "dragon")
        assert "dragon" in refuse(job, recipe, new, *classes, *world)
    elif job not in ("plan", "reproduce"):
        assert (first or "no harvest of this recipe") in refuse(job, recipe, new)


@pytest.mark.parametrize("job", LATER)
def test_beside_a_harvest_no_job_leaves_a_trace_of_a_mistake(refuse, recipe, harvested, job):
    layers = f"--{SECTION.get(job, job)}.layers"
    if job in ("probe", "sharing", "train_sae", "tune_sae"):
        assert "9" in refuse(job, recipe, harvested, layers, "9")
    if job == "steer":
        assert "no probes of this recipe" in refuse(job, recipe, harvested)
    none = FIRST.get(job, "no harvest of this recipe")
    assert none in refuse(job, recipe, harvested, "--harvest.seed", "7")
    assert none in refuse(job, recipe, harvested, "--corpora.text.path", "/nowhere/at/all")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RAY_ADDRESS", "127.0.0.1:1", "RAY_ADDRESS=127.0.0.1:1"),
        ("RAY_ADDRESS", "http://127.0.0.1:8265", "RAY_ADDRESS=http"),
        ("MLFLOW_TRACKING_URI", "/etc/hostname", "MLFLOW_TRACKING_URI is '/etc/hostname'"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9", "MLflow at http://127.0.0.1:9"),
    ],
)
@pytest.mark.parametrize("job", ["harvest", "probe", "train_sae"])
def test_surroundings_that_are_not_there_leave_no_trace(refuse, recipe, harvested, tmp_path, monkeypatch, job, name, value, said):
    ray = sys.modules.get("ray")
    if ray is not None:
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv(name, value)
    new = tmp_path / "deep" / "ws"
    new.parent.mkdir()
    assert said in refuse(job, recipe, new if job == "harvest" else harvested)


def test_a_workspace_that_is_a_file_is_one_clear_line(refuse, recipe, tmp_path):
    (tmp_path / "file").write_text("x")
    assert f"{tmp_path}/file is a file" in refuse("harvest", recipe, tmp_path / "file")
    with pytest.raises(PlaceError, match=r"/file is a file, name another"):
        check_writable(place(tmp_path / "file" / "deep" / "ws"))
