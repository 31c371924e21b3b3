# ruff: noqa: F811  (fixtures of neighbours come in by their names)
"""What the pages of MLflow show of a search, by screenshots of a headless browser."""

from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from linrep import tracking
from linrep.cluster.run_tune_sae import run_tune_sae
from linrep.places import place
from tests.cluster.test_train_sae import one_thread, split_corpora, workspace  # noqa: F401
from tests.cluster.test_tune_sae import fresh, recipe_of  # noqa: F401
from tests.pages import browse, colour_of, n_like, needs_chromium, pages_of, pixels_of

FIGURE = "figures/front_layer02.png"


@pytest.mark.slow
@needs_chromium
def test_the_ui_of_mlflow_shows_the_figure_and_the_compare_view(
    split_corpora, random_vlm, fresh, tmp_path, one_thread, local_ray
):
    """The figure's main colour is on its page, and not on that of a figure that is not there; the runs are compared."""
    uri = run_tune_sae(recipe_of(split_corpora, random_vlm), place(fresh)).uri
    frame = tracking.compare(place(fresh), ["tune", "trial"])
    (parent,) = frame.filter(frame["stage"] == "tune")["run"]
    children = frame.filter((frame["stage"] == "trial") & (frame["status"] == "FINISHED")).head(2)
    measures = [f"{measure}_{modality}" for measure in ("fvu", "l0") for modality in ("image", "text")]
    # The plot of parallel coordinates marks both ends of the one measure that it opens with.
    numbers = [f"{value:.5f}" for value in children["metrics.train/loss"]]
    runs = ",".join(f'"{run}"' for run in children["run"])
    files = f"#/experiments/1/runs/{parent}/artifacts"
    places = {
        "figure": f"{files}/{FIGURE}",
        "missing": f"{files}/figures/none.png",
        "compare": f'#/compare-runs?runs=[{runs}]&experiments=["1"]',
    }
    texts = {"figure": [Path(FIGURE).name], "compare": [*children["name"], *measures, *numbers]}
    with pages_of(uri, tmp_path / "ui.log") as base:
        for name, url in places.items():
            browse(f"{base}/{url}", tmp_path, f"--screenshot={tmp_path}/{name}.png")
        said = {name: browse(f"{base}/{places[name]}", tmp_path, "--dump-dom") for name in texts}
    shots = {name: pixels_of(tmp_path / f"{name}.png") for name in places}
    for name, expected in texts.items():
        assert [text for text in expected if text not in said[name]] == [], name
        assert shots[name].std() > 10, name
    figure = pixels_of(MlflowClient(uri).download_artifacts(parent, FIGURE, str(tmp_path)))
    colour, n = colour_of(figure)
    # Shown at a third of its width, a figure keeps a ninth of its pixels.
    assert n_like(shots["figure"], colour) > 0.05 * n > 5 * n_like(shots["missing"], colour)
    assert torch.get_num_threads() == 1
