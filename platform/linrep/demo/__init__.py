"""The embedded world: scenes whose truth is known, texts about them, and a tiny LLaVA-NeXT that has learnt both.

The scripts that trained this model are in the repository's `demo_training/`; they are not installed.
"""

from pathlib import Path

MODELS = {"model": "weights"}
"""Folders of the committed models, by what a recipe calls them: `demo://model`."""


def model_folder(name: str = "model") -> Path:
    """A committed model, a folder that `LlavaNextForConditionalGeneration.from_pretrained` and `AutoProcessor` read.

    Args:
        name: Which of `MODELS`.
    """
    return Path(__file__).parent / MODELS[name]
