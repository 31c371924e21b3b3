"""Trained SAEs in MLflow: as models that are found by what they are, with curves over layers for each name."""

import math

import pytest
from mlflow import MlflowClient

from linrep import tracking
from linrep.places import place
from linrep.tracking import Model

PARAMS = {"architecture": "topk", "sparsity": 16, "width": 512}


def saes() -> list[Model]:
    """Two SAEs at two layers; one is not finite."""
    return [
        Model("topk-16-x8-s0", 2, PARAMS, {"fvu_image": 0.25, "l0_image": 16.0}),
        Model("topk-16-x8-s0", 4, PARAMS, {"fvu_image": 0.125, "l0_image": math.nan}),
        Model("topk-16-x0.5-s0", 4, {**PARAMS, "width": 32}, {"fvu_image": 0.5, "l0_image": 8.0}),
    ]


def log(here, models) -> tracking.Run:
    with tracking.run(here, "sae", "saes", "k", {}, {"harvest": "abc"}) as run:
        tracking.log_models(run, models)
    return run


def test_an_sae_is_a_model_found_by_its_parameters_and_metrics(tmp_path):
    run = log(place(tmp_path), saes())
    client = MlflowClient(run.uri)
    found = {model.name: model for model in client.search_logged_models(["1"])}
    assert found.keys() == {"topk-16-x8-s0-layer-2", "topk-16-x8-s0-layer-4", "topk-16-x0_5-s0-layer-4"}
    one = found["topk-16-x8-s0-layer-2"]
    assert one.status == "READY"
    assert one.params == {"sae": "topk-16-x8-s0", "layer": "2", "architecture": "topk", "sparsity": "16", "width": "512"}
    assert {(metric.key, metric.value) for metric in one.metrics} == {("fvu_image", 0.25), ("l0_image", 16.0)}
    good = client.search_logged_models(["1"], "params.layer = '4' AND metrics.fvu_image < 0.3")
    assert [model.name for model in good] == ["topk-16-x8-s0-layer-4"]


def test_the_saes_of_a_name_are_one_run_with_curves_over_layers(tmp_path):
    run = log(place(tmp_path), saes())
    client = MlflowClient(run.uri)
    below = {one.info.run_name: one for one in client.search_runs(["1"], f"tags.`{tracking.PARENT}` = '{run.id}'")}
    assert below.keys() == {"topk-16-x8-s0", "topk-16-x0.5-s0"}
    one = below["topk-16-x8-s0"]
    assert (one.info.status, one.data.params["sparsity"]) == ("FINISHED", "16")
    curve = client.get_metric_history(one.info.run_id, "fvu_image")
    assert [(point.step, point.value) for point in curve] == [(2, 0.25), (4, 0.125)]
    assert [read.dataset.digest for read in one.inputs.dataset_inputs] == ["abc"]
    alone = below["topk-16-x0.5-s0"]  # one layer: a bar, and no curve of one point
    assert [point.step for point in client.get_metric_history(alone.info.run_id, "fvu_image")] == [0]
    assert alone.data.params["layer"] == "4"
    assert set(tracking.compare_metrics(place(tmp_path), ["one_sae"])["layer"]) == {2, 4}


def test_models_are_logged_once_however_often_the_job_is_stopped_and_resumed(tmp_path, monkeypatch):
    real, left = MlflowClient.finalize_logged_model, [1]

    def stopped(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "finalize_logged_model", stopped)
        with pytest.raises(KeyboardInterrupt):
            log(place(tmp_path), saes())  # the second has its metrics, and is not finished
    for _ in range(2):
        run = log(place(tmp_path), saes())
    client = MlflowClient(run.uri)
    found = client.search_logged_models(["1"])
    assert sorted((model.name, model.status) for model in found) == sorted((model.name, "READY") for model in saes())
    (second,) = [model for model in found if model.name == "topk-16-x8-s0-layer-4"]
    assert [(metric.key, metric.value) for metric in second.metrics or []] == [("fvu_image", 0.125)]
    assert len(client.get_metric_history(second.source_run_id, "fvu_image")) == 2
