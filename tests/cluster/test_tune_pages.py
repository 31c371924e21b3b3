# ruff: noqa: F811  (fixtures of neighbours come in by their names)
"""What the pages of MLflow show of a search, by screenshots of a headless browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from mlflow import MlflowClient
from PIL import Image

from linrep import tracking
from linrep.cluster.run_tune_sae import run_tune_sae
from linrep.places import place
from tests.cluster.test_train_sae import one_thread, split_corpora, workspace  # noqa: F401
from tests.cluster.test_tune_sae import fresh, recipe_of  # noqa: F401

CHROMIUM = next(filter(None, (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))), None)
FIGURE = "figures/front_layer02.png"


@contextmanager
def pages_of(uri: str, log: Path) -> Iterator[str]:
    """MLflow's pages over a database, and where they are."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [sys.executable, "-m", "mlflow", "ui", "--port", port, "--workers", "1", "--backend-store-uri", uri]
    with log.open("w") as stream:
        server = subprocess.Popen(words, stdout=stream, stderr=stream, start_new_session=True)
    base = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 300  # a crowded machine starts the server in minutes
        while True:
            try:
                urllib.request.urlopen(f"{base}/health", timeout=30)
                break
            except OSError:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.3)
        yield base
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)


def browse(url: str, folder: Path, *more: str) -> str:
    """What a browser says of a page that has had time to load."""
    words = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"]
    words += [f"--user-data-dir={folder}/profile", "--virtual-time-budget=30000", *more, url]
    return subprocess.run(words, check=True, timeout=180, capture_output=True, text=True).stdout


def pixels_of(path: Path | str) -> UInt8[np.ndarray, "h w 3"]:
    return np.asarray(Image.open(path).convert("RGB"))


def colour_of(figure: UInt8[np.ndarray, "h w 3"]) -> tuple[np.ndarray, int]:
    """The most frequent colour of a figure that is not grey, and of how many pixels it is."""
    flat = figure.reshape(-1, 3).astype(int)
    colours, counts = np.unique(flat[np.ptp(flat, axis=1) > 20], axis=0, return_counts=True)
    return colours[counts.argmax()], int(counts.max())


def n_like(pixels: UInt8[np.ndarray, "h w 3"], colour: np.ndarray) -> int:
    """Pixels that hardly differ from a colour: images are scaled on the page."""
    return int((np.abs(pixels.astype(int) - colour).max(axis=2) < 6).sum())


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: `make test-deps` says how to install it")
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
