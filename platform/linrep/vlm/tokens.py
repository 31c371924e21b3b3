"""What each image position shows: views of an image cut into patches, the positions in order, and the box of a patch.

An image is seen as one view (the base view), as a grid of finer crops beside it, or as crops alone. How a family lays them out
is in `linrep.vlm.families`. Imports no torch, for those who only draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int16, Int64, UInt8

from linrep.vlm.prepared import Role

Size = tuple[int, int]
Box = tuple[float, float, float, float]


class TokenMap(NamedTuple):
    """The image positions of one image in the order of the sequence. The arrays are read-only: images of one size share them."""

    role: UInt8[np.ndarray, " i"]
    """`Role.IMAGE` or `Role.NEWLINE`."""
    tile: Int16[np.ndarray, " i"]
    """0 for the base view, 1.. for the crops in reading order, -1 for newlines."""
    row: Int16[np.ndarray, " i"]
    """Row in the base view's grid, or in the grid of all crops; for a newline the row that it ends."""
    col: Int16[np.ndarray, " i"]
    """Column likewise; -1 for newlines."""


Span = tuple[float, float]
"""Begin and end."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A view of an image, cut into patches: a patch is a row's span times a column's.

    Attributes:
        down: The span of each row in the image as scaled for this view, in pixels; before 0 and beyond its height is padding.
        across: The span of each column likewise.
        scaled: Height and width of the whole image in this view.
    """

    down: tuple[Span, ...]
    across: tuple[Span, ...]
    scaled: tuple[float, float]

    @classmethod
    def even(
        cls,
        rows: int,
        cols: int,
        scaled: tuple[float, float],
        step: tuple[float, float] | None = None,
        start: tuple[float, float] = (0, 0),
    ) -> "Grid":
        """A grid of equal steps: as given, or such that it covers the image.

        >>> Grid.even(1, 2, (28, 56)).across
        ((0.0, 28.0), (28.0, 56.0))
        """
        sides = step or (scaled[0] / rows, scaled[1] / cols)
        down, across = (
            tuple((first + i * side, first + (i + 1) * side) for i in range(n))
            for first, side, n in zip(start, sides, (rows, cols), strict=True)
        )
        return cls(down, across, scaled)

    @property
    def rows(self) -> int:
        """Rows of patches."""
        return len(self.down)

    @property
    def cols(self) -> int:
        """Columns of patches."""
        return len(self.across)


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """How the processor lays out an image of one size.

    Attributes:
        image_size: Height and width of the image that the processor sees, in pixels.
        base: The view of the whole image at once, tile 0; None where there are only crops.
        crops: All crops as one grid, tiles 1 and up; None where there are none.
        map: Every image position.
        runs: How many of them follow each other without another token between, in order; they sum to all.
        tiles: Tiles of one size that the vision tower gets.
        tile_rows: Rows of crops; 0 without.
        tile_cols: Columns of crops; 0 without.
    """

    image_size: Size
    base: Grid | None
    crops: Grid | None
    map: TokenMap
    runs: tuple[int, ...]
    tiles: int = 1
    tile_rows: int = 0
    tile_cols: int = 0

    @property
    def n_tokens(self) -> int:
        """Image positions, newlines included."""
        return len(self.map.role)

    @property
    def finest(self) -> Grid:
        """The grid of the smallest patches: of the crops where there are any."""
        grid = self.crops or self.base
        assert grid is not None
        return grid

    @property
    def grid(self) -> Size:
        """Rows and columns of the finest grid."""
        return self.finest.rows, self.finest.cols

    def view(self, tile: int) -> Grid | None:
        """The grid that a tile belongs to: 0 the base view, 1.. the crops."""
        return self.base if tile == 0 else self.crops if tile > 0 else None


def patch_box(layout: Layout, tile: int, row: int, col: int, source: Size | None = None) -> Box:
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
    grid = layout.view(tile)
    if grid is None or not (0 <= row < grid.rows and 0 <= col < grid.cols):
        size = "no grid" if grid is None else f"a grid of {grid.rows} rows and {grid.cols} columns"
        raise ValueError(f"no patch at tile {tile}, row {row}, column {col}: there is {size}, newlines have no box")
    height, width = source or layout.image_size

    top, bottom = _clipped(grid.down[row], grid.scaled[0], height)
    left, right = _clipped(grid.across[col], grid.scaled[1], width)
    return left, top, right, bottom


def _clipped(span: Span, whole: float, length: int) -> Span:
    """A span of a side that was scaled to a whole, in pixels of that side as it was."""
    low, high = (min(max(edge, 0), whole) * length / whole for edge in span)
    return low, high


def whole_view(rows: int, cols: int) -> TokenMap:
    """The positions of the base view, row by row."""
    row, col = np.divmod(np.arange(rows * cols), cols)
    return _map(np.full(rows * cols, Role.IMAGE), np.zeros(rows * cols), row, col)


