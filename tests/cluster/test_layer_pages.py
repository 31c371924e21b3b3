"""What the pages of MLflow show of two runs of a stage: a metric of both, as two curves over layers."""

import json
import re
import uuid
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import polars as pl
import pytest
from jaxtyping import Bool
from mlflow import MlflowClient
from mlflow.store.tracking import sqlalchemy_store
from scipy import ndimage

from linrep import tracking
from linrep.cluster.run_probe import ProbeStage
from linrep.cluster.stage import run_stage
from linrep.harvest.config import Pool
from linrep.places import place
from linrep.probe.artefact import plan_probes
from linrep.probe.study import plan_study
from tests.cluster.test_probe import CONFIG
from tests.pages import browse, like, needs_chromium, pages_of, pixels_of
from tests.probe.planted import write_planted

METRIC = "auroc/class_image_pooled_ridge"
"""One of those that the comparison lists first: it shows the others as it is scrolled."""
IDS = ("42cac75175a146ff97dead8c283fb2eb", "a9fe80e013234d8e85892e2618704b8d")
"""Of the runs: MLflow takes one of 29 colours by a run's id, which may be the same for both, or that of its own links."""
WIDE = "--window-size=2000,1000"
"""A narrower window shows the left part of the chart, and scrolls."""
NOISE = {"falling": {0: 1.0, 1: 1.5, 2: 3.0, 3: 6.0}, "rising": {0: 8.0, 1: 5.0, 2: 3.5, 3: 2.0}}
"""By run and layer. On the right no curve is at its height: MLflow's buttons lie there, over the chart."""


def probed(name: str, folder: Path, workspace: Path) -> str:
    """The probes of a planted store as a job makes them; returns where its run is kept."""
    config = CONFIG.model_copy(update={"views": ("pooled",), "softmax": None, "sparse": ()})
    study = plan_study(write_planted(folder / name, n_images=180, noise=NOISE[name]), config)
    return run_stage(ProbeStage(plan_probes(place(workspace), name, study), study, Pool(threads=1)), place(workspace)).uri


def with_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runs that are begun now have `IDS`."""
    create, ids = MlflowClient.create_run, iter(IDS)

    def begun(*args, **kwargs):
        with monkeypatch.context() as patch:
            own = uuid.UUID(next(ids))
            patch.setattr(sqlalchemy_store, "uuid", SimpleNamespace(uuid4=lambda: own))
            return create(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", begun)


def parts(mask: Bool[np.ndarray, "h w"]) -> tuple[Bool[np.ndarray, "h w"], int]:
    """What is of a curve among the pixels of its colour, and how many dashes of the legend are: flat, and 24 pixels long."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    n_dashes, curve = 0, mask.copy()
    for i, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        if rows.stop - rows.start <= 4 and 22 <= columns.stop - columns.start <= 26:
            n_dashes += 1
            curve[labels == i] = False
    return curve, n_dashes


@pytest.mark.slow
@needs_chromium
@pytest.mark.usefixtures("local_ray")
def test_two_runs_compare_as_two_curves_over_layers(tmp_path, monkeypatch):
    """From the comparison of two runs, the link of a metric leads to a chart of two lines, with layers along x."""
    workspace = tmp_path / "w"
    with_ids(monkeypatch)
    uris = {probed(name, tmp_path, workspace) for name in NOISE}
    frame = tracking.compare_metrics(place(workspace), ["probe"]).filter(pl.col("metric") == METRIC)
    names = frame["name"].unique(maintain_order=True).to_list()
    values = {name: dict(frame.filter(pl.col("name") == name).select("layer", "value").iter_rows()) for name in names}
    assert [list(curve) for curve in values.values()] == [[0, 1, 2, 3]] * 2
    (uri,) = uris
    runs = ",".join(f'"{run.info.run_id}"' for run in MlflowClient(uri).search_runs(["1"]))
    with pages_of(uri, tmp_path / "ui.log") as base:
        compared = browse(f'{base}/#/compare-runs?runs=[{runs}]&experiments=["1"]', tmp_path, "--dump-dom")
        links = [unescape(link) for link in re.findall(r'href="(#/metric\?[^"]*)"', compared)]
        (link,) = [link for link in links if f"&metric={json.dumps(METRIC)}&" in unquote(link)]
        browse(f"{base}/{link}", tmp_path, WIDE, f"--screenshot={tmp_path}/curves.png")
        page = browse(f"{base}/{link}", tmp_path, WIDE, "--dump-dom")
    assert re.search(r'class="xtitle"[^>]*>Step</text>', page)
    ticks = {float(tick) for tick in re.findall(r'class="xtick"><text[^>]* data-unformatted="([^"]*)"', page)}
    assert {0.0, 1.0, 2.0, 3.0} <= ticks <= {0.5 * i for i in range(7)}  # layers, not seconds

    shot, heights = pixels_of(tmp_path / "curves.png"), []
    colours = {
        name: tuple(map(int, colour.split(",")))
        for colour, name in re.findall(r"stroke: rgb\(([\d, ]+)\);\"></path></svg><span[^>]*>([^<]*) \(" + METRIC, page)
    }
    assert colours.keys() == set(names)
    assert len(set(colours.values())) == 2
    for name in names:
        curve, n_dashes = parts(like(shot, colours[name]))
        assert n_dashes == 1, name
        columns = np.flatnonzero(curve.any(axis=0))
        left, right = columns[0], columns[-1]
        assert right - left > 300
        assert len(columns) > 0.95 * (right - left)  # one line from the first layer to the last
        for layer, value in values[name].items():
            x = round(left + (right - left) * layer / 3)
            heights.append((value, np.nonzero(curve[:, max(x - 1, left) : x + 2])[0].mean()))
    # What is drawn at the layers is what was measured there: heights on the page are linear in it.
    measured, drawn = np.array(heights).T
    assert np.abs(np.polyval(np.polyfit(measured, drawn, 1), measured) - drawn).max() < 4
    assert np.ptp(drawn) > 100
