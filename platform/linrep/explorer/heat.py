"""Small images for a page: as they are, or bright where a latent fires and dim where it is silent."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from linrep.contents import draw
from linrep.contents.draw import fit
from linrep.contents.stored import Box
from linrep.explorer.drawing import Drawing

SIDE = 176
"""The longer side, in pixels."""
DIM = 0.3
"""Brightness of what is silent."""
LARGEST_PNG = 12_000
"""Bytes from which on an image is kept as JPEG: a photo."""


def thumbnail(image: Image.Image, boxes: Sequence[Box] = (), strengths: Sequence[float] = ()) -> Drawing:
    """An image in small; the same pixels give the same bytes.

    Args:
        image: The image.
        boxes: Where a latent fires; none for the image as it is.
        strengths: How strongly in each; the strongest stands at full brightness.
    """
    small = fit(image.convert("RGB"), SIDE)
    if boxes:
        lit = np.asarray(small) * brightness(boxes, strengths, SIDE / max(image.size), (small.height, small.width))[..., None]
        small = Image.fromarray(lit.round().astype(np.uint8))
    return _encoded(small)


def brightness(boxes: Sequence[Box], strengths: Sequence[float], scale: float, size: tuple[int, int]) -> np.ndarray:
    """How bright each pixel stands, from `DIM` to 1.

    Args:
        boxes: In pixels of the original image.
        strengths: One for each.
        scale: From original to shown pixels.
        size: Height and width shown.
    """
    strongest = max(max(strengths, default=0.0), 1e-12)
    return DIM + (1 - DIM) * draw.strengths((size[1], size[0]), boxes, strengths, strongest, (scale, scale))


def _encoded(image: Image.Image) -> Drawing:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    if out.tell() <= LARGEST_PNG:
        return Drawing(out.getvalue(), "image/png", *image.size)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return Drawing(out.getvalue(), "image/jpeg", *image.size)