def tile_by_tile(tile_rows: int, tile_cols: int, rows: int, cols: int) -> TokenMap:
    """The positions of crops that follow each other, each row by row; rows and columns are those of the grid of all crops.

    Args:
        tile_rows: Rows of crops.
        tile_cols: Columns of crops.
        rows: Rows of patches of a crop.
        cols: Columns likewise.
    """
    down, across, row, col = (index.ravel() for index in np.indices((tile_rows, tile_cols, rows, cols)))
    tile = 1 + down * tile_cols + across
    return _map(np.full(len(tile), Role.IMAGE), tile, down * rows + row, across * cols + col)


def row_by_row(tiles: Int16[np.ndarray, "rows cols"], newline: bool) -> TokenMap:
    """The positions of crops read as one image, row by row.

    Args:
        tiles: The crop that each patch of the grid of all crops comes from.
        newline: A newline ends each row.
    """
    rows, cols = tiles.shape
    row, col = (index.copy() for index in np.indices((rows, cols + newline)))
    tile = np.full(row.shape, -1)
    tile[:, :cols] = tiles
    role = np.where(col == cols, Role.NEWLINE, Role.IMAGE)
    col[col == cols] = -1
    return _map(role.ravel(), tile.ravel(), row.ravel(), col.ravel())


def one_after_the_other(parts: Sequence[TokenMap]) -> TokenMap:
    """The positions of several views in order."""
    return _map(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def token_of_patches(plan: Layout, side: int, base_first: bool) -> Int64[np.ndarray, "tiles n"]:
    """The image position that shows each patch of the vision tower, tile by tile, row by row; -1 where none does.

    Tokens of several patches cover a square of them. What is left out of the crops is so on both sides alike.

    Args:
        plan: Of an image.
        side: Rows and columns of the tower's patches of a tile.
        base_first: The tile of the whole image comes before the crops, not after them.
    """
    assert plan.base is not None
    step = side // plan.base.rows
    of_patch = plan.map.role == Role.IMAGE
    base = _spread(_places(plan, of_patch & (plan.map.tile == 0), plan.base), step, (side, side))[None]
    if plan.crops is None:
        return base.reshape(1, -1)
    rows, cols = plan.tile_rows * side, plan.tile_cols * side
    kept = _places(plan, of_patch & (plan.map.tile > 0), plan.crops)
    whole = np.full((rows // step, cols // step), -1)
    top, left = ((whole.shape[axis] - kept.shape[axis]) // 2 for axis in (0, 1))
    whole[top : top + kept.shape[0], left : left + kept.shape[1]] = kept
    canvas = _spread(whole, step, (rows, cols)).reshape(plan.tile_rows, side, plan.tile_cols, side)
    crops = canvas.transpose(0, 2, 1, 3).reshape(-1, side, side)
    return np.concatenate([base, crops] if base_first else [crops, base]).reshape(plan.tiles, -1)


def places_of_patches(plan: Layout, side: int, base_first: bool) -> Int16[np.ndarray, "3 tiles n"]:
    """Tile, row and column of each patch of the vision tower, tile by tile, row by row.

    Rows and columns of crops are those of the grid of all crops, with its padding.

    Args:
        plan: Of an image.
        side: Rows and columns of the tower's patches of a tile.
        base_first: The tile of the whole image comes before the crops, not after them.
    """
    row, col = np.indices((side, side)).reshape(2, 1, -1)
    base = np.stack([0 * row, row, col])
    tile = np.arange(plan.tile_rows * plan.tile_cols)[:, None]
    down, across = tile // max(plan.tile_cols, 1), tile % max(plan.tile_cols, 1)
    crops = np.stack([1 + tile + 0 * row, down * side + row, across * side + col])
    return np.concatenate([base, crops] if base_first else [crops, base], axis=1).astype(np.int16)


def places_within_tokens(plan: Layout, merge: int) -> Int16[np.ndarray, "3 tokens n"]:
    """Tile, row and column of the patches of each token of one view, those of a token row by row.

    Args:
        plan: Of an image without crops.
        merge: Patches along each side that become one token.
    """
    down, across = np.divmod(np.arange(merge**2), merge)
    row, col = plan.map.row[:, None] * merge + down, plan.map.col[:, None] * merge + across
    return np.stack([0 * row, row, col]).astype(np.int16)


def _places(plan: Layout, chosen: Bool[np.ndarray, " i"], grid: Grid) -> Int64[np.ndarray, "rows cols"]:
    """Where in the sequence of image positions each patch of a grid is."""
    found = np.full((grid.rows, grid.cols), -1)
    found[plan.map.row[chosen], plan.map.col[chosen]] = np.flatnonzero(chosen)
    return found


def _spread(tokens: Int64[np.ndarray, "r c"], step: int, whole: Size) -> Int64[np.ndarray, "rows cols"]:
    """Each entry as a square of equal ones; what is missing to the whole is -1."""
    found = np.full(whole, -1)
    large = tokens.repeat(step, 0).repeat(step, 1)
    found[: large.shape[0], : large.shape[1]] = large
    return found


def _map(role: np.ndarray, tile: np.ndarray, row: np.ndarray, col: np.ndarray) -> TokenMap:
    found = TokenMap(role.astype(np.uint8), tile.astype(np.int16), row.astype(np.int16), col.astype(np.int16))
    for array in found:
        array.setflags(write=False)
    return found
