"""What the pages of MLflow show: served over a database, seen by a headless browser, and their pixels counted."""

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
from jaxtyping import Bool, UInt8
from PIL import Image

CHROMIUM = next(filter(None, (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: `make test-deps` says how to install it")


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
    """How many pixels hardly differ from a colour."""
    return int(like(pixels, colour).sum())


def like(pixels: UInt8[np.ndarray, "h w 3"], colour: np.ndarray | tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Which pixels hardly differ from a colour: images are scaled on the page."""
    return np.abs(pixels.astype(int) - np.asarray(colour)).max(axis=2) < 6
