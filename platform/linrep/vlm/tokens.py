"""What each image position of LLaVA-NeXT shows: how an image is laid out in tiles and patches, from its size alone.

The image is seen twice: squashed into one square tile (the base view), and scaled into a canvas of several tiles with
its proportions kept (the crops). The canvas is padded, and the model drops the rows or columns of patches that are padding,
rounding in whole patches, so patches at the edge can be partly padding. Each row of the crops ends with a newline.
Imports no torch, for those who only draw.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int16, UInt8

from linrep.vlm.card import ModelCard
from linrep.vlm.prepared import Role

Size = tuple[int, int]


class TokenMap(NamedTuple):
    """The image positions of one image in order: base view, then the crops row by row. The arrays are read-only."""

    role: UInt8[np.ndarray, " i"]
    """`Role.IMAGE` or `Role.NEWLINE`."""
    tile: Int16[np.ndarray, " i"]
    """0 for the base view, 1.. for the crops in reading order, -1 for newlines."""
    row: Int16[np.ndarray, " i"]
    """Row in the base view's grid, or in the unpadded grid of all crops; for a newline the row that it ends."""
    col: Int16[np.ndarray, " i"]
    """Column likewise; -1 for newlines."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the processor lays out an image of one size. All pairs are (height, width) or (top, left).

    Attributes:
        image_size: The image that the processor sees, in pixels.
        tile_size: Side of a tile in pixels.
        patch_size: Side of a patch in pixels.
        canvas: The canvas of the crops in pixels.
        resized: The image as scaled into the canvas, in pixels.
        offset: Where in the canvas it begins, in pixels.
        first: First row and column of the canvas' patches that the model keeps.
        grid: Rows and columns of patches that the model keeps.
    """

    image_size: Size
    tile_size: int
    patch_size: int
    canvas: Size
    resized: Size
    offset: Size
    first: Size
    grid: Size

    @property
    def tiles(self) -> Size:
        """Rows and columns of crops."""
        return self.canvas[0] // self.tile_size, self.canvas[1] // self.tile_size

    @property
    def n_tokens(self) -> int:
        """Image positions, newlines included."""
        rows, cols = self.grid
        return (self.tile_size // self.patch_size) ** 2 + rows * (cols + 1)


def layout(image_size: Size, card: ModelCard) -> Layout:
    """The layout of an image of some height and width under a model's tiling."""
    return _layout(tuple(image_size), card.tile_size, card.patch_size, card.grid_pinpoints)  # pyright: ignore[reportArgumentType]


@lru_cache(maxsize=4096)
def _layout(image_size: Size, tile_size: int, patch_size: int, pinpoints: tuple[Size, ...]) -> Layout:
    height, width = image_size
    canvas = choose_canvas(image_size, pinpoints)
    scale_h, scale_w = canvas[0] / height, canvas[1] / width
    if scale_w < scale_h:
        resized = min(math.ceil(height * scale_w), canvas[0]), canvas[1]
    else:
        resized = canvas[0], min(math.ceil(width * scale_h), canvas[1])
    offset = (canvas[0] - resized[0]) // 2, (canvas[1] - resized[1]) // 2
    side = tile_size // patch_size
    rows, cols = canvas[0] // tile_size * side, canvas[1] // tile_size * side
    # The model's own arithmetic, rounding included: see `unpad_image` in transformers' LLaVA-NeXT.
    if width / height > cols / rows:
        first = (rows - int(round(height * (cols / width), 7))) // 2, 0
    else:
        first = 0, (cols - int(round(width * (rows / height), 7))) // 2
    grid = rows - 2 * first[0], cols - 2 * first[1]
    return Layout(image_size, tile_size, patch_size, canvas, resized, offset, first, grid)


def choose_canvas(image_size: Size, pinpoints: tuple[Size, ...]) -> Size:
    """The canvas that keeps most of the image's pixels, and among those the one that wastes least.

    Source: `select_best_resolution` of LLaVA-NeXT, ties going to the earlier canvas.
    """
    height, width = image_size
    best, most, least_waste = pinpoints[0], -1, math.inf
    for canvas_h, canvas_w in pinpoints:
        scale = min(canvas_w / width, canvas_h / height)
        used = min(int(width * scale) * int(height * scale), width * height)
        waste = canvas_h * canvas_w - used
        if used > most or (used == most and waste < least_waste):
            best, most, least_waste = (canvas_h, canvas_w), used, waste
    return best


@lru_cache(maxsize=1024)
def token_map(layout: Layout) -> TokenMap:
    """Tile, row and column of every image position of an image with this layout."""
    side = layout.tile_size // layout.patch_size
    rows, cols = layout.grid
    base_row, base_col = np.divmod(np.arange(side * side), side)
    row, col = (index.copy() for index in np.indices((rows, cols + 1)))
    tile = 1 + (row + layout.first[0]) // side * layout.tiles[1] + (col + layout.first[1]) // side
    newline = col == cols
    tile[newline] = -1
    col[newline] = -1
    role = np.where(newline, Role.NEWLINE, Role.IMAGE)
    found = TokenMap(
        role=np.concatenate([np.full(side * side, Role.IMAGE), role.ravel()]).astype(np.uint8),
        tile=np.concatenate([np.zeros(side * side), tile.ravel()]).astype(np.int16),
        row=np.concatenate([base_row, row.ravel()]).astype(np.int16),
        col=np.concatenate([base_col, col.ravel()]).astype(np.int16),
    )
    for array in found:
        array.setflags(write=False)  # shared between all images of this size
    return found


def patch_box(layout: Layout, tile: int, row: int, col: int, source: Size | None = None) -> tuple[float, float, float, float]:
    """Where a patch lies in the source image.

    Args:
        layout: Of the image as the processor saw it.
        tile: 0 for the base view, else any crop.
        row: As in `TokenMap`.
        col: As in `TokenMap`.
        source: Height and width of the source image where it was squashed first; None if the processor saw it as it is.

    Returns:
        Left, top, right, bottom in pixels of the source, clipped to it: a patch that is partly padding has a smaller box.
        (Bicubic scaling lets up to two scaled pixels around the box leak in.)

    Raises:
        ValueError: The position is a newline, or outside the layout.
    """
    side = layout.tile_size // layout.patch_size
    rows, cols = (side, side) if tile == 0 else layout.grid
    if tile < 0 or not (0 <= row < rows and 0 <= col < cols):
        raise ValueError(
            f"no patch at tile {tile}, row {row}, column {col}: the grid has {rows} rows and {cols} columns, newlines have no box"
        )
    height, width = source or layout.image_size
    p = layout.patch_size

    def span(index: int, axis: int, length: int) -> tuple[float, float]:
        if tile == 0:
            start, whole = index * p, layout.tile_size
        else:
            start, whole = (index + layout.first[axis]) * p - layout.offset[axis], layout.resized[axis]
        low, high = (min(max(edge, 0), whole) * length / whole for edge in (start, start + p))
        return low, high

    top, bottom = span(row, 0, height)
    left, right = span(col, 1, width)
    return left, top, right, bottom
