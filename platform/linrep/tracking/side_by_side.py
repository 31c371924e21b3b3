"""Runs beside each other as tables: whole runs, their metrics, and tables that they keep."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from linrep.places import Place, place
from linrep.store.tables import read_foreign
from linrep.tracking.client import open_client, patiently
from linrep.tracking.curves import curves_of
from linrep.tracking.database import file_of
from linrep.tracking.where import EXPERIMENT, tracking_uri

LAYER = re.compile(r"(?:(?<=/)|[_-]|^)layer[-_]?(?P<layer>[0-9]+)(?:/|$|(?=_))")
"""Where a metric's name says its layer: pooled/layer03/top1, fvu_image_topk_layer03."""
_WHICH = ("run", "name", "stage", "status", "parent", "started")


def compare(workspace: Place, stages: Sequence[str] = (), where: str = "") -> pl.DataFrame:
    """All runs side by side: a row a run, the newest first.

    Args:
        workspace: Where they are kept, unless a server is named.
        stages: Which ones (harvest, probe, sae, steer, tune, trial, sharing ...); empty for all.
        where: What else they must satisfy, in MLflow's language: `metrics.fvu_image < 0.1 and params.width = '16384'`.

    Returns:
        `run`, `name`, `stage`, `status`, `parent` (the run that it is part of), `started`, and each parameter, metric and tag of
        ours as `params.width`, `metrics.fvu_image`, `tags.linrep.harvest`; null where a run has none. Of a curve there is the
        last value: the one of the last layer, if it is over layers. `compare_metrics` has all layers.
    """
    rows = [
        {
            **_which(run),
            **{f"params.{name}": value for name, value in sorted(run.data.params.items())},
            **{f"metrics.{name}": value for name, value in sorted(run.data.metrics.items())},
            **{f"tags.{name}": value for name, value in sorted(run.data.tags.items()) if not name.startswith("mlflow.")},
        }
        for run in _runs(workspace, stages, where)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def compare_metrics(workspace: Place, stages: Sequence[str] = (), where: str = "") -> pl.DataFrame:
    """The same with a row for each run, metric and layer, so that layers and stages stand below each other.

    Returns:
        `run`, `name`, `stage`, `status`, `parent`, `started`, `layer`, `metric` and `value`. A curve over layers has a row for
        each of them. Of any other metric there is the last value (after the last step of training, or the most rows); `layer` is
        from its name, and `metric` is the name without it, else from the run's parameter, and null where neither says.
    """
    rows: list[dict[str, Any]] = []
    for run in _runs(workspace, stages, where):
        curves = _curves(workspace, run)
        for name, value in sorted(run.data.metrics.items()):
            for layer, own in curves[name].items() if name in curves else [(_layer(run, name), value)]:
                rows.append({**_which(run), "layer": layer, "metric": LAYER.sub("", name), "value": own})
    kinds = {**dict.fromkeys(_WHICH, pl.String), "started": pl.Int64, "layer": pl.Int64, "metric": pl.String, "value": pl.Float64}
    return pl.DataFrame(rows, schema=kinds)


def compare_tables(workspace: Place, name: str, stages: Sequence[str] = (), where: str = "") -> pl.DataFrame:
    """A table that several runs keep (`tables/front`, `tables/quality` ...), one below the other, with `run_id`, `run_name`."""
    found = []
    runs = _runs(workspace, stages, where)
    client = open_client(tracking_uri(workspace)) if runs else None
    for run in runs:
        assert client is not None
        folder = name.rpartition("/")[0]
        if f"{name}.parquet" in {file.path for file in client.list_artifacts(run.info.run_id, folder or None)}:
            with tempfile.TemporaryDirectory() as copy:
                path = Path(client.download_artifacts(run.info.run_id, f"{name}.parquet", copy))
                frame = pl.DataFrame(pl.from_arrow(read_foreign(place(path))))
            own = (pl.lit(run.info.run_id).alias("run_id"), pl.lit(run.info.run_name).alias("run_name"))
            found.append(frame.with_columns(*own))
    return pl.concat(found, how="diagonal_relaxed") if found else pl.DataFrame()


def _curves(workspace: Place, run: Any) -> dict[str, dict[int, float]]:
    """The metrics of a run that are curves over layers, by layer; of values that a layer had one after the other, the last."""
    uri, names = tracking_uri(workspace), curves_of(run.data.tags, run.data.metrics)
    client, found = open_client(uri) if names else None, {}
    for name in names:
        assert client is not None
        points = patiently(lambda c=client, n=name: c.get_metric_history(run.info.run_id, n), uri)
        by_layer = {point.step: point.value for point in sorted(points, key=lambda point: point.timestamp)}
        found[name] = dict(sorted(by_layer.items()))
    return found


def _layer(run: Any, name: str) -> int | None:
    """The layer that a metric's name or the run's parameter says."""
    said, own = LAYER.search(name), run.data.params.get("layer", "")
    return int(said["layer"]) if said else int(own) if own.isdigit() else None


def _which(run: Any) -> dict[str, Any]:
    tags, info = run.data.tags, run.info
    own = (info.run_id, info.run_name, tags.get("linrep.stage"), info.status, tags.get("mlflow.parentRunId"), info.start_time)
    return dict(zip(_WHICH, own, strict=True))


def _runs(workspace: Place, stages: Sequence[str], where: str) -> list[Any]:
    uri = tracking_uri(workspace)
    file = file_of(uri)
    if file is not None and not file.exists():
        return []  # looking makes no database
    client = open_client(uri)
    experiment = patiently(lambda: client.get_experiment_by_name(EXPERIMENT), uri)
    if experiment is None:
        return []
    found: list[Any] = []
    # MLflow's language has `in`, but not for every store's tags: one question a stage.
    for stage in stages or ("",):
        query = " and ".join(filter(None, [f"tags.`linrep.stage` = '{stage}'" if stage else "", where]))
        token = None
        while True:
            page = patiently(lambda q=query, t=token: client.search_runs([experiment.experiment_id], q, page_token=t), uri)
            found += page
            token = page.token
            if not token:
                break
    return sorted(found, key=lambda run: -run.info.start_time)
