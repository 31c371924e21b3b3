"""The regions of a chunk of a harvest: from annotations to tables of regions, of covered patches, and of groups of patches."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from linrep.contents.stored import StoredContents
from linrep.regions.annotated import AnnotatedImage, Region
from linrep.regions.config import RegionsConfig
from linrep.regions.covers import BACKGROUND, ROUNDING, UNKNOWN, Covers, Patches, PatchMap, cover
from linrep.regions.matching import Window
from linrep.store.tables import table_of
from schemas.regions import REGION_GROUPS, REGION_IMAGES, REGION_PATCHES, REGIONS

DIGITS = 4


@dataclass(frozen=True)
class Annotated:
    """An annotated image, and the part of it that an image shows."""

    image: AnnotatedImage
    window: Window

    def regions(self, categories: Sequence[str] | None) -> list[Region]:
        """Its regions of some categories, and what is unknown."""
        return [r for r in self.image.read() if categories is None or r.category is None or r.category in categories]


@dataclass(frozen=True)
class ImageTask:
    """An image whose regions are to be found.

    Attributes:
        sample: Name of the sample.
        own: Its annotations; None where it has none.
        why_not: Why it has none.
        dealt: Annotations of another image, for the control.
    """

    sample: str
    own: Annotated | None
    why_not: str | None = None
    dealt: Annotated | None = None


def label_images(contents: StoredContents, tasks: Sequence[ImageTask], config: RegionsConfig) -> dict[str, pa.Table]:
    """The tables of some images.

    Args:
        contents: Knows where the patches of the images lie.
        tasks: The images.
        config: Which categories, and which share of a patch.

    Raises:
        CorpusError: A mask cannot be read.
    """
    places = PatchMap(contents)
    images, regions, groups = [], [], []
    covered = [_Rows() for _ in range(2)]
    for task in tasks:
        row: dict[str, Any] = {"sample_id": task.sample, "why_not": task.why_not, "n_regions": 0, "n_patches": 0, "n_labelled": 0}
        if task.own is not None:
            patches, own = places.of(task.sample), task.own.regions(config.categories)
            found = cover(own, task.own.window, patches)
            labels = found.labels(config.share)
            named = [region for region in own if region.category is not None]
            row |= {"annotated": task.own.image.name, "n_regions": len(named), "n_patches": len(patches)}
            row["n_labelled"] = int((labels >= 0).sum())
            regions += _regions(task.sample, own, found, task.own.window, config.share)
            covered[0].add(task.sample, patches, found, labels, config.share)
            if task.dealt is not None:
                other = cover(task.dealt.regions(config.categories), task.dealt.window, patches)
                others = other.labels(config.share)
                covered[1].add(task.sample, patches, other, others, config.share)
                groups += _groups(task.sample, found, labels, other, others)
        images.append(row)
    return {
        "images": table_of(images, REGION_IMAGES),
        "regions": table_of(regions, REGIONS),
        "groups": table_of(groups, REGION_GROUPS),
        "patches": pa.concat_tables([rows.table(shuffled) for rows, shuffled in zip(covered, (False, True), strict=True)]),
    }


def _regions(sample: str, own: Sequence[Region], found: Covers, window: Window, share: float) -> list[dict[str, Any]]:
    rows = []
    left, top, right, bottom = window.box
    whole = np.array([window.box], float)
    for i, (region, area) in enumerate(zip(own, found.areas, strict=True)):
        x = ((area.x[[0, -1]] - left) / (right - left)).clip(0, 1).round(DIGITS).tolist()
        y = ((area.y[[0, -1]] - top) / (bottom - top)).clip(0, 1).round(DIGITS).tolist()
        loops = region.shape.outline(*window.size)
        outline = [
            [round(float(e), DIGITS) for px, py in loop for e in ((px - left) / (right - left), (py - top) / (bottom - top))]
            for loop in loops
        ]
        rows.append(
            {
                "sample_id": sample,
                "region": i,
                "category": region.category,
                "left": x[0],
                "top": y[0],
                "right": x[1],
                "bottom": y[1],
                "area": float(area.shares(whole)[0]),
                "n_patches": int((found.of_region[:, i] >= share - ROUNDING).sum()),
                "outline": outline,
            }
        )
    return rows


def _groups(sample: str, own: Covers, labels: np.ndarray, other: Covers, others: np.ndarray) -> list[dict[str, Any]]:
    """Patches by their label and the dealt one; those of which either is unknown take no part."""
    counts = Counter((a, b) for a, b in zip(labels.tolist(), others.tolist(), strict=True) if UNKNOWN not in (a, b))

    def name(label: int, among: Covers) -> str | None:
        return None if label == BACKGROUND else among.categories[label]

    return [
        {"sample_id": sample, "category": name(a, own), "shuffled": name(b, other), "patches": n}
        for (a, b), n in sorted(counts.items())
    ]


class _Rows:
    """Rows of covered patches, as columns that grow."""

    def __init__(self) -> None:
        self._samples: list[str] = []
        self._n: list[int] = []
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in ("tile", "row", "col", "cover", "first")}
        self._categories: list[str | None] = []

    def add(self, sample: str, patches: Patches, found: Covers, labels: np.ndarray, share: float) -> None:
        """Add what regions cover of an image, patch by patch."""
        shares = np.column_stack([found.shares, found.unknown])
        patch, c = np.nonzero(shares >= share - ROUNDING)
        for name in ("tile", "row", "col"):
            self._columns[name].append(getattr(patches, name)[patch])
        self._columns["cover"].append(shares[patch, c].astype(np.float32))
        self._columns["first"].append(labels[patch] == np.where(c == len(found.categories), UNKNOWN, c))
        names = (*found.categories, None)
        self._categories += [names[i] for i in c]
        self._samples.append(sample)
        self._n.append(len(patch))

    def table(self, shuffled: bool) -> pa.Table:
        """The rows."""
        if not self._samples:
            return REGION_PATCHES.empty_table()
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        n = len(self._categories)
        columns |= {"sample_id": np.repeat(np.array(self._samples, object), self._n), "shuffled": np.full(n, shuffled)}
        columns["category"] = np.array(self._categories, object)
        return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in REGION_PATCHES], schema=REGION_PATCHES)
