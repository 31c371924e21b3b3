"""The embedded world: scenes whose truth is known, texts about them, and two tiny LLaVA-NeXTs that have learnt both.

The scripts that trained these models are in the repository's `demo_training/`; they are not installed.
"""

from pathlib import Path

MODELS = {"model": "weights", "looking": "looking"}
"""Folders of the committed models, by what a recipe calls them: `demo://model` and `demo://looking`."""


def model_folder(name: str = "model") -> Path:
    """A committed model, a folder that `LlavaNextForConditionalGeneration.from_pretrained` and `AutoProcessor` read.

    Args:
        name: Which of `MODELS`. To `model` the tower hands over what it knows; `looking` has to find it in early features.
    """
    return Path(__file__).parent / MODELS[name]
