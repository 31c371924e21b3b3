"""The embedded world: scenes whose truth is known, texts about them, and a tiny LLaVA-NeXT that has learnt both.

Light to import: the model's library is loaded by `model`, `train` and `evaluate` only.
"""

from pathlib import Path


def model_folder() -> Path:
    """The committed model, a folder that `LlavaNextForConditionalGeneration.from_pretrained` and `AutoProcessor` read."""
    return Path(__file__).parent / "weights"
