"""Labels of single patches, looked up by sample, tile, row and column; a chunk of the harvest is read when it is asked for."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int16, Int64, Shaped

from linrep.regions.artefact import CATEGORIES, Regions
from linrep.regions.covers import BACKGROUND, UNKNOWN
from linrep.store.read import Store

HELD = 4
"""Chunks whose labels are in memory at once."""
_BITS = 12
"""Of a key, for a row and for a column: grids are smaller."""


class Places(NamedTuple):
    """Where n tokens stand."""

    sample: Int64[np.ndarray, " n"]
    """Number of the sample."""
    tile: Shaped[np.ndarray, " n"]
    """0 the base view, 1.. the crops."""
    row: Shaped[np.ndarray, " n"]
    """Row of the patch."""
    col: Shaped[np.ndarray, " n"]
    """Column likewise."""


@dataclass(frozen=True)
class Covering:
    """Categories that cover some of n tokens: e pairs of a token and a category.

    Attributes:
        token: Place of the token among those that were asked about, rising.
        category: Number of the category.
        known: Whether anything is known of each of the n tokens: it shows an annotated image, and no crowd alone.
    """

    token: Int64[np.ndarray, " e"]
    category: Int64[np.ndarray, " e"]
    known: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class _Held:
    """The covered patches of a chunk, by key; a patch has a row for each category."""

    key: Int64[np.ndarray, " p"]
    code: Int16[np.ndarray, " p"]
    first: Bool[np.ndarray, " p"]


class PatchLabels:
    """Labels of the patches of a store's images.

    Args:
        regions: The regions, complete.
        store: The harvest that they are of.
    """

    def __init__(self, regions: Regions, store: Store) -> None:
        self._regions, self._store = regions, store
        self.categories: tuple[str, ...] = tuple(regions.table(CATEGORIES)["category"].to_pylist())
        first = store.first_sample
        self._chunks, self._starts = np.array(list(first), np.int64), np.array(list(first.values()), np.int64)
        self._ids = store.samples()["sample_id"].combine_chunks()
        images, groups = regions.table("images"), regions.table("groups")
        self.annotated: dict[bool, Bool[np.ndarray, " s"]] = {
            False: self._marked(images.filter(pc.field("annotated").is_valid())["sample_id"]),
            True: self._marked(groups["sample_id"]),
        }
        self._held: OrderedDict[tuple[int, bool], _Held] = OrderedDict()

    def single(self, places: Places, shuffled: bool = False) -> Int64[np.ndarray, " n"]:
        """The one label of each of some tokens: a category's number, `BACKGROUND`, or `UNKNOWN`.

        Args:
            places: The tokens.
            shuffled: Of the control.
        """
        found = np.where(self.annotated[shuffled][places.sample], BACKGROUND, UNKNOWN)
        for own, held, key in self._by_chunk(places, shuffled):
            one = _Held(held.key[held.first], held.code[held.first], held.first[held.first])
            if len(one.key):
                at = np.searchsorted(one.key, key).clip(0, len(one.key) - 1)
                hit = one.key[at] == key
                found[own[hit]] = one.code[at[hit]]
        return np.where(self.annotated[shuffled][places.sample], found, UNKNOWN)

    def several(self, places: Places, shuffled: bool = False) -> Covering:
        """All categories that cover some tokens.

        Args:
            places: The tokens.
            shuffled: Of the control.
        """
        known = self.annotated[shuffled][places.sample].copy()
        tokens, codes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for own, held, key in self._by_chunk(places, shuffled):
            left, right = np.searchsorted(held.key, key), np.searchsorted(held.key, key, side="right")
            counts = right - left
            token = np.repeat(np.arange(len(own)), counts)
            at = np.arange(len(token)) - np.repeat(counts.cumsum() - counts, counts) + left[token]
            code, ours = held.code[at].astype(np.int64), own[token]
            known[ours[(code == UNKNOWN) & held.first[at]]] = False
            keep = (code != UNKNOWN) & self.annotated[shuffled][places.sample[ours]]
            tokens.append(ours[keep])
            codes.append(code[keep])
        token, category = np.concatenate(tokens), np.concatenate(codes)
        order = np.argsort(token, kind="stable")
        return Covering(token[order], category[order], known)

    def _by_chunk(self, places: Places, shuffled: bool) -> Iterator[tuple[Int64[np.ndarray, " m"], _Held, np.ndarray]]:
        """The tokens of each chunk: their places among all, the chunk's patches, and their keys."""
        sample, tile, row, col = places
        chunk = np.searchsorted(self._starts, sample, side="right") - 1
        for c in np.unique(chunk).tolist():
            own = np.flatnonzero(chunk == c)
            key = _keys(sample[own] - self._starts[c], tile[own], row[own], col[own])
            yield own, self._patches(c, shuffled), key

    def _patches(self, c: int, shuffled: bool) -> _Held:
        if (c, shuffled) not in self._held:
            table = self._regions.patches([int(self._chunks[c])])
            for which in (False, True):
                self._held[c, which] = self._keyed(table.filter(pc.field("shuffled") == which), c)
            while len(self._held) > 2 * HELD:
                self._held.popitem(last=False)
        return self._held[c, shuffled]

    def _keyed(self, table: pa.Table, c: int) -> _Held:
        end = self._starts[c + 1] if c + 1 < len(self._starts) else len(self._ids)
        own = self._ids.slice(int(self._starts[c]), int(end - self._starts[c]))
        sample = pc.call_function("index_in", [table["sample_id"]], pc.SetLookupOptions(value_set=own))
        category = pc.call_function("index_in", [table["category"]], pc.SetLookupOptions(value_set=pa.array(self.categories)))
        code = pc.fill_null(category, UNKNOWN).to_numpy().astype(np.int16)
        columns = (table[name].to_numpy() for name in ("tile", "row", "col"))
        key = _keys(sample.to_numpy().astype(np.int64), *columns)
        order = np.argsort(key, kind="stable")
        return _Held(key[order], code[order], table["first"].to_numpy()[order])

    def _marked(self, names: pa.ChunkedArray) -> Bool[np.ndarray, " s"]:
        return pc.call_function("is_in", [self._ids], pc.SetLookupOptions(value_set=names.combine_chunks())).to_numpy(
            zero_copy_only=False
        )


def _keys(sample: np.ndarray, tile: np.ndarray, row: np.ndarray, col: np.ndarray) -> Int64[np.ndarray, " n"]:
    """A number for each place; a crop's row and column are of all crops together, so its tile does not matter."""
    parts = sample.astype(np.int64) * 2 + (tile > 0)
    return (parts << 2 * _BITS) | (row.astype(np.int64) << _BITS) | col.astype(np.int64)
