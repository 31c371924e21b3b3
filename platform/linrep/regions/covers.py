"""Which patches of an image its regions cover: by how much, and the one category that a patch is labelled with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int16, Int64

from linrep.contents.stored import StoredContents, Token
from linrep.regions.annotated import Region
from linrep.regions.areas import Area, union
from linrep.regions.matching import Window

BACKGROUND, UNKNOWN = -1, -2
"""Labels of a patch that no category covers by the share that is asked, and of one about which nothing is known."""
ROUNDING = 1e-6
"""Covers that differ by less are equal: a patch half covered is covered by a half."""


@dataclass(frozen=True)
class Patches:
    """The n patches of images of one size.

    Attributes:
        tile: 0 the base view, 1.. the crops.
        row: Row in the base view's grid, or in that of all crops.
        col: Column likewise.
        boxes: Left, top, right, bottom in shares of the image's width and height.
    """

    tile: Int16[np.ndarray, " n"]
    row: Int16[np.ndarray, " n"]
    col: Int16[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]

    def __len__(self) -> int:
        return len(self.tile)


class PatchMap:
    """The patches of the images of a store; those of equal images are worked out once.

    Args:
        contents: Of the store.
    """

    def __init__(self, contents: StoredContents) -> None:
        self._contents = contents
        self._known: dict[tuple[int, int], Patches] = {}

    def of(self, name: str) -> Patches:
        """The patches of a sample's image."""
        facts = self._contents.facts(name)
        size = facts["height"], facts["width"]
        if size not in self._known:
            found = self._contents.layout(name).map
            places = zip(found.tile.tolist(), found.row.tolist(), found.col.tolist(), strict=True)
            tokens = [token for i, at in enumerate(places) if (token := Token(i, *at)).is_patch]
            boxes = np.array(self._contents.boxes(name, tokens), float).reshape(-1, 4) / (size[1], size[0], size[1], size[0])
            tile, row, col = (np.array([getattr(t, axis) for t in tokens], np.int16) for axis in ("tile", "row", "col"))
            self._known[size] = Patches(tile, row, col, boxes)
        return self._known[size]


@dataclass(frozen=True)
class Covers:
    """What the r regions of an image cover of its n patches, by region and for the c categories together.

    Attributes:
        categories: The categories, sorted.
        shares: Share of each patch that each category covers.
        sizes: Share of the image that each category covers.
        unknown: Share of each patch about which nothing is known.
        areas: What each region covers.
        of_region: Share of each patch that each region covers.
    """

    categories: tuple[str, ...]
    shares: Float[np.ndarray, "n c"]
    sizes: Float[np.ndarray, " c"]
    unknown: Float[np.ndarray, " n"]
    areas: tuple[Area, ...]
    of_region: Float[np.ndarray, "n r"]

    def labels(self, share: float) -> Int64[np.ndarray, " n"]:
        """The category of each patch, by number: of those that cover it by a share the one that covers it most.

        Of equal ones it is the one that covers less of the image: what lies in front, or is drawn more exactly.
        """
        if not self.categories:
            return np.where(self.unknown >= share - ROUNDING, UNKNOWN, BACKGROUND)
        order = np.argsort(self.sizes, kind="stable")
        most = self.shares.max(1)
        first = order[(self.shares[:, order] >= most[:, None] - ROUNDING).argmax(1)]
        nothing = np.where(self.unknown >= share - ROUNDING, UNKNOWN, BACKGROUND)
        return np.where(most >= share - ROUNDING, first, nothing)


def cover(regions: Sequence[Region], window: Window, patches: Patches) -> Covers:
    """What an image's regions cover.

    Args:
        regions: Of the annotated image.
        window: The part of it that the image shows.
        patches: Of the image.
    """
    left, top, right, bottom = window.box
    across, down = right - left, bottom - top
    boxes = patches.boxes * (across, down, across, down) + (left, top, left, top)
    areas = tuple(region.shape.area(*window.size) for region in regions)
    of_region = np.stack([area.shares(boxes) for area in areas], axis=1) if areas else np.zeros((len(boxes), 0))
    by_category: dict[str | None, list[int]] = {}
    for i, region in enumerate(regions):
        by_category.setdefault(region.category, []).append(i)
    categories = tuple(sorted(name for name in by_category if name is not None))
    whole = np.array([window.box], float)
    shares, sizes = np.zeros((len(boxes), len(categories))), np.zeros(len(categories))
    for c, name in enumerate(categories):
        own = by_category[name]
        area = union([areas[i] for i in own])
        shares[:, c] = of_region[:, own[0]] if len(own) == 1 else area.shares(boxes)
        sizes[c] = area.shares(whole)[0]
    unknown = union([areas[i] for i in by_category[None]]).shares(boxes) if None in by_category else np.zeros(len(boxes))
    return Covers(categories, shares, sizes, unknown, areas, of_region)
