"""The families of models: one file each, found by the `model_type` of a model's config.json."""

import importlib
import pkgutil
from functools import cache, lru_cache
from typing import Any

from linrep.errors import ModelError
from linrep.vlm.card import ModelCard
from linrep.vlm.family import Family
from linrep.vlm.tokens import Layout, Size


@cache
def families() -> tuple[Family, ...]:
    """All families, in the order of their files' names; a file holds one, called `FAMILY`."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}").FAMILY for name in names)


@cache
def family_of(model_type: str) -> Family:
    """The family of a model.

    Raises:
        ModelError: There is none.
    """
    for one in families():
        if model_type in one.model_types:
            return one
    known = ", ".join(sorted(name for one in families() for name in one.model_types))
    raise ModelError(
        f"is of type {model_type!r}, which no family knows; known are {known}. A new family is one file: "
        "platform/linrep/vlm/families/<name>.py, see docs/extending.md"
    )


def layout(image_size: Size, card: ModelCard, among: bool = False) -> Layout:
    """The layout of an image under a model.

    Args:
        image_size: Height and width of the image.
        card: Of the model.
        among: The sample shows several images.
    """
    return _layout((int(image_size[0]), int(image_size[1])), card.family, card.vision, among)


@lru_cache(maxsize=4096)
def _layout(image_size: Size, model_type: str, vision: Any, among: bool) -> Layout:
    family = family_of(model_type)
    return family.layout_among(image_size, vision) if among else family.layout(image_size, vision)
