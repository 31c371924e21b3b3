"""A signal at any moment of a run's life leaves no run that nobody closes, and the same job goes on in the same runs."""

import pytest
from mlflow import MlflowClient

from linrep import tracking
from linrep.places import place
from linrep.tracking import runs


def work(folder, key: str) -> str:
    with tracking.run(place(folder), "tune", "n", key, {"a": 1}, {"harvest": "h"}) as run:
        run.child("trial", "t", key, {"b": 2}, {"linrep.status": "finished"}, [(0, {"loss": 1.0}), (8, {"loss": 0.5})])
        run.metrics({"x": 1.0})
    return run.uri


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_interrupted_at_any_request_no_run_is_left_open_and_the_next_goes_on_in_it(tmp_path, monkeypatch, moment):
    asked, left = runs.patiently, 10**6

    def patiently(call, uri, pauses=None):
        nonlocal left
        left -= 1
        if left == 0 and moment == "before":
            raise KeyboardInterrupt
        found = asked(call, uri, pauses)
        if left == 0:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(runs, "patiently", patiently)
    client = MlflowClient(work(tmp_path, "whole"))
    n = 10**6 - left
    assert n >= 10
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for i in range(1, n + 1):
        left = i
        with pytest.raises(KeyboardInterrupt):
            work(tmp_path, f"k{i}")
        assert "RUNNING" not in {run.info.status for run in client.search_runs(experiments)}, i
        left = 10**6
        work(tmp_path, f"k{i}")
        own = [run for run in client.search_runs(experiments) if run.data.tags["linrep.key"] == f"k{i}"]
        assert {run.data.tags["linrep.stage"]: run.info.status for run in own} == {"tune": "FINISHED", "trial": "FINISHED"}
        assert len(own) == 2
        (trial,) = [run for run in own if run.data.tags["linrep.stage"] == "trial"]
        history = client.get_metric_history(trial.info.run_id, "loss")
        assert sorted((point.step, point.value) for point in history) == [(0, 1.0), (8, 0.5)]
