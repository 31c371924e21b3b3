"""Pictures as a vision-language model is shown them: cut to the patches that matter, marked, enlarged, laid out on a sheet."""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from PIL import Image

from linrep.interpret.contents import Box

GREY = (127, 127, 127)
"""What is cut away: no picture's own colour says anything."""
DIMMED = 0.25
"""Brightness of what is not marked."""
SMALLEST, LARGEST = 224, 1024
"""Sides of a picture as it is sent, in pixels: smaller ones are enlarged, larger ones reduced."""
CELL, GAP = 224, 8
"""Side of a picture on a sheet, and the space between two, in pixels."""


def inside(size: tuple[int, int], boxes: Sequence[Box]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose middle lies in one of the boxes.

    Args:
        size: Width and height of the picture.
        boxes: Left, top, right, bottom.
    """
    found = np.zeros((size[1], size[0]), bool)
    for left, top, right, bottom in boxes:
        rows = slice(math.ceil(top - 0.5), max(math.ceil(bottom - 0.5), 0))
        found[max(rows.start, 0) : rows.stop, max(math.ceil(left - 0.5), 0) : max(math.ceil(right - 0.5), 0)] = True
    return found


def masked(picture: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """The smallest crop that holds all boxes, grey outside of them; the whole picture where there are none."""
    kept = inside(picture.size, boxes)
    if not kept.any():
        return picture
    pixels = np.where(kept[..., None], np.asarray(picture), np.array(GREY, np.uint8))
    rows, cols = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    return Image.fromarray(np.ascontiguousarray(pixels[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]))


def marked(picture: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """The whole picture, dark outside of the boxes."""
    pixels = np.asarray(picture)
    kept = inside(picture.size, boxes)[..., None]
    return Image.fromarray(np.where(kept, pixels, (pixels * DIMMED).astype(np.uint8)))


def sized(picture: Image.Image) -> Image.Image:
    """The picture in a size that models see well; a small one keeps its pixels' edges."""
    longest = max(picture.size)
    if longest < SMALLEST:
        factor = math.ceil(SMALLEST / longest)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if longest > LARGEST:
        width, height = (max(1, round(side * LARGEST / longest)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.BICUBIC)
    return picture


def data_url(picture: Image.Image) -> str:
    """The picture as a URL that carries it, PNG: the same pixels give the same text."""
    out = io.BytesIO()
    sized(picture).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in rows on a white sheet, from left to right and from top to bottom."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    page = Image.new("RGB", (columns * (CELL + GAP) + GAP, rows * (CELL + GAP) + GAP), (255, 255, 255))
    for i, picture in enumerate(pictures):
        scale = CELL / max(picture.size)
        way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
        shown = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), way)
        page.paste(shown, (GAP + i % columns * (CELL + GAP), GAP + i // columns * (CELL + GAP)))
    return page
