"""The steering job as its user meets it: a process with a command line, that may be killed."""

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

from linrep import artefact
from linrep.cluster.report import MOST_LINES
from linrep.places import place
from linrep.records import SUMMARY
from linrep.steer.artefact import STEERING, VERDICTS_KIND, verdicts_in
from tests.steering import HARVEST, half_held_out, write_workspace

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LINREP_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="module")
def recipe(random_vlm, tmp_path_factory) -> Path:
    """A recipe and, beside it, a workspace with its harvest."""
    folder = tmp_path_factory.mktemp("steer")
    corpora = half_held_out(folder / "corpora")
    write_workspace(folder / "ws", "job", corpora, random_vlm)
    values = {
        "name": "job",
        "corpora": corpora.model_dump(mode="json"),
        "model": {"path": random_vlm.path},
        "harvest": HARVEST.model_dump(mode="json"),
        "steer": {
            "pairs": 2,
            "images": 4,
            "directions": ["class_mean", "random"],
            "probes": str(folder / "ws/directions.safetensors"),
            "ask": {"questions": [{"prompt": "<image> what is it ?"}], "choice": "<image> it is a", "max_new_tokens": 2},
            "damage": {"texts": 2, "prompt": "<image> see :"},
            "insist": True,
            "chunk_size": 30,
        },
        "pool": {"tokens_per_batch": 1500, "threads": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder / "recipe.yaml"


def command(recipe: Path, workspace: Path, *more: str) -> list[str]:
    return [sys.executable, "jobs/steer.py", "--config", str(recipe), "--workspace", str(workspace), *more]


def run(*words: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def copy_of(workspace: Path, to: Path) -> Path:
    return Path(shutil.copytree(workspace, to))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steer.pairs", '[["tench", "whale"]]'), "no pair tench to whale"),
        (("--steer.layers", "0,9"), "layer 9"),
        (("--steer.judge.kind", "oracle"), "steer.judge"),
        (("--steer.dose.strengths", "0"), "steer.dose.strengths"),
        (("--steer.probes", "/nowhere/at/all"), "/nowhere/at/all"),
    ],
)
def test_a_wrong_argument_is_one_clear_line_before_any_cluster_starts(recipe, words, message):
    done = run(*command(recipe, recipe.parent / "ws"), *words)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert done.stdout == ""


def tables(workspace: Path) -> dict[str, object]:
    (folder,) = (workspace / "steering").iterdir()
    runs = artefact.open(STEERING, place(folder))
    (judged,) = verdicts_in(runs)
    found: dict[str, object] = {name: runs.table(name) for name in STEERING.tables}
    return found | {name: judged.table(name) for name in VERDICTS_KIND.whole}


@pytest.mark.slow
def test_a_killed_job_ends_in_the_same_tables_and_a_finished_one_says_so(recipe, tmp_path):
    whole, killed = copy_of(recipe.parent / "ws", tmp_path / "whole"), copy_of(recipe.parent / "ws", tmp_path / "killed")
    done = run(*command(recipe, whole))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The verdicts are complete.\n")
    assert len(done.stdout.splitlines()) <= MOST_LINES
    for line in done.stderr.splitlines():
        assert line.startswith("steer: "), line
    draw, kills = random.Random(0), 0
    while True:
        driver = subprocess.Popen(
            command(recipe, killed), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        if kills < 3:
            # After the n-th commit of this run: a moment in the middle of the work.
            folder, n = killed / "steering", draw.randrange(1, 4)
            before = len(list(folder.glob("*/commits/*.json")))
            while driver.poll() is None and len(list(folder.glob("*/commits/*.json"))) < before + n:
                time.sleep(0.01)
            if driver.poll() is None:
                os.kill(driver.pid, signal.SIGKILL)
                kills += 1
        output, _ = driver.communicate(timeout=400)
        if driver.returncode == 0:
            break
        assert driver.returncode == -signal.SIGKILL, output
    assert kills >= 2
    one, other = tables(whole), tables(killed)
    for name, table in one.items():
        assert table.equals(other[name]), name  # pyright: ignore[reportAttributeAccessIssue]
    again = run(*command(recipe, killed))
    assert again.stdout.startswith("Nothing to do: the verdicts are complete.")


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the real photographs are not here (set LINREP_DATA to their folder)")
def test_all_three_jobs_run_on_real_photographs_whose_classes_are_the_folders(random_vlm, tmp_path):
    words = (
        "--config", "recipes/imagenette.yaml", "--workspace", str(tmp_path), "--model.path", random_vlm.path,
        "--corpora.images.path", str(DATA / "imagenette/train"), "--corpora.images.per_class", "20",
        "--corpora.text.path", str(DATA / "text/wordnet_glosses.parquet"), "--corpora.text.max_samples", "40",
        "--harvest.layers", "0,2,4", "--harvest.views", "pooled,last", "--probe.softmax", "null",
        "--steer.pairs", "2", "--steer.images", "2", "--steer.damage.texts", "2", "--steer.ask.max_new_tokens", "4",
        "--steer.dose.strengths", "1", "--steer.directions", "class_mean,random", "--steer.edits", "mean",
    )  # fmt: skip
    for job in ("harvest", "probe", "steer"):
        # A model of random weights names nothing: without this word the job stops before the runs.
        insisting = ("--steer.insist",) if job == "steer" else ()
        done = run(sys.executable, f"jobs/{job}.py", *words, *insisting, timeout=900)
        assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "steering").iterdir()
    runs = artefact.open(STEERING, place(folder))
    (judged,) = verdicts_in(runs)
    text = (judged.place / SUMMARY).read_bytes().decode()
    assert "Adding directions at image" in text
    assert "damage   texts after an image" in text
    names = set(json.loads((DATA / "imagenette/classes.json").read_text()).values())
    assert {name for pair in runs.about.pairs for name in pair} <= names
    assert runs.about.counts["n_failed"] == 0
