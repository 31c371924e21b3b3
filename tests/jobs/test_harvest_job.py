"""The harvest job as its user meets it: a process with a command line, that may be killed."""

import contextlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

import linrep.store
from linrep.cluster.lock import LEASE_SECONDS, LOCK
from linrep.cluster.report import MOST_LINES
from linrep.corpora import Corpora
from linrep.places import place
from linrep.vlm.config import ModelConfig
from tests.conftest import write_corpora
from tests.signals import hangups_heard
from tests.stores import assert_equal, files_in

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LINREP_DATA", ROOT.parent / "shared" / "data"))


def write_recipe(folder: Path, corpora: Corpora, model: ModelConfig, chunk_size: int = 8) -> Path:
    recipe = {
        "name": "job",
        "corpora": corpora.model_dump(mode="json"),
        "model": {"path": model.path},
        "harvest": {"layers": [0, 3], "tokens_per_sample": 5, "chunk_size": chunk_size},
        "pool": {"tokens_per_batch": 400, "threads": 1},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def command(recipe: Path, workspace: Path | str, *more: str) -> list[str]:
    return [sys.executable, "jobs/harvest.py", "--config", str(recipe), "--workspace", str(workspace), *more]


NO_CLUSTER = {"RAY_ADDRESS": "127.0.0.1:1"}
"""Nobody listens there: a job that tries to join a cluster, or to start one, fails."""


def run(*words: str, timeout: float = 600, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def recipe(corpora: Corpora, random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), corpora, random_vlm)


@pytest.fixture(scope="module")
def uninterrupted(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    workspace = tmp_path_factory.mktemp("whole")
    return workspace, run(*command(recipe, workspace))


@pytest.mark.slow
def test_the_job_prints_progress_and_results_and_nothing_else(uninterrupted):
    workspace, done = uninterrupted
    assert done.returncode == 0, done.stderr
    for line in done.stderr.splitlines():
        assert line.startswith("harvest: "), line
    *_, last, time = done.stderr.splitlines()
    assert last.startswith("harvest: 100% 57/57 samples, ")
    assert re.fullmatch(
        r"harvest: time: [\d,]+ s of devices: forward \d+%, wait \d+%; beside them, in the same measure, "
        r"read \d+%, decode \d+%, prepare \d+%, copy \d+%, write \d+%",
        time,
    )
    assert done.stdout.startswith("The harvest is complete.\n57 samples give ")
    assert "\nNext:\n  look: " in done.stdout
    assert len(done.stdout.splitlines()) <= MOST_LINES
    assert linrep.store.open(str(workspace)).complete


@pytest.mark.slow
def test_what_it_prints_to_do_next_works(uninterrupted):
    _, done = uninterrupted
    look = done.stdout.split("look:")[1].splitlines()[0].strip()
    shown = subprocess.run(look, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.startswith("Activation store job-")


@pytest.mark.slow
def test_the_same_command_again_does_nothing_but_say_so(recipe, uninterrupted):
    workspace, _ = uninterrupted
    before = {name: (workspace / name).stat().st_mtime_ns for name in files_in(workspace) if not name.endswith(".lock")}
    again = run(*command(recipe, workspace), **NO_CLUSTER)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("Nothing to do: the harvest is complete.")
    assert {name: (workspace / name).stat().st_mtime_ns for name in before} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--harvest.layers", "0,9"), "layer 9"),
        (("--harvest.layers", "3,1"), "harvest.layers"),
        (("--model.path", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--corpora.images.path", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--harvest.dtype", "int4"), "int4"),
        (("--harvest.layer", "3"), "--harvest.layer"),
        (("--config", "recipes/none.yaml"), "recipes/none.yaml"),
    ],
)
def test_a_wrong_argument_is_one_clear_line_before_any_cluster_starts(recipe, tmp_path, words, message):
    done = run(*command(recipe, tmp_path), *words, **NO_CLUSTER)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert done.stdout == ""


def test_print_config_shows_the_recipe_with_its_overrides_and_stops(recipe, tmp_path):
    shown = run(*command(recipe, tmp_path, "--harvest.seed", "7", "--print-config"))
    assert yaml.safe_load(shown.stdout)["harvest"]["seed"] == 7
    assert files_in(tmp_path) == set()


def family(process: psutil.Process, name: str) -> list[psutil.Process]:
    """Live descendants whose title holds a word (Ray's workers rename themselves)."""
    found = []
    for child in process.children(recursive=True):
        try:
            if name in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def survive(recipe: Path, workspace: Path, n_kills: int, seed: int) -> list[str]:
    """Run the job to its end while its driver, actors and workers are killed at random moments; say what was killed."""
    draw = random.Random(seed)
    killed: list[str] = []
    deadline = time.monotonic() + 60 * n_kills + 240
    while True:
        assert time.monotonic() < deadline, f"no end after {killed}"
        driver = subprocess.Popen(
            command(recipe, workspace), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        tree = psutil.Process(driver.pid)
        target = draw.choice(["driver", "actor", "worker"]) if len(killed) < n_kills else None
        # From before the cluster is up to the last chunks; an actor or a worker is awaited, then hit after a moment.
        if target == "driver":
            time.sleep(draw.uniform(1.0, 14.0))
            if driver.poll() is None:
                driver.send_signal(signal.SIGKILL)
                killed.append(target)
        while target in ("actor", "worker") and driver.poll() is None and len(killed) < n_kills:
            title = "ray::MapWorker" if target == "actor" else "ray::read_part"
            victims = family(tree, title)
            if victims:
                time.sleep(draw.uniform(0, 0.5))
                if victims[0].is_running():
                    victims[0].send_signal(signal.SIGKILL)
                    killed.append(target)
                    target = draw.choice(["actor", "worker", None])
            time.sleep(0.02)
        output, _ = driver.communicate(timeout=300)
        if driver.returncode == 0:
            if len(killed) >= n_kills or not output:
                return killed
            # It ended before enough was killed: lose some chunks and go on.
            store = linrep.store.open(str(workspace))
            for chunk in draw.sample(sorted(store.commits), len(store.commits) // 2):
                (Path(store.place.path) / f"commits/{chunk:06d}.json").unlink()
            manifest = Path(store.place.path) / "manifest.json"
            manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
        else:
            assert driver.returncode == -signal.SIGKILL, output


def check_survival(recipe: Path, workspace: Path, whole: Path, n_kills: int, seed: int) -> None:
    killed = survive(recipe, workspace, n_kills, seed)
    assert len(killed) >= n_kills
    store = linrep.store.open(str(workspace))
    assert store.complete
    assert not [name for name in files_in(store.place) if name.endswith(".part")]
    assert_equal(store, linrep.store.open(str(whole)))


@pytest.mark.slow
def test_a_killed_harvest_ends_in_the_same_rows(recipe, uninterrupted, tmp_path):
    check_survival(recipe, tmp_path, uninterrupted[0], n_kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}], ids=str)
def test_a_whole_job_runs_in_a_workspace_of_an_odd_name_and_goes_on_where_it_is_moved(recipe, uninterrupted, tmp_path, locale):
    workspace = tmp_path / "in" / "what? ws%25#\u00e9 'q' \"d\" [x]* \U0001f642"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LC_")} | locale
    done = subprocess.run(command(recipe, workspace), cwd=ROOT, env=environment, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == [workspace.name]
    assert_equal(linrep.store.open(str(workspace)), linrep.store.open(str(uninterrupted[0])))
    workspace.rename(tmp_path / "moved")
    again = run(*command(recipe, tmp_path / "moved"), **NO_CLUSTER)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("Nothing to do")
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "hung up")],
)
def test_a_signal_at_any_moment_keeps_what_is_committed_and_closes_the_run(random_vlm, tmp_path, number, status, word):
    """In the start, in Ray's start, at work and at the end: one line, and the same command goes on."""
    corpora = write_corpora(tmp_path / "corpora", n_images=120, n_texts=60, n_pairs=40)
    recipe = write_recipe(tmp_path, corpora, random_vlm, chunk_size=4)
    workspace, draw, database = tmp_path / "workspace", random.Random(number), tmp_path / "workspace" / "mlflow.db"
    for _ in range(8):
        with hangups_heard():
            driver = subprocess.Popen(
                command(recipe, workspace), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(draw.uniform(0.3, 25))
        commits = set(workspace.rglob("commits/*.json"))
        family = psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
        driver.send_signal(number)
        out, said = driver.communicate(timeout=120)
        _, left = psutil.wait_procs(family, timeout=60)
        assert not left
        if driver.returncode == 0:
            break
        assert driver.returncode in (status, -number), said  # the interpreter itself had not started
        printed = [line for line in said.splitlines() if not line.startswith("harvest: ")]
        if driver.returncode == status:
            assert (out, printed) == ("", [f"{word}: run the same command again to resume"])
        assert commits <= set(workspace.rglob("commits/*.json"))
        if database.exists():
            with sqlite3.connect(database) as found:
                assert "RUNNING" not in {one for (one,) in found.execute("SELECT status FROM runs")}
    done = run(*command(recipe, workspace))
    assert done.returncode == 0, done.stderr
    assert linrep.store.open(str(workspace)).complete


@pytest.mark.slow
def test_twenty_kills_lose_no_row_and_double_none(random_vlm, tmp_path):
    corpora = write_corpora(tmp_path / "corpora", n_images=120, n_texts=60, n_pairs=40)
    recipe = write_recipe(tmp_path, corpora, random_vlm, chunk_size=4)
    done = run(*command(recipe, tmp_path / "whole"))
    assert done.returncode == 0, done.stderr
    check_survival(recipe, tmp_path / "killed", tmp_path / "whole", n_kills=20, seed=0)


@pytest.mark.slow
def test_the_successor_of_a_driver_killed_in_an_object_store_waits_for_its_lease_and_resumes(
    recipe, uninterrupted, bucket, tmp_path
):
    workspace, home = bucket("killed"), {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    driver = subprocess.Popen(
        command(recipe, workspace), cwd=ROOT, env=os.environ | home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    harvests = place(workspace) / "harvests"
    deadline = time.monotonic() + 400
    while not any((harvests / name / "commits").names() for name in harvests.names()):
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline, "no chunk was committed"
        time.sleep(0.05)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    psutil.wait_procs(children, timeout=60)
    (name,) = harvests.names()
    assert not linrep.store.open(workspace).complete
    for lock in (*(place(workspace) / "drivers" / n for n in (place(workspace) / "drivers").names()), harvests / name):
        held = (lock / LOCK).read_json()
        (lock / LOCK).write_json({**held, "time": time.time() - LEASE_SECONDS + 60})  # as if half of that time had passed
    done = run(*command(recipe, workspace), **home)
    assert done.returncode == 0, done.stderr
    assert f"another driver (process {driver.pid} on" in done.stderr
    assert "until it says that it is at work or its lease runs out" in done.stderr
    assert "samples were done before" in done.stderr
    assert_equal(linrep.store.open(workspace), linrep.store.open(str(uninterrupted[0])))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the real photographs are not here (set LINREP_DATA to their folder)")
def test_it_runs_on_real_photographs_and_glosses(random_vlm, tmp_path):
    done = run(
        sys.executable, "jobs/harvest.py", "--config", "recipes/imagenette.yaml",
        "--corpora.images.path", str(DATA / "imagenette/train"), "--corpora.images.per_class", "5",
        "--corpora.text.path", str(DATA / "text/wordnet_glosses.parquet"), "--corpora.text.max_samples", "100",
        "--model.path", random_vlm.path, "--workspace", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    store = linrep.store.open(str(tmp_path))
    assert store.manifest.counts["n_samples"] == 150
    assert store.manifest.counts["n_skipped"] == 0
    assert len(store.select("pooled", 2, "image")) == 50
    assert len(set(store.samples()["class_name"].to_pylist()) - {None}) == 10
