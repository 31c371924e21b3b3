"""Areas in an image, and what share of boxes they cover: exact for boxes, for masks of whole pixels, and for unions of both.

An area is a grid of cells, evenly filled each, between edges at any distance from each other: a box is one cell, a mask has a
cell a pixel. Its integral from a corner on is linear in either direction within a cell, so interpolating it at a box's corners
is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Area:
    """What is covered, in cells.

    Attributes:
        x: Edges of the columns, rising.
        y: Edges of the rows, rising.
        filled: Share of each cell that is covered; outside of the edges nothing is.
    """

    x: Float[np.ndarray, " w_1"]
    y: Float[np.ndarray, " h_1"]
    filled: Float[np.ndarray, "h w"]

    @property
    def size(self) -> float:
        """How much it covers, in square pixels."""
        return float(np.diff(self.y) @ self.filled @ np.diff(self.x))

    def shares(self, boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
        """Share of each box (left, top, right, bottom) that it covers; an empty box is not covered."""
        weighed = self.filled * np.diff(self.y)[:, None] * np.diff(self.x)[None, :]
        sums = np.pad(weighed.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        left, right = (_at(self.x, edge) for edge in (boxes[:, 0], boxes[:, 2]))
        top, bottom = (_at(self.y, edge) for edge in (boxes[:, 1], boxes[:, 3]))
        covered = _upto(sums, bottom, right) - _upto(sums, top, right) - _upto(sums, bottom, left) + _upto(sums, top, left)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return np.divide(covered, area, out=np.zeros(len(boxes)), where=area > 0).clip(0, 1)


def of_box(left: float, top: float, right: float, bottom: float) -> Area:
    """The area of a box."""
    return Area(np.array([left, right], float), np.array([top, bottom], float), np.ones((1, 1)))


def of_mask(mask: Bool[np.ndarray, "h w"], left: int = 0, top: int = 0) -> Area:
    """The area of a mask's pixels.

    Args:
        mask: True on the pixels that belong to it.
        left: Column of the image where the mask begins.
        top: Row likewise.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return Area(np.zeros(2), np.zeros(2), np.zeros((1, 1)))
    (a, b), (c, d) = ((int(some[0]), int(some[-1]) + 1) for some in (rows, columns))
    return Area(np.arange(c, d + 1) + float(left), np.arange(a, b + 1) + float(top), mask[a:b, c:d].astype(float))


def union(areas: Sequence[Area]) -> Area:
    """What any of some areas covers; of cells that two fill in part it has the larger part."""
    if len(areas) == 1:
        return areas[0]
    x, y = (np.unique(np.concatenate([getattr(area, axis) for area in areas])) for axis in ("x", "y"))
    filled = np.zeros((len(y) - 1, len(x) - 1))
    for area in areas:
        columns, rows = _cells(area.x, x), _cells(area.y, y)
        part = filled[np.ix_(rows >= 0, columns >= 0)]
        own = area.filled[np.ix_(rows[rows >= 0], columns[columns >= 0])]
        filled[np.ix_(rows >= 0, columns >= 0)] = np.maximum(part, own)
    return Area(x, y, filled)


def _cells(edges: Float[np.ndarray, " e"], finer: Float[np.ndarray, " f"]) -> np.ndarray:
    """The cell of `edges` that holds each cell of finer ones; -1 outside."""
    at = np.searchsorted(edges, finer[:-1], side="right") - 1
    return np.where((at >= 0) & (at < len(edges) - 1), at, -1)


def _at(edges: Float[np.ndarray, " e"], value: Float[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """The cell that holds each value, and how far into it the value lies, 0 to 1."""
    inside = value.clip(edges[0], edges[-1])
    cell = (np.searchsorted(edges, inside, side="right") - 1).clip(0, len(edges) - 2)
    width = edges[cell + 1] - edges[cell]
    return cell, np.divide(inside - edges[cell], width, out=np.zeros(len(value)), where=width > 0)


def _upto(sums: np.ndarray, y: tuple[np.ndarray, np.ndarray], x: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What is covered up to each place."""
    (i, v), (j, u) = y, x
    near = (1 - u) * sums[i, j] + u * sums[i, j + 1]
    return (1 - v) * near + v * ((1 - u) * sums[i + 1, j] + u * sums[i + 1, j + 1])
