"""How much of the embedded world to write: the `demo` section of a recipe."""

from typing import Literal

from pydantic import Field

from linrep.config import Section


class DemoWorld(Section):
    """How much of the embedded world to write, and which part of it."""

    n_images: int = Field(default=2048, ge=0, description="Images, each with a caption.")
    n_texts: int = Field(default=4096, ge=0, description="Documents of the text corpus.")
    seed: int = Field(
        default=0, ge=0, description="Seed of the world. The committed model was trained on seed 0 of the train split."
    )
    split: Literal["train", "heldout"] = Field(
        default="train",
        description="Training scenes lack an eighth of the combinations; every fourth held-out scene shows one of those.",
    )
    pair_share: float = Field(default=0.0, ge=0, le=1, description="Share of images with two objects; the first gives the class.")
