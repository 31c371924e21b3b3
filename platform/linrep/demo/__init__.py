"""The embedded world: scenes whose truth is known, texts about them, and a tiny LLaVA-NeXT that has learnt both.

The scripts that trained this model are in the repository's `demo_training/`; they are not installed.
"""

from pathlib import Path


def model_folder() -> Path:
    """The committed model, a folder that `LlavaNextForConditionalGeneration.from_pretrained` and `AutoProcessor` read."""
    return Path(__file__).parent / "weights"
