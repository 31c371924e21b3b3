"""Tracking: one run per artefact, found again; nothing lost while a server is away."""

import csv
import math
import os
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from unittest.mock import MagicMock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

import linrep.retry
from linrep import tracking
from linrep.cluster.stage import Outcome
from linrep.errors import ServiceError
from linrep.explorer.figures import Curve, Panel, panels
from linrep.places import place
from linrep.recipe import Request, validate
from linrep.sheets import unguarded
from linrep.tracking import client, runs, source


def runs_of(uri: str) -> list:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(tracking.EXPERIMENT)
    return client.search_runs([found.experiment_id]) if found else []


def test_the_same_key_continues_the_same_run(tmp_path):
    here = place(tmp_path)
    for value in (1.0, 2.0):
        with tracking.run(here, "harvest", "name", "key", {"a": {"b": 3}}, {"model": "m"}) as run:
            run.metrics({"n": value})
    with tracking.run(here, "probe", "name", "key", {}) as other:
        pass
    by_stage = {r.data.tags["linrep.stage"]: r for r in runs_of(run.uri)}
    assert by_stage.keys() == {"harvest", "probe"}
    first = by_stage["harvest"]
    assert first.data.params == {"a.b": "3"}
    assert first.data.metrics == {"n": 2.0}
    assert first.data.tags["linrep.parent.model"] == "m"
    assert first.info.status == "FINISHED"
    assert other.id != run.id


def test_a_failed_job_is_marked_with_its_reason(tmp_path):
    here = place(tmp_path)

    def fail() -> None:
        with tracking.run(here, "harvest", "n", "k", {}):
            raise ValueError("no such luck")

    with pytest.raises(ValueError, match="no such luck"):
        fail()
    (run,) = runs_of(tracking.tracking_uri(here))
    assert run.info.status == "FAILED"
    assert run.data.tags["linrep.error"] == "no such luck"


def test_the_reason_of_a_failure_does_not_stay_on_a_run_that_succeeds_later(tmp_path):
    here = place(tmp_path)
    with pytest.raises(ValueError, match="no luck"), tracking.run(here, "harvest", "n", "k", {}):
        raise ValueError("no luck")
    with tracking.run(here, "harvest", "n", "k", {}):
        pass
    (run,) = runs_of(tracking.tracking_uri(here))
    assert run.info.status == "FINISHED"
    assert "linrep.error" not in run.data.tags


def test_a_run_that_was_made_but_not_confirmed_is_not_made_again(tmp_path, monkeypatch):
    """The server makes the run and goes away before it has said so: for a job's run, and for a part of one."""
    real, calls = MlflowClient.create_run, []

    def made_but_not_said(*args: object, **kwargs: object) -> object:
        found = real(*args, **kwargs)  # type: ignore[arg-type]
        calls.append(found)
        if len(calls) % 2:
            raise OSError("connection reset")
        return found

    monkeypatch.setattr(client, "PAUSES", (0.01,))
    monkeypatch.setattr(MlflowClient, "create_run", made_but_not_said)
    with tracking.run(place(tmp_path), "tune", "n", "k", {}) as run:
        calls.append(None)  # the next one fails the first time, too
        child = run.child("trial", "part", "key", {"width": 64}, {}, [(1, {"fvu": 0.5})])
    assert sorted(r.info.run_id for r in runs_of(run.uri)) == sorted([run.id, child.id])


def test_a_server_that_takes_a_minute_to_come_back_loses_nothing(tmp_path, monkeypatch):
    """By a clock that only the pauses move: each request in that minute fails at once."""
    clock, real = [0.0], MlflowClient.log_batch

    def pause(seconds: float) -> None:
        clock[0] += seconds

    def away(*args: object, **kwargs: object) -> None:
        if clock[0] < 60:
            raise OSError("connection refused")
        real(*args, **kwargs)  # type: ignore[arg-type]

    with tracking.run(place(tmp_path), "harvest", "n", "k", {}) as run:
        monkeypatch.setattr(linrep.retry.time, "sleep", pause)
        monkeypatch.setattr(MlflowClient, "log_batch", away)
        run.metrics({"during": 2.0})
    (found,) = runs_of(run.uri)
    assert found.data.metrics == {"during": 2.0}


def test_how_to_look_at_runs_depends_on_where_they_are_kept():
    address = ["--backend-store-uri", "sqlite:////my runs/mlflow.db"]
    (python, *words) = shlex.split(tracking.pages(address[1]))
    assert os.path.samefile(python, sys.executable)
    assert words == ["-m", "mlflow", "ui", "--workers", "1", *address]
    assert tracking.pages("https://me:secret@host:5000/x") == "MLflow's pages are at https://host:5000/x"


