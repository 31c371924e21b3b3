"""Runs below a run, and runs side by side."""

import math

import pyarrow as pa
import pytest
from mlflow import MlflowClient

from linrep import tracking
from linrep.places import Place, place
from tests.test_tracking import server  # noqa: F401

POINTS = [(100, {"fvu_image": 0.4, "l0_image": 8.0}), (200, {"fvu_image": 0.2, "l0_image": math.inf})]


def log_run(run: tracking.Run, name: str, width: int, failed: bool = False) -> tracking.Run:
    params = {"width": width, "layer": 4}
    return run.child("trial", name, f"key {name}", params, {"linrep.harvest": "abc"}, POINTS, failed)


def search(here: Place) -> tracking.Run:
    with tracking.run(here, "tune", "search", "k", {"name": "demo"}) as run:
        log_run(run, "narrow", 64)
        log_run(run, "wide", 256, failed=True)
        run.table("tables/front", pa.table({"candidate": ["narrow"], "fvu": [0.2]}))
    return run


def test_a_part_that_was_told_is_not_told_again(tmp_path):
    here = place(tmp_path)
    search(here)
    with tracking.run(here, "tune", "search", "k", {"name": "demo"}) as run:
        again = log_run(run, "narrow", 64)
    client = MlflowClient(run.uri)
    found = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{run.id}'")
    assert {r.info.run_name: r.info.status for r in found} == {"narrow": "FINISHED", "wide": "FAILED"}
    points = client.get_metric_history(again.id, "fvu_image")
    assert sorted((p.step, p.value) for p in points) == [(100, 0.4), (200, 0.2)]
    assert client.get_run(again.id).data.metrics["l0_image"] == 8.0  # what is not finite is left out


def test_a_part_whose_driver_died_in_the_middle_gets_no_point_twice(tmp_path, monkeypatch):
    here = place(tmp_path)
    with tracking.run(here, "tune", "search", "k", {}) as run:
        with monkeypatch.context() as patch:

            def die(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(MlflowClient, "set_terminated", die)
            with pytest.raises(KeyboardInterrupt):
                log_run(run, "narrow", 64)
        child = log_run(run, "narrow", 64)
    client = MlflowClient(run.uri)
    assert [(p.step, p.value) for p in client.get_metric_history(child.id, "fvu_image")] == [(100, 0.4), (200, 0.2)]
    assert client.get_run(child.id).info.status == "FINISHED"


def test_runs_of_all_stages_stand_side_by_side(tmp_path):
    here = place(tmp_path)
    run = search(here)
    with tracking.run(here, "probe", "probes", "k", {"probe": {"views": "pooled"}}) as probe:
        probe.metrics({"pooled/layer03/top1": 0.5, "seconds": 2.0})
    every = tracking.compare(here)
    assert sorted(every["stage"]) == ["probe", "trial", "trial", "tune"]
    trials = tracking.compare(here, ["trial"], "metrics.fvu_image < 0.3 and params.width = '64'")
    assert trials.select("name", "params.width", "metrics.fvu_image", "tags.linrep.harvest").rows() == [
        ("narrow", "64", 0.2, "abc")
    ]
    assert trials["parent"].to_list() == [run.id]
    long = tracking.compare_metrics(here, ["probe", "trial"])
    rows = set(long.select("stage", "name", "layer", "metric", "value").rows())
    assert ("probe", "probes", 3, "pooled/top1", 0.5) in rows
    assert ("probe", "probes", None, "seconds", 2.0) in rows
    assert ("trial", "narrow", 4, "fvu_image", 0.2) in rows
    assert long.columns[-3:] == ["layer", "metric", "value"]
    tables = tracking.compare_tables(here, "tables/front")
    assert tables.select("candidate", "fvu", "run_id").rows() == [("narrow", 0.2, run.id)]
    assert not len(tracking.compare_tables(here, "tables/none"))


def test_every_layer_of_a_curve_has_a_row_and_a_number_of_the_whole_run_has_no_layer(tmp_path):
    here = place(tmp_path)
    with tracking.run(here, "probe", "probes", "k", {}) as run:
        run.measures({"top1/class": {0: 0.25, 4: 0.5, 8: math.nan}, "n_rows": 7.0, "one": {0: 0.125}})
    with tracking.run(here, "evaluate", "saes", "k", {}) as run:
        model = tracking.Model("topk-16", 2, {"width": 64}, {"fvu_image": 0.5})
        tracking.log_models(run, [model, tracking.Model("topk-16", 4, {"width": 64}, {"fvu_image": 0.25})])
    frame = tracking.compare_metrics(here)
    assert set(frame.select("stage", "layer", "metric", "value").rows()) == {
        ("probe", 0, "top1/class", 0.25),
        ("probe", 4, "top1/class", 0.5),
        ("probe", None, "n_rows", 7.0),
        ("probe", 0, "one", 0.125),
        ("one_sae", 2, "fvu_image", 0.5),
        ("one_sae", 4, "fvu_image", 0.25),
    }
    assert frame.height == 6
    assert tracking.compare(here, ["probe"])["metrics.top1/class"].to_list() == [0.5]  # the last layer's


def test_of_a_layer_that_was_logged_again_the_last_value_counts(tmp_path, monkeypatch):
    """Verdicts of people are logged each time that more of them are there."""
    here = place(tmp_path)
    with tracking.run(here, "judge", "verdicts", "k", {}) as run:
        for now, value in ((1.0, 0.75), (2.0, 0.25)):
            monkeypatch.setattr(tracking.runs.time, "time", lambda now=now: now)
            run.measures({"turned": {2: value, 4: 0.5}})
    assert tracking.compare_metrics(here).select("layer", "value").rows() == [(2, 0.25), (4, 0.5)]


def test_where_nothing_was_run_there_is_an_empty_frame(tmp_path):
    assert not len(tracking.compare(place(tmp_path)))
    assert tracking.compare_metrics(place(tmp_path)).columns[-2:] == ["metric", "value"]


@pytest.mark.slow
def test_a_server_that_restarts_in_a_search_loses_no_part_and_hands_out_its_files(server, tmp_path, monkeypatch):  # noqa: F811
    import threading

    start, stop = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", start())
    here = place(tmp_path / "w")
    with tracking.run(here, "tune", "search", "k", {}) as run:
        log_run(run, "before", 64)
        stop()
        back = threading.Timer(3, start, kwargs={"wait": False})
        back.start()
        log_run(run, "during", 256)
        run.table("tables/front", pa.table({"candidate": ["during"]}))
        back.join()
    frame = tracking.compare(here, ["trial"])
    assert dict(frame.select("name", "metrics.fvu_image").rows()) == {"before": 0.2, "during": 0.2}
    assert tracking.compare_tables(here, "tables/front")["candidate"].to_list() == ["during"]  # proxied by the server
