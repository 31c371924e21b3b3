"""Images as a vision-language model is shown them: cut to the patches that matter, marked, enlarged, laid out on a sheet."""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from PIL import Image

from linrep.contents.draw import fit, strengths
from linrep.contents.stored import Box

GREY = (127, 127, 127)
"""What is cut away: no image's own colour says anything."""
DIMMED = 0.25
"""Brightness of what is not marked."""
SMALLEST, LARGEST = 224, 1024
"""Sides of an image as it is sent, in pixels: smaller ones are enlarged, larger ones reduced."""
CELL, GAP = 224, 8
"""Side of an image on a sheet, and the space between two, in pixels."""


def inside(size: tuple[int, int], boxes: Sequence[Box]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose middle lies in one of the boxes.

    Args:
        size: Width and height of the image.
        boxes: Left, top, right, bottom.
    """
    return strengths(size, boxes, [1.0] * len(boxes), 1.0) > 0


def masked(image: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """The smallest crop that holds all boxes, grey outside of them; the whole image where there are none."""
    kept = inside(image.size, boxes)
    if not kept.any():
        return image
    pixels = np.where(kept[..., None], np.asarray(image), np.array(GREY, np.uint8))
    rows, cols = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    return Image.fromarray(np.ascontiguousarray(pixels[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]))


def marked(image: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """The whole image, dark outside of the boxes."""
    pixels = np.asarray(image)
    kept = inside(image.size, boxes)[..., None]
    return Image.fromarray(np.where(kept, pixels, (pixels * DIMMED).astype(np.uint8)))


def sized(image: Image.Image) -> Image.Image:
    """The image in a size that models see well; a small one keeps its pixels' edges."""
    longest = max(image.size)
    if longest < SMALLEST:
        factor = math.ceil(SMALLEST / longest)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if longest > LARGEST:
        width, height = (max(1, round(side * LARGEST / longest)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)
    return image


def data_url(image: Image.Image) -> str:
    """The image as a URL that carries it, PNG: the same pixels give the same text."""
    out = io.BytesIO()
    sized(image).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def sheet(images: Sequence[Image.Image]) -> Image.Image:
    """Images in rows on a white sheet, from left to right and from top to bottom."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    page = Image.new("RGB", (columns * (CELL + GAP) + GAP, rows * (CELL + GAP) + GAP), (255, 255, 255))
    for i, image in enumerate(images):
        page.paste(fit(image, CELL), (GAP + i % columns * (CELL + GAP), GAP + i // columns * (CELL + GAP)))
    return page
