"""The shapes in which regions come: boxes, polygons, run lengths, masks. Each gives the area that it covers, and its outline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from linrep.regions.areas import Area, of_box, of_mask
from linrep.regions.outlines import Loop, outlines
from linrep.regions.run_lengths import mask_of


@dataclass(frozen=True)
class Box:
    """A box.

    Attributes:
        left: Its edges, in pixels of the image that was annotated.
        top: Likewise.
        right: Likewise.
        bottom: Likewise.
    """

    left: float
    top: float
    right: float
    bottom: float

    def area(self, height: int, width: int) -> Area:
        """What it covers of an image."""
        across, down = np.clip([self.left, self.right], 0, width), np.clip([self.top, self.bottom], 0, height)
        return of_box(float(across[0]), float(down[0]), float(across[1]), float(down[1]))

    def outline(self, height: int, width: int) -> list[Loop]:
        """Its corners."""
        return [[(self.left, self.top), (self.right, self.top), (self.right, self.bottom), (self.left, self.bottom)]]


@dataclass(frozen=True)
class Polygons:
    """Polygons: a pixel is covered if its middle lies in one.

    Attributes:
        corners: Of each polygon, x and y in turn, in pixels.
    """

    corners: Sequence[Sequence[float]]

    def area(self, height: int, width: int) -> Area:
        """What they cover of an image."""
        polygons = [np.reshape(np.array(some, float), (-1, 2)) for some in self.corners]
        points = np.concatenate(polygons).clip(0, (width, height))
        (left, top), (right, bottom) = np.floor(points.min(0)).astype(int).tolist(), np.ceil(points.max(0)).astype(int).tolist()
        found = [_filled(one - (left, top), bottom - top, right - left) for one in polygons]
        return of_mask(np.logical_or.reduce(found), left, top)

    def outline(self, height: int, width: int) -> list[Loop]:
        """Their corners."""
        return [[(float(x), float(y)) for x, y in np.reshape(some, (-1, 2))] for some in self.corners]


@dataclass(frozen=True)
class RunLengths:
    """A mask of the whole image as run lengths.

    Attributes:
        size: Height and width of the mask.
        counts: See `linrep.regions.run_lengths`.
    """

    size: tuple[int, int]
    counts: Sequence[int] | str

    def area(self, height: int, width: int) -> Area:
        """What it covers."""
        return of_mask(mask_of(self.counts, *self.size))

    def outline(self, height: int, width: int) -> list[Loop]:
        """Its loops."""
        return outlines(mask_of(self.counts, *self.size))


@dataclass(frozen=True)
class Mask:
    """A mask of the whole image.

    Attributes:
        pixels: True on those that it covers.
    """

    pixels: Bool[np.ndarray, "h w"]

    def area(self, height: int, width: int) -> Area:
        """What it covers."""
        return of_mask(self.pixels)

    def outline(self, height: int, width: int) -> list[Loop]:
        """Its loops."""
        return outlines(self.pixels)


Shape = Box | Polygons | RunLengths | Mask


def _filled(corners: Float[np.ndarray, "n 2"], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """Pixels whose middles lie in a polygon; Pillow also fills those that its edges touch, which is up to a pixel too many."""
    x, y = corners.T
    to_x, to_y = np.roll(x, -1), np.roll(y, -1)
    middles = np.arange(height) + 0.5
    edge, row = np.nonzero((y[:, None] <= middles) != (to_y[:, None] <= middles))
    crossing = x[edge] + (middles[row] - y[edge]) * (to_x[edge] - x[edge]) / (to_y[edge] - y[edge])
    # A row is inside after an odd number of edges: from the first pixel on whose middle lies beyond the edge.
    turns = np.zeros((height, width + 1), np.uint8)
    np.add.at(turns, (row, np.ceil(crossing - 0.5).clip(0, width).astype(int)), 1)
    return turns.cumsum(1, dtype=np.uint8)[:, :width] % 2 == 1
