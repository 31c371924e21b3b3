"""Sums by group of pairs: what adds up, and the totals that a jackknife over the groups asks for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from operator import add
from typing import Generic, TypeVar

from linrep.store.blocks import files_of
from linrep.store.commit import WrittenFile
from linrep.store.layout import MODALITIES, View
from linrep.store.read import Store

PARTS, ROWS_PER_PART = 8, 2**20
"""Parts that a layer's files are gathered in, whatever the cluster: at most so many, or as many more as have that many rows."""

Part = dict[str, tuple[WrittenFile, ...]]
"""Files by modality, of the same chunks: a pair's two rows lie in one chunk, as they come from one record."""


S = TypeVar("S", bound="Addable")


@dataclass(frozen=True)
class Addable:
    """Tensors that add up field by field."""

    def __add__(self: S, other: S) -> S:
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self: S, other: S) -> S:
        return type(self)(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Grouped(Generic[S]):
    """Sums by group.

    Attributes:
        sums: One for each group, at least one.
    """

    sums: tuple[S, ...]

    @cached_property
    def everything(self) -> S:
        """The sums of all groups."""
        return reduce(add, self.sums)

    def total(self, groups: Iterable[int]) -> S:
        """The sums of some groups; of all but one, everything without that one."""
        chosen = set(groups)
        left = set(range(len(self.sums))) - chosen
        if len(left) > 1:
            return reduce(add, (self.sums[g] for g in sorted(chosen)))
        return self.everything - self.sums[left.pop()] if left else self.everything


def by_group(parts: Sequence[Grouped[S]]) -> tuple[S, ...]:
    """The sums of all parts, group by group, added in their order."""
    return tuple(reduce(add, own) for own in zip(*(part.sums for part in parts), strict=True))


def parts_of(store: Store, view: View, layer: int) -> list[Part]:
    """The parts that a layer is gathered in, at least one: runs of chunks, both modalities of each together."""
    rows = sum(file.rows for m in MODALITIES for file in store.select(view, layer, m).files)
    images = files_of(store, view, layer, "image", max(PARTS, -(-rows // ROWS_PER_PART)))
    texts = {file.path.rsplit("/", 1)[-1]: file for file in store.select(view, layer, "text").files}
    return [
        {"image": part, "text": tuple(texts[name] for f in part if (name := f.path.rsplit("/", 1)[-1]) in texts)}
        for part in images or [()]
    ]


def parts_of_texts(store: Store, view: View, layer: int) -> list[Part]:
    """The same where a pair's image lies in another chunk than its caption: runs of texts, each with all images."""
    images = tuple(store.select(view, layer, "image").files)
    return [{"image": images, "text": part} for part in files_of(store, view, layer, "text", PARTS) or [()]]
