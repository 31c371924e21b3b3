"""Tiny models of random weights, and samples drawn on the spot."""

import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from linrep.sample import Sample
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from linrep.vlm.random import write_random_vlm


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Models this small lose time to a second thread, much of it when the other cores are busy."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "mistral": write_random_vlm(root / "mistral", text="mistral", seed=0),
        "llama": write_random_vlm(root / "llama", text="llama", n_layers=2, width=24, n_heads=2, vision_layers=2, seed=1),
    }


@pytest.fixture(scope="session")
def folder(folders):
    return folders["mistral"]


@pytest.fixture(scope="session")
def folder_336(tmp_path_factory):
    """Tiles and patches of LLaVA-NeXT's own size, a tiny model behind them."""
    return write_random_vlm(tmp_path_factory.mktemp("models336") / "m", image_size=336, patch_size=14, n_layers=1)


@pytest.fixture(scope="session")
def config(folder):
    return ModelConfig(path=str(folder))


@pytest.fixture(scope="session")
def preparer(config):
    return Preparer.from_path(config)


@pytest.fixture(scope="session")
def vlm(config):
    """The whole model, head included."""
    return load(config, None)


@pytest.fixture(scope="session")
def official(folders):
    """Model and processor as transformers alone loads them."""
    level = logging.getLogger("transformers").level
    logging.getLogger("transformers").setLevel(logging.ERROR)
    found = {
        name: (
            LlavaNextForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval(),
            LlavaNextProcessor.from_pretrained(path, backend="pil"),
        )
        for name, path in folders.items()
    }
    logging.getLogger("transformers").setLevel(level)
    return found


@pytest.fixture(scope="session")
def png():
    def encode(height=30, width=40, seed=0, mode="RGB", kind="PNG", **options):
        channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,)}[mode]
        array = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(array, mode=None if mode not in ("CMYK", "LA") else mode).save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def make(png):
    """A sample from a size, a text, or both."""

    def sample(size=None, text=None, image=None):
        image = png(*size) if size else image
        modality = "pair" if text is not None and image is not None else "image" if image is not None else "text"
        return Sample(id="s", corpus="c", modality=modality, uri="u", split="train", text=text, image=image)

    return sample


@pytest.fixture(scope="session")
def mixed(make):
    """Images of several shapes, texts and pairs, all of different lengths."""
    return [
        make(size=(50, 40)),
        make(size=(100, 30), text="A red boat lies in the harbour."),
        make(text="The old tree stands near the house."),
        make(size=(20, 90)),
        make(size=(28, 28), text="a cät 🚤"),
    ]
