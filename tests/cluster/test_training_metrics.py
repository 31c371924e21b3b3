# ruff: noqa: F811  (fixtures of a neighbour come in by their names)
"""Which measures of training are in MLflow: the plan decides it, not what comes first."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

import linrep.store
from linrep import tracking
from linrep.cluster import train_sae
from linrep.cluster.run_train_sae import MEASURES, SaeStage, reported
from linrep.cluster.train_sae import Event
from linrep.places import place
from linrep.sae.artefact import plan_saes
from linrep.sae.layer import HISTORY, train_layer
from linrep.sae.study import SaeConfig
from linrep.store.tables import read_table
from tests.cluster.test_train_sae import POOL, SAE, one_thread, split_corpora, workspace  # noqa: F401


def stage_of(workspace: Path, folder: Path, **changes: object) -> SaeStage:
    """A stage of two layers, of three steps."""
    config = SaeConfig.model_validate({**SAE.model_dump(), "layers": (0, 2), "rows": 3 * 32, **changes})
    return SaeStage(plan_saes(linrep.store.open(str(workspace)), "t", config, place(folder)), POOL)


def trained(stage: SaeStage, folder: Path, monkeypatch: pytest.MonkeyPatch, order: int = 1):
    """The MLflow run of its training in this process, layers one after the other or from the last to the first."""

    def plainly(jobs, pool) -> Iterator[Event]:
        for job in jobs[::order]:
            yield from (Event(job.layer, what) for what in train_layer(job))

    monkeypatch.setattr(train_sae, "train_on_ray", plainly)
    with tracking.run(place(folder), "sae", "n", "k", {}) as run:
        list(stage.compute(stage.artefact.units, run))
    return MlflowClient(run.uri).get_run(run.id)


@pytest.mark.slow
def test_many_saes_log_a_hundred_metrics_that_the_plan_names_and_a_tag_counts_the_others(
    workspace, tmp_path, one_thread, monkeypatch
):
    found = {}
    for order in (1, -1):
        stage = stage_of(workspace, tmp_path / str(order), grid={"seed": range(6)})
        found[order] = trained(stage, tmp_path / str(order), monkeypatch, order).data
    one, other = found[1], found[-1]
    assert len(one.metrics) == 100
    assert one.metrics.keys() == other.metrics.keys()
    for layer in (0, 2):
        for seed in range(6):
            where = f"layer{layer:02d}/topk-4-x2-s{seed}"
            assert {f"{where}/{name}" for name in ("loss", "fvu/image", "fvu/text", "l0/image", "l0/text", "dead")} < set(
                one.metrics
            )
    assert one.tags["linrep.metrics_in_tables_alone"] == other.tags["linrep.metrics_in_tables_alone"] == str(2 * 6 * 12 - 100)
    for layer in (0, 2):
        table = read_table(stage.plan.artefact.place / f"layer-{layer:03d}", f"{HISTORY}.parquet")
        assert set(table["measure"].to_pylist()) == set(MEASURES)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "absent"), [(0.5, None), (0.0, "text"), (1.0, "image")])
def test_few_saes_log_all_that_they_report_which_is_what_the_plan_names(
    share, absent, workspace, tmp_path, one_thread, monkeypatch
):
    stage = stage_of(workspace, tmp_path, data={**SAE.data.model_dump(), "text_share": share})
    data = trained(stage, tmp_path, monkeypatch).data
    names = reported(stage.plan.jobs)
    assert data.metrics.keys() == set(names)
    assert len(names) == len(set(names)) == 2 * 2 * (12 if absent is None else 9)
    assert not [name for name in names if absent is not None and name.endswith(absent)]
    assert "linrep.metrics_in_tables_alone" not in data.tags
