"""Probes of what single patches show: the regions of the images as labels of rows, see `linrep.probe.groups`."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int64

from linrep.probe.control_task import NONE
from linrep.probe.groups import PatchGroups
from linrep.probe.rows import StreamRows
from linrep.probe.study import SHUFFLED, PatchStudy, Study, Task
from linrep.regions.artefact import Regions
from linrep.regions.covers import BACKGROUND
from linrep.store.blocks import Block
from linrep.store.layout import Modality
from linrep.store.samples import SPLITS, Samples

REGION = "region"
"""The attribute that patches are probed for."""
NOTHING = "background"
"""The class of patches of annotated images that no region covers."""


def with_regions(study: Study, regions: Regions) -> Study:
    """A study that also probes single patches for the regions that cover them, where there is something to learn.

    A category that fewer than `min_per_class` training images show is left out, and named.

    Args:
        study: Of the store that the regions are of.
        regions: The regions.
    """
    if "tokens" not in study.views:
        return study
    groups, samples = PatchGroups(regions, study.store), study.samples
    split = samples.split[groups.sample]
    train = split == SPLITS.index("train")
    shown = [len(np.unique(groups.sample[train & (groups.own == c)])) for c in range(len(groups.categories))]
    kept = [c for c, n in enumerate(shown) if n >= study.config.min_per_class]
    few = tuple(name for name, n in zip(groups.categories, shown, strict=True) if n < study.config.min_per_class)
    left_out = {**study.left_out, f"{REGION} of image": few} if few else study.left_out
    number = np.full(len(groups.categories) + 1, -1, np.int64)
    number[kept] = np.arange(1, len(kept) + 1)
    number[BACKGROUND] = 0  # of the last place: the code counts from the end
    own, dealt = number[groups.own], number[groups.dealt]
    both = (own >= 0) & (dealt >= 0)
    if not all(len(np.unique(own[both & (split == part)])) > 1 for part in range(len(SPLITS))):
        return replace(study, left_out=left_out)
    names = (NOTHING if NOTHING not in groups.categories else f"{NOTHING} (no region)", *(groups.categories[c] for c in kept))
    codes = {REGION: np.where(both, own, -1), f"{REGION}{SHUFFLED}": np.where(both, dealt, -1)}
    of_groups = replace(
        study,
        samples=_as_samples(samples, groups.sample, split),
        codes={"image": codes, "text": {}},
        tasks=(Task(REGION, "image", names),),
        control_tasks=NONE,
    )
    return replace(study, left_out=left_out, patches=PatchStudy(groups, of_groups, len(samples.ids)))


def _as_samples(samples: Samples, of: Int64[np.ndarray, " g"], split: Int64[np.ndarray, " g"]) -> Samples:
    """Groups as samples: each with the name of its image."""
    ids, paths, drawn = (tuple(some[i] for i in of.tolist()) for some in (samples.ids, samples.image_path, samples.drawn_as))
    return Samples(ids, split, ("image",) * len(of), paths, drawn)


class GroupRows:
    """Rows of single patches with their groups in the place of their samples.

    Args:
        rows: The unit's rows, with the columns that say where patches lie.
        patches: The study of patches.
    """

    def __init__(self, rows: StreamRows, patches: PatchStudy) -> None:
        self._rows, self._patches = rows, patches

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self._rows.width

    def blocks(self, modality: Modality, wanted: Bool[np.ndarray, " g"]) -> Iterator[Block]:
        """The rows of some groups."""
        if not wanted.any():
            return
        for block in self._rows.blocks(modality, self._patches.images(wanted)):
            grouped = self._patches.groups.of(block)
            own = grouped.of(wanted[grouped.sample])
            if len(own.sample):
                yield own
