"""What transformers alone makes of the same: its processors and the streams of its models; and the images that both are given."""

import importlib
import inspect
import io
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from linrep.sample import Sample
from linrep.vlm.processor import load_processor


def official_class(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A processor of transformers; one that asks for torchvision is imported with what it has for Pillow in its place."""
    kind = getattr(transformers, name)
    if type(kind).__name__ != "DummyObject":
        return kind
    package, _, module = kind.__module__.rpartition(".")
    own = module.removeprefix("processing_")
    on_pillow = importlib.import_module(f"{package}.image_processing_pil_{own}")
    monkeypatch.setitem(sys.modules, f"{package}.image_processing_{own}", on_pillow)
    monkeypatch.setattr("transformers.utils.import_utils.requires", lambda **_: lambda asked: asked)
    return getattr(importlib.import_module(kind.__module__), name)


def official_processor(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The processor of transformers around our tokenizer and image processor; without one for videos, which needs torchvision."""
    mine = load_processor(folder)
    monkeypatch.setattr(transformers.ProcessorMixin, "check_argument_for_proper_class", lambda self, name, given: type(given))
    kind = official_class(name, monkeypatch)
    known = {key: value for key, value in mine.settings.items() if key not in ("processor_class", "image_processor")}
    video = {"video_processor": None} if "video_processor" in inspect.signature(kind.__init__).parameters else {}
    if hasattr(sys.modules[kind.__module__], "num2words"):  # it counts a video's frames in words
        monkeypatch.setattr(sys.modules[kind.__module__], "num2words", str)
    return kind(image_processor=mine.image_processor, tokenizer=mine.tokenizer, **video, **known)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth noise: scaled in any way it keeps its look."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def sample(image: Image.Image | None = None, text: str | None = None) -> Sample:
    """A sample of an image, a text, or both."""
    data = None
    if image is not None:
        out = io.BytesIO()
        image.save(out, "PNG")
        data = out.getvalue()
    modality = "pair" if image is not None and text is not None else "image" if image is not None else "text"
    return Sample(id="s", corpus="c", modality=modality, uri="u", split="train", text=text, image=data)


def official_stream(official: Any, inputs: Mapping[str, Any]) -> dict[int, Tensor]:
    """What enters each block of the official model and, under the number of blocks, its final norm."""
    found: dict[int, Tensor] = {}
    stack_of = official.get_decoder()
    with ExitStack() as hooks, torch.inference_mode():
        for k, module in enumerate([*stack_of.layers, stack_of.norm]):
            handle = module.register_forward_pre_hook(partial(keep, found, k), with_kwargs=True)
            hooks.callback(handle.remove)
        official(**inputs, use_cache=False)
    return found


def keep(into: dict[int, Tensor], layer: int, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    """A hook: what a block is given."""
    into[layer] = (args[0] if args else kwargs["hidden_states"]).clone()


def middle(low: float, high: float, length: int) -> slice | None:
    """The middle third of a span in whole pixels; None where there is none, or the image ends."""
    a, b = round(low + (high - low) / 3), round(high - (high - low) / 3)
    return slice(a, max(b, a + 1)) if a < length and high - low >= 2 else None
