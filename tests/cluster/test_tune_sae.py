# ruff: noqa: F811  (fixtures of a neighbour come in by their names)
"""The search as a job: Ray equals the plain path, nothing is done twice, kills change nothing, MLflow shows it all."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import linrep.store
from linrep import tracking
from linrep.cluster.run_tune_sae import RECIPE, measures_of, run_tune_sae
from linrep.cluster.tune_sae import Desk, check_trial_room, resources
from linrep.corpora import Corpora
from linrep.errors import LinrepError, RecipeError
from linrep.harvest.config import Pool
from linrep.places import place
from linrep.recipe import Recipe, load_yaml, validate
from linrep.sae.halving import Board, Verdict
from linrep.sae.pack import Trial
from linrep.sae.rounds import search_plainly
from linrep.sae.search import TuneConfig
from linrep.sae.study import SaeConfig
from linrep.sae.trials import read_trials
from linrep.sae.tuning import plan_tune
from linrep.vlm.config import ModelConfig
from tests.cluster.test_train_sae import HARVEST, POOL, SAE, one_thread, split_corpora, workspace  # noqa: F401

ROOT = Path(__file__).parents[2]
TUNE = TuneConfig.model_validate(
    {
        "space": {
            "layers": [2],
            "architectures": [{"kind": "topk", "k": [2, 4]}],
            "expansion": [1, 2],
            "learning_rate": [1e-3, 1e-2, 1e30],
        },
        "stop": {"kind": "halving", "first": 0.25, "factor": 2},
        "rows": 24 * 32,
        "held_out": 100,
        "pack": 6,
    }
)


@pytest.fixture
def fresh(workspace: Path, tmp_path: Path) -> Path:
    """A copy of the workspace to write in."""
    return Path(shutil.copytree(workspace, tmp_path / "ws"))


def recipe_of(corpora: Corpora, model: ModelConfig, **changes: object) -> Recipe:
    tune = TuneConfig.model_validate({**TUNE.model_dump(), **changes})
    sae = SaeConfig.model_validate({**SAE.model_dump(), "grid": {}})
    return Recipe(name="t", corpora=corpora, model=model, harvest=HARVEST, sae=sae, tune=tune, pool=POOL)


def record_of(trial: Trial) -> dict:
    """What does not depend on the clock."""
    return {"status": trial.status, "rows": trial.rows, "values": trial.values, "scores": trial.scores, "control": trial.control}


def plainly(recipe: Recipe, folder: Path, into: Path) -> dict[str, Trial]:
    """The same search in this process, without Ray."""
    (harvest,) = (folder / "harvests").iterdir()
    plan = plan_tune(linrep.store.open(str(harvest)), "t", recipe.tune, recipe.sae, place(into))
    return {trial.name: trial for trial in search_plainly(plan)}


def test_what_a_candidate_has_once_is_logged_at_step_0_where_bars_compare_candidates():
    scores = ({"rows": 100.0, "fvu": 0.4}, {"rows": 200.0, "fvu": 0.3})
    trial = Trial("a", "finished", "", 200, {}, "", scores, ({"rows": 50.0, "loss": 2.0},), {"fvu": 0.9}, 1.5)
    once = {"control/fvu": 0.9, "rows": 200.0, "seconds": 1.5}
    training = (50, {"train/loss": 2.0})
    assert measures_of(trial, False) == [training, (100, {"fvu": 0.4}), (200, {"fvu": 0.3}), (0, once)]
    whole = Trial("a", "finished", "", 200, {}, "", scores[1:], trial.reports, {"fvu": 0.9}, 1.5)
    assert measures_of(whole, True) == [training, (0, {"fvu": 0.3}), (0, once)]


def test_ray_equals_the_plain_path_leaves_nothing_behind_and_tells_mlflow(
    split_corpora, random_vlm, fresh, tmp_path, one_thread, local_ray, capfd
):  # fmt: skip
    import ray
    from mlflow import MlflowClient

    recipe = recipe_of(split_corpora, random_vlm)
    outcome = run_tune_sae(recipe, place(fresh))
    said = capfd.readouterr().err
    assert all(line.startswith("tune: ") for line in said.splitlines()), said
    trials = read_trials(outcome.artefact.place)
    assert len(trials) == 12
    assert outcome.n_new == 1
    plain = plainly(recipe, fresh, tmp_path / "plain")
    assert {name: record_of(trial) for name, trial in trials.items()} == {name: record_of(trial) for name, trial in plain.items()}
    assert {trial.status for trial in trials.values()} == {"finished", "stopped", "failed"}

    # All that the search took of the cluster is free again: no trial waits, no placement group is left.
    end = time.monotonic() + 30
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < end, ray.available_resources()
        time.sleep(0.2)
    assert {group["state"] for group in ray.util.placement_group_table().values()} <= {"REMOVED"}
    assert not (Path(outcome.artefact.place.path) / "ray").exists()

    client = MlflowClient(tracking_uri=outcome.uri)
    (parent,) = client.search_runs(["1"], "tags.`linrep.stage` = 'tune'")
    children = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {child.info.run_name: child.data.tags["linrep.status"] for child in children} == {
        name: trial.status for name, trial in trials.items()
    }
    assert {c.info.status for c in children if c.data.tags["linrep.status"] == "failed"} == {"FAILED"}
    finished = next(t for t in trials.values() if t.status == "finished")
    same = client.search_runs(
        ["1"], f"params.width = '{finished.values['width']}' and metrics.fvu_image > 0 and metrics.`control/fvu_text` > 0"
    )
    assert finished.name in {child.info.run_name for child in same}
    (own,) = [child for child in children if child.info.run_name == finished.name]
    history = client.get_metric_history(own.info.run_id, "fvu_image")
    assert [(point.step, point.value) for point in sorted(history, key=lambda p: p.step)] == [
        (int(score["rows"]), score["fvu_image"]) for score in finished.scores
    ]
    front = {row["candidate"] for row in tracking.compare_tables(place(fresh), "tables/front").to_dicts() if row["on_front"]}
    for child in children:
        kept = {file.path for file in client.list_artifacts(child.info.run_id, "sae")}
        assert ("sae/sae_weights.safetensors" in kept) == (child.info.run_name in front)
    kept = {
        file.path for folder in ("", "figures", "tables") for file in client.list_artifacts(parent.info.run_id, folder or None)
    }
    assert {"figures/front_layer02.png", "tables/front.csv", "recommended.yaml", "recommendation.json", "summary.txt"} <= kept

    full = validate(load_yaml((outcome.artefact.place / RECIPE).path), "recommended")
    assert full.sae.layers == (2,)
    assert full.sae.rows == SAE.rows
    report = json.loads((Path(outcome.artefact.place.path) / "recommendation.json").read_text())["2"]
    assert trials[report["name"]].values["sparsity"] == full.sae.design.activation.k  # type: ignore[union-attr]

    again = run_tune_sae(recipe, place(fresh))
    assert (again.n_new, again.text) == (0, outcome.text)


def test_an_impossible_search_is_one_clear_line_before_any_cluster_starts(split_corpora, random_vlm, fresh, tmp_path):
    def refused(message: str, where: Path = fresh, **space: object) -> None:
        with pytest.raises(LinrepError, match=message) as error:
            run_tune_sae(recipe_of(split_corpora, random_vlm, space={**TUNE.space.model_dump(), **space}), place(where))
        assert "\n" not in str(error.value)

    refused("k 99 of topk is above the width", architectures=[{"kind": "topk", "k": [99]}])
    refused("no layer 1 in .*: it has 0, 2", layers=[1])
    refused("there is no harvest of this recipe", where=tmp_path / "empty")


def test_an_unknown_architecture_is_named_with_those_that_there_are(split_corpora, random_vlm):
    values = recipe_of(split_corpora, random_vlm).model_dump(mode="json")
    values["tune"]["space"]["architectures"] = [{"kind": "transformer", "k": [4]}]
    with pytest.raises(RecipeError, match=r"tune\.space\.architectures\.0\.kind: must be topk, .*got 'transformer'") as error:
        validate(values, "recipe")
    # The tuple that is empty without it is not the user's mistake, but pydantic reports it too.
    assert "transformer" in str(error.value).splitlines()[0]


def test_a_trial_takes_a_core_or_a_share_of_a_gpu_and_one_that_cannot_fit_is_refused():
    assert resources(Pool(), {"CPU": 2.0}) == {"CPU": 1.0}
    assert resources(Pool(gpus=0.25), {"CPU": 2.0, "GPU": 1.0}) == {"GPU": 0.25, "CPU": 0.5}
    check_trial_room({"CPU": 1.0}, {"CPU": 2.0})
    check_trial_room({"CPU": 64.0}, None)
    with pytest.raises(RecipeError, match=r"a trial takes 4 CPUs, there are 2: lower pool\.cpus"):
        check_trial_room({"CPU": 4.0}, {"CPU": 2.0})


def test_the_desk_counts_every_pack_once():
    desk = Desk(Board(2.0, {"x": "b"}, [("x", 1, {"a": 0.5})]))
    assert desk.judge("x", 1, {"b": 0.6}) == Verdict(frozenset(), frozenset())
    for rows in (10, 30, 20):  # a pack that is begun again counts from the start
        desk.report(0, rows)
    desk.report(1, 5)
    assert desk.rows() == 35


def job_of(recipe: Recipe, folder: Path, *more: str) -> list[str]:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return [sys.executable, "jobs/tune_sae.py", "--config", str(path), "--workspace", str(folder / "ws"), *more]


@pytest.mark.slow
def test_a_killed_search_ends_with_the_same_trials(split_corpora, random_vlm, fresh, tmp_path, one_thread):
    """SIGKILL of the driver after some commit, three times; what was committed is not trained again."""
    recipe = recipe_of(split_corpora, random_vlm, rows=400 * 32, pack=3)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": ""}
    draw, kills, kept = random.Random(0), 0, {}
    while True:
        with (tmp_path / "log").open("a") as log:
            job = subprocess.Popen(job_of(recipe, tmp_path), cwd=ROOT, stdout=log, stderr=log, env=environment)
        before, n = len(list(fresh.glob("tunes/*/trials/*.json"))), draw.randrange(1, 4)
        while kills < 3 and job.poll() is None and len(list(fresh.glob("tunes/*/trials/*.json"))) < before + n:
            time.sleep(0.02)
        if kills < 3 and job.poll() is None:
            job.send_signal(signal.SIGKILL)
            kills += 1
        if job.wait(600) == 0:
            break
        assert job.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()
        time.sleep(3)  # workers notice that their driver is gone
        now = {path: path.stat().st_mtime_ns for path in fresh.glob("tunes/*/trials/*.json")}
        assert kept.items() <= now.items()
        kept = now
    assert kills >= 1
    (here,) = (fresh / "tunes").iterdir()
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in here.glob("trials/*.json")}.items()
    plain = plainly(recipe, fresh, tmp_path / "plain")
    found = read_trials(place(here))
    assert {name: record_of(trial) for name, trial in found.items()} == {name: record_of(trial) for name, trial in plain.items()}
    frame = tracking.compare(place(fresh), ["trial"])
    assert sorted(frame["name"]) == sorted(plain)
