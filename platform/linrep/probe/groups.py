"""Groups of patches: those of one image with one label, and one label in the control.

A group takes a sample's place in everything that fits and scores: its rows share their labels, and its image is what is drawn for
intervals and kept on one side of a split.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from linrep.regions.artefact import Regions
from linrep.regions.covers import BACKGROUND, UNKNOWN
from linrep.regions.patches import PatchLabels, Places
from linrep.store.blocks import Block
from linrep.store.read import Store

PLACE = ("tile", "row", "col")
"""Columns of the store that say where a patch lies."""
IMAGE = "image"
"""Column of a block of patches: the sample that each is of."""


class PatchGroups:
    """The groups of a store's patches.

    Args:
        regions: The regions.
        store: The harvest that they are of.
    """

    def __init__(self, regions: Regions, store: Store) -> None:
        self.labels = PatchLabels(regions, store)
        table, ids = regions.table("groups"), store.samples()["sample_id"].combine_chunks()
        self.categories = self.labels.categories
        self.own, self.dealt = (self._codes(table[name]) for name in ("category", "shuffled"))
        found = pc.call_function("index_in", [table["sample_id"]], pc.SetLookupOptions(value_set=ids))
        self.sample: Int64[np.ndarray, " g"] = found.to_numpy().astype(np.int64)
        keys = self._keys(self.sample, self.own, self.dealt)
        order = np.argsort(keys)
        self._sorted = keys[order]
        self.own, self.dealt, self.sample = self.own[order], self.dealt[order], self.sample[order]

    def of(self, block: Block) -> Block:
        """The rows of a block that belong to a group, with its number in the place of the sample's."""
        places = Places(block.sample, **{name: block.columns[name] for name in PLACE})
        own, dealt = (self.labels.single(places, shuffled) for shuffled in (False, True))
        keys = self._keys(block.sample, own, dealt)
        at = np.searchsorted(self._sorted, keys).clip(0, max(len(self._sorted) - 1, 0))
        has = (own != UNKNOWN) & (dealt != UNKNOWN) & (self._sorted[at] == keys)
        return Block(block.x, at, block.columns | {IMAGE: block.sample}).of(has)

    def _codes(self, names: pa.ChunkedArray) -> Int64[np.ndarray, " g"]:
        found = pc.call_function("index_in", [names], pc.SetLookupOptions(value_set=pa.array(self.categories)))
        return pc.fill_null(found, BACKGROUND).to_numpy().astype(np.int64)

    def _keys(self, sample: np.ndarray, own: np.ndarray, dealt: np.ndarray) -> Int64[np.ndarray, " n"]:
        n = len(self.categories) + 2
        return (sample * n + own - UNKNOWN) * n + dealt - UNKNOWN
