"""`make ui`: pages over a database, or where a server has its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from linrep import tracking
from linrep.places import place
from linrep.tracking.database import file_of, prepared
from tests.make import ROOT, run_make, stand_in


@pytest.fixture
def make(tmp_path):
    """Runs `make ui` in a virtual environment whose mlflow only says what it was asked for."""
    programs = {"pip": 'echo "$0 $@"', "mlflow": 'echo "$0 $@"', "python": f'exec "{sys.executable}" "$@"'}
    venv = stand_in(tmp_path, programs, (".installed",))

    def run(uri: str, workspace: Path, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        words = ["ui", f"VENV={venv}", f"WORKSPACE={workspace}", *more]
        return run_make(words, **variables, MLFLOW_TRACKING_URI=uri, PYTHONPATH=str(ROOT / "platform"))

    return run


def test_a_server_is_pointed_at_and_not_opened_a_second_time(make, tmp_path):
    done = make("http://me:secret@127.0.0.1:5000", tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "MLflow's pages are at http://127.0.0.1:5000")


def test_a_database_is_opened_and_where_there_is_none_the_jobs_that_make_one_are_named(make, tmp_path):
    done = make("", tmp_path)
    assert done.returncode != 0
    assert "run 'make demo', or a job with your recipe, first" in done.stderr
    (tmp_path / "mlflow.db").touch()
    done = make("", tmp_path)
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in done.stdout
    done = make(f"sqlite:///{tmp_path}/other.db", tmp_path)
    assert done.returncode != 0
    assert f"no results in sqlite:///{tmp_path}/other.db" in done.stderr
    (tmp_path / "other.db").touch()
    done = make(f"sqlite:///{tmp_path}/other.db", tmp_path)
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/other.db" in done.stdout


def test_the_link_to_the_runs_is_printed_and_no_browser_is_opened(make, tmp_path):
    """The experiment is not always the first: here the database has another before it."""
    prepared(tmp_path / "mlflow.db", "of somebody else")
    with tracking.run(place(tmp_path), "probe", "p", "k", {}) as run:
        pass
    number = MlflowClient(run.uri).get_run(run.id).info.experiment_id
    assert number == "2"
    (tmp_path / "venv/bin/browser").write_text(f"#!/bin/sh\ntouch {tmp_path}/opened\n")
    (tmp_path / "venv/bin/browser").chmod(0o755)
    done = make("", tmp_path, BROWSER=f"{tmp_path}/venv/bin/browser")
    assert done.stderr.strip() == "The runs: http://127.0.0.1:5000/#/experiments/2"
    assert "mlflow ui --backend-store-uri" in done.stdout
    assert "The runs: http://127.0.0.1:5001/#/experiments/2" in make("", tmp_path, "ARGS=--port 5001 --dev").stderr
    assert not (tmp_path / "opened").exists()


def test_a_workspace_may_have_any_name(make, tmp_path):
    odd = tmp_path / "my runs? 'q' [x] %25"
    odd.mkdir()
    (odd / "mlflow.db").touch()
    done = make("", odd)
    assert done.stdout.split()[-3].startswith("sqlite"), done.stderr
    assert file_of(done.stdout.split()[-3]) == odd / "mlflow.db"
    done = make("", tmp_path / "-none 'such")
    assert done.returncode != 0
    assert "no results in" in done.stderr