PAGES = ("ask", "explore", "plan")  # they show what other jobs recorded, or what one will take, and record no run
RECORDED = [job for job in sorted((Path(__file__).parents[1] / "jobs").glob("*.py")) if job.stem not in PAGES]


@pytest.mark.parametrize("job", RECORDED, ids=lambda job: job.stem)
def test_every_job_that_records_a_run_ends_by_saying_where_a_server_has_its_pages(job, monkeypatch, tmp_path, capsys):
    recipe = validate({"name": "t", "corpora": {"text": {"path": "x"}}, "model": {"path": "m"}}, "t")
    uri = "http://me:secret@host:5000"
    outcome = MagicMock(tracking_uri=uri, uri=uri, n_new=1, n_tested=1, waiting=None)
    outcome.__class__ = Outcome  # what moved stages report is checked at run time
    runs = "reproduce" if job.stem == "reproduce" else f"run_{job.stem}"
    monkeypatch.setitem(sys.modules, f"linrep.cluster.{runs}", MagicMock(**{f"{runs}.return_value": outcome}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    runpy.run_path(str(job), run_name="job")["main"](Request(recipe, str(tmp_path), config="r.yaml"))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  compare:")]
    assert line.split(maxsplit=1)[1] == "MLflow's pages are at http://host:5000"


def test_artifacts_lie_beside_the_database(tmp_path):
    with tracking.run(place(tmp_path), "harvest", "n", "k", {}) as run:
        run.json({"x": 1}, "manifest.json")
        run.text("hello", "notes/hello.txt")
    assert {p.name for p in (tmp_path / "mlartifacts").rglob("*.*")} == {"manifest.json", "hello.txt"}


def test_a_figure_and_a_table_are_kept_in_forms_that_people_open(tmp_path):
    table = pa.table({"layer": [0, 1], "top1": [0.25, 0.5]})
    with tracking.run(place(tmp_path), "probe", "n", "k", {}) as run:
        curve = Curve("ridge", (0.0, 1.0), (0.2, 0.5))
        run.figure("figures/layers.png", panels("", [Panel("t", "layer", "top-1", (curve,))]))
        run.table("tables/probes", table)
    kept = {p.relative_to(p.parents[1]).as_posix(): p for p in (tmp_path / "mlartifacts").rglob("*.*")}
    assert kept["figures/layers.png"].read_bytes().startswith(b"\x89PNG")
    assert kept["tables/probes.csv"].read_text().splitlines() == ['"layer","top1"', "0,0.25", "1,0.5"]
    assert pq.read_table(kept["tables/probes.parquet"]).equals(table)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_a_table_for_people_runs_nothing_in_a_spreadsheet(tmp_path, kind):
    """Class names come from a corpus; the parquet beside it holds them as they are."""
    names = ['=HYPERLINK("x")', "-1+1", "@x", "+x", "boat", None]
    table = pa.table({"class": pa.array(names, kind), "value": [-1.5, 2.0, 3.0, 4.0, 5.0, 6.0]})
    with tracking.run(place(tmp_path), "probe", "n", "k", {}) as run:
        run.table("tables/probes", table)
    kept = {p.name: p for p in (tmp_path / "mlartifacts").rglob("probes.*")}
    with kept["probes.csv"].open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert not any(cell.startswith(("=", "-", "@", "+")) for cell, _ in rows)
    assert [unguarded(cell) for cell, _ in rows] == [*names[:-1], ""]
    assert [float(value) for _, value in rows] == table["value"].to_pylist()
    assert pq.read_table(kept["probes.parquet"])["class"].to_pylist() == names


def test_lists_in_a_table_for_people_stand_in_one_guarded_cell(tmp_path):
    table = pa.table({"places": [[0, 7], [], None], "words": [["=1+1", "x"], ["boat", "cup"], ["a"]]})
    with tracking.run(place(tmp_path), "probe", "n", "k", {}) as run:
        run.table("tables/probes", table)
    kept = {p.name: p for p in (tmp_path / "mlartifacts").rglob("probes.*")}
    with kept["probes.csv"].open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [[unguarded(cell) for cell in row] for row in rows] == [["0 7", "=1+1 x"], ["", "boat cup"], ["", "a"]]
    assert not any(cell.startswith("=") for row in rows for cell in row)
    assert pq.read_table(kept["probes.parquet"]).equals(table)


def test_a_key_in_a_uri_does_not_become_a_parameter(tmp_path):
    with tracking.run(place(tmp_path), "harvest", "n", "k", {"path": "s3://AKIA:topsecret@bucket/images?region=x"}):
        pass
    (run,) = runs_of(tracking.tracking_uri(place(tmp_path)))
    assert run.data.params == {"path": "s3://bucket/images"}


def test_a_run_whose_first_job_died_early_gets_its_parameters_from_the_next(tmp_path, monkeypatch):
    here = place(tmp_path)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_log_params", die)
        with pytest.raises(KeyboardInterrupt), tracking.run(here, "harvest", "n", "k", {"a": 1}):
            pass
    with tracking.run(here, "harvest", "n", "k", {"a": 1}):
        pass
    (run,) = runs_of(tracking.tracking_uri(here))
    assert run.data.params == {"a": "1"}


def test_a_parameter_that_a_later_job_changes_is_a_tag_beside_the_first(tmp_path):
    for threads in (1, 2):
        with tracking.run(place(tmp_path), "harvest", "n", "k", {"pool": {"threads": threads}, "seed": 0}):
            pass
    (run,) = runs_of(tracking.tracking_uri(place(tmp_path)))
    assert run.data.params == {"pool.threads": "1", "seed": "0"}
    assert {k: v for k, v in run.data.tags.items() if k.startswith("linrep.now.")} == {"linrep.now.pool.threads": "2"}


@pytest.mark.parametrize("cause", [ValueError("the disk is full"), KeyboardInterrupt()])
def test_a_server_that_died_meanwhile_does_not_hide_why_the_job_ended(tmp_path, monkeypatch, cause):
    monkeypatch.setattr(client, "PAUSES", ())

    def gone(*_: object, **__: object) -> None:
        raise OSError("connection refused")

    def job() -> None:
        with tracking.run(place(tmp_path), "harvest", "n", "k", {}):
            for name in ("log_batch", "set_terminated"):
                monkeypatch.setattr(MlflowClient, name, gone)
            raise cause

    with pytest.raises(type(cause)) as caught:
        job()
    assert caught.value is cause
    assert "connection refused" in " ".join(cause.__notes__)


def test_code_that_is_no_checkout_takes_its_commit_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "__file__", str(tmp_path / "uploaded" / "tracking.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.delenv(tracking.COMMIT, raising=False)
    assert source.git() == {}
    monkeypatch.setenv(tracking.COMMIT, f"{'ab' * 20}-dirty")
    assert source.git() == {"git.commit": "ab" * 20, "git.changed": "true", "mlflow.source.git.commit": "ab" * 20}
    monkeypatch.setenv(tracking.COMMIT, "cd" * 20)
    with tracking.run(place(tmp_path), "harvest", "n", "k", {}):
        pass
    (run,) = runs_of(tracking.tracking_uri(place(tmp_path)))
    assert (run.data.tags["git.commit"], run.data.tags["git.changed"]) == ("cd" * 20, "false")


def test_at_most_a_hundred_metrics_are_logged_the_first_ones_and_a_tag_counts_the_others(tmp_path):
    curves = {f"curve{i}": {0: float(i), 3: float(i + 1)} for i in range(130)}
    with tracking.run(place(tmp_path), "probe", "n", "k", {}) as run:
        run.measures({"none": float("nan"), "empty": {2: float("inf")}, **curves})
    (found,) = runs_of(run.uri)
    assert found.data.metrics.keys() == {f"curve{i}" for i in range(100)}
    points = MlflowClient(run.uri).get_metric_history(run.id, "curve99")
    assert [(point.step, point.value) for point in points] == [(0, 99.0), (3, 100.0)]
    assert found.data.tags["linrep.metrics_in_tables_alone"] == "30"


def test_no_metric_is_a_single_point_a_curve_of_one_layer_is_a_bar_named_by_its_layer(tmp_path):
    with tracking.run(place(tmp_path), "probe", "n", "k", {}) as run:
        run.measures({"top1": {0: 0.25, 4: 0.5}, "f1": {4: 0.75}, "ground": {0: math.nan, 2: 0.125}, "n": 3.0})
    client = MlflowClient(run.uri)
    found = {
        name: [(point.step, point.value) for point in client.get_metric_history(run.id, name)]
        for name in client.get_run(run.id).data.metrics
    }
    assert found == {
        "top1": [(0, 0.25), (4, 0.5)], "f1_layer04": [(0, 0.75)], "ground_layer02": [(0, 0.125)], "n": [(0, 3.0)],
    }  # fmt: skip
    layers = set(tracking.compare_metrics(place(tmp_path)).select("metric", "layer").rows())
    assert layers == {("top1", 0), ("top1", 4), ("f1", 4), ("ground", 2), ("n", None)}


def test_a_run_says_who_ran_which_script_of_which_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/jobs/probe.py", "--config", "r.yaml"])
    monkeypatch.setenv("LOGNAME", "ada")
    with tracking.run(place(tmp_path), "tune", "n", "k", {}) as run:
        run.child("trial", "part", "p", {}, {}, [])
    found = runs_of(run.uri)
    assert len(found) == 2
    for one in found:
        tags = one.data.tags
        assert (tags["mlflow.source.name"], tags["mlflow.source.type"], tags["mlflow.user"]) == ("jobs/probe.py", "JOB", "ada")
        assert tags.get("mlflow.source.git.commit") == source.git().get("git.commit")


def test_the_runs_that_read_a_harvest_are_found_by_its_digest(tmp_path):
    """A search by dataset is what MLflow's pages do when the dataset is clicked."""
    here = place(tmp_path)
    (tmp_path / "harvests/demo-abc").mkdir(parents=True)
    with tracking.run(here, "harvest", "h", "k", {}, {"model": "m"}) as harvest:
        harvest.reads(here, "harvest", ["abc"])
    for _ in range(2):  # a resumed run reads it once
        with tracking.run(here, "probe", "p", "k", {}, {"harvest": "abc", "attributes": "a"}) as probe:
            pass
    with tracking.run(here, "sharing", "s", "k", {}, {"harvest": "abc", "untrained": "xyz"}) as sharing:
        pass
    with tracking.run(here, "tune", "t", "k", {}, {"harvest": "xyz"}) as tune:
        trial = tune.child("trial", "part", "p", {}, {}, [])
    asked = MlflowClient(tune.uri)

    def readers(digest: str) -> set[str]:
        return {run.info.run_id for run in asked.search_runs(["1"], f"dataset.digest = '{digest}'")}

    assert readers("abc") == {harvest.id, probe.id, sharing.id}
    assert readers("xyz") == {sharing.id, tune.id, trial.id}
    assert readers("m") == set()
    (read,) = asked.get_run(probe.id).inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.source) == ("harvest", '{"uri": "harvests/demo-abc"}')
    assert [(tag.key, tag.value) for tag in read.tags] == [("mlflow.data.context", "probe")]
    assert {len(asked.get_run(one.id).inputs.dataset_inputs) for one in (harvest, tune, trial)} == {1}


def test_a_run_that_is_kept_elsewhere_than_its_results_is_announced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = place("s3://key:secret@bucket/folder?region=eu")
    assert tracking.notice(place(tmp_path)) is None
    said = tracking.notice(elsewhere) or ""
    assert f"{tmp_path}/mlflow.db" in said
    assert "MLFLOW_TRACKING_URI" in said
    assert "secret" not in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking.notice(elsewhere) is None


@pytest.fixture
def server(tmp_path):
    """Starts, and starts again, a real MLflow server on loopback; every start is ended by its own process group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    started: list[subprocess.Popen] = []

    def start(wait: bool = True) -> str:
        words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path / "files")]
        log = (tmp_path / "server.log").open("w")
        started.append(subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True))
        deadline = time.monotonic() + 90
        while wait:
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=1)
                break
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
        return uri

    def stop() -> None:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)

    yield start, stop
    stop()


@pytest.mark.slow
def test_a_server_that_restarts_loses_no_metric(server, tmp_path, monkeypatch):
    start, stop = server
    uri = start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with tracking.run(place(tmp_path / "w"), "harvest", "n", "k", {"a": 1}) as run:
        run.metrics({"before": 1})
        stop()
        back = threading.Timer(3, start, kwargs={"wait": False})
        back.start()
        run.metrics({"during": 2})
        run.json({"x": 1}, "manifest.json")
        back.join()
    (found,) = runs_of(uri)
    assert found.data.metrics == {"before": 1.0, "during": 2.0}
    assert found.info.status == "FINISHED"
    assert [p.name for p in Path(tmp_path / "files").rglob("manifest.json")]


def test_a_server_that_is_not_there_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(client, "PAUSES", (0.01,))
    with (
        pytest.raises(ServiceError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"),
        tracking.run(place(tmp_path), "harvest", "n", "k", {}),
    ):
        pass
