"""Patches drawn on an image: outlines, and activations as a heat map. Works with boxes in the image's own pixels."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from linrep.contents.stored import Box

HOT = (213, 94, 0)
"""Vermilion of the house's figures: on grey, distinct for colour-blind readers."""
LEAST = 0.25
"""Share of `HOT` in the weakest patch that is drawn at all."""
CONTRAST = 0.6
"""Of the grey image under a heat map: paler than the image, so that heat is seen on dark ones too."""


def fit(image: Image.Image, side: int) -> Image.Image:
    """The image with a longer side of some pixels; one that is enlarged keeps its pixels' edges."""
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC)


def strengths(
    size: tuple[int, int], boxes: Sequence[Box], values: Sequence[float], most: float, scale: tuple[float, float] = (1.0, 1.0)
) -> Float[np.ndarray, "h w"]:
    """At each pixel the largest value among the boxes that hold its middle, as a share of `most`; 0 outside of all.

    Args:
        size: Width and height of what is drawn.
        boxes: Left, top, right, bottom in the image's pixels.
        values: What belongs to each box.
        most: The value that becomes 1; larger ones do, too.
        scale: Pixels drawn for each of the image's, across and down.
    """
    found = np.zeros((size[1], size[0]))
    for (left, top, right, bottom), value in zip(boxes, values, strict=True):
        rows = slice(_first(top * scale[1]), _first(bottom * scale[1]))
        columns = slice(_first(left * scale[0]), _first(right * scale[0]))
        part = found[rows, columns]
        np.maximum(part, min(value / most, 1.0) if most > 0 else 0.0, out=part)
    return found


def _first(edge: float) -> int:
    """The first pixel whose middle lies at or behind an edge."""
    return max(math.ceil(edge - 0.5), 0)


def heat_map(image: Image.Image, boxes: Sequence[Box], values: Sequence[float], most: float, side: int) -> Image.Image:
    """The image in light grey, and over it each box in a colour that is the stronger the larger its value.

    Args:
        image: RGB.
        boxes: In the image's pixels.
        values: What belongs to each box; only values above 0 are drawn.
        most: The value of full colour.
        side: The longer side of what is drawn, in pixels.
    """
    shown = fit(image, side)
    grey: UInt8[np.ndarray, "h w"] = np.asarray(shown.convert("L"))
    share = strengths(shown.size, boxes, values, most, (shown.width / image.width, shown.height / image.height))
    weight = np.where(share > 0, LEAST + (1 - LEAST) * share, 0.0)[..., None]
    under = (255 - (255 - grey.astype(float)) * CONTRAST)[..., None]
    return Image.fromarray(np.round(under * (1 - weight) + np.array(HOT, float) * weight).astype(np.uint8))


def outlined(image: Image.Image, boxes: Sequence[Box], side: int) -> Image.Image:
    """The image with a thin line around each box.

    Args:
        image: RGB.
        boxes: In the image's pixels.
        side: The longer side of what is drawn, in pixels.
    """
    shown = fit(image, side).copy()
    pen = ImageDraw.Draw(shown)
    across, down = shown.width / image.width, shown.height / image.height
    for left, top, right, bottom in boxes:
        corners = left * across, top * down, min(right * across, shown.width - 1), min(bottom * down, shown.height - 1)
        pen.rectangle(corners, outline=HOT, width=1)
    return shown
