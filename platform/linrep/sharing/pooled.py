"""A pair's two rows, by pooling: means of all tokens, of the object's patches and its word, or the last token of each.

A mean over background and function words is no counterpart of anything: only a few patches lie on the object, and one word of the
caption names it. What the two modalities seem to share, and whether it grows with depth, depends on what is averaged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from linrep.errors import StoreError
from linrep.regions.patches import PatchLabels, Places
from linrep.sharing.config import Pooling
from linrep.sharing.grouped import Part, parts_of, parts_of_texts
from linrep.sharing.study import ObjectTokens, Pairs
from linrep.store.blocks import blocks
from linrep.store.commit import WrittenFile
from linrep.store.layout import MODALITIES, Modality, View
from linrep.store.read import Store

VIEWS: Mapping[Pooling, View] = {"mean": "pooled", "object": "tokens", "last": "last"}
"""The view that a pooling's rows come from."""
Matched = tuple[Int64[np.ndarray, " n"], Float[Tensor, "n d"], Float[Tensor, "n d"]]
"""Numbers of some pairs, rising, with the rows of their images and of their texts."""


@dataclass(frozen=True)
class PooledRows:
    """The rows of a layer's pairs.

    Attributes:
        store: The activations.
        layer: Layer k.
        pairs: The pairs.
        pooling: Which tokens rows are made of.
        objects: Where objects and their words are; only their pooling asks.
    """

    store: Store
    layer: int
    pairs: Pairs
    pooling: Pooling = "mean"
    objects: ObjectTokens | None = None

    def parts(self) -> list[Part]:
        """The parts that the layer is gathered in."""
        parts = parts_of_texts if self.pooling == "last" else parts_of
        return parts(self.store, VIEWS[self.pooling], self.layer)

    def of(self, modality: Modality) -> Int64[np.ndarray, " s"]:
        """Pair of each sample whose rows of a modality count; -1 elsewhere."""
        return self.pairs.alone if self.pooling == "last" and modality == "image" else self.pairs.of[modality]

    def references(self) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """A point near the mean of each modality: the mean of the first rows that count.

        Raises:
            StoreError: No pair has a row.
        """
        view: View = "last" if self.pooling == "last" else "pooled"
        found = []
        for m in MODALITIES:
            files = self.store.select(view, self.layer, m).files
            first = next(iter(blocks(self.store, files, view, self.of(m) >= 0)), None)
            if first is None:
                where = f"{self.store.place}, view {view}, layer {self.layer}, modality {m}"
                raise StoreError(f"no row of a pair in {where}: harvest it again")
            found.append(first.x[:256].double().mean(0))
        return found[0], found[1]

    def matched(self, part: Part) -> Iterator[Matched]:
        """The rows of a part, chunk by chunk; those of last tokens, which are one for a sample, all at once."""
        if self.pooling == "last":
            wanted = np.zeros(len(self.pairs), bool)
            texts = self._plain(part["text"], "text", None)
            wanted[texts[0]] = True
            yield from _both(self._plain(part["image"], "image", wanted), texts)
            return
        captions = {file.path.rsplit("/", 1)[-1]: file for file in part["text"]}
        for image in part["image"]:
            text = captions.get(image.path.rsplit("/", 1)[-1])
            if text is None:
                continue
            if self.pooling == "object":
                yield from _both(self._patches(image), self._words(text))
            else:
                yield from _both(self._plain((image,), "image", None), self._plain((text,), "text", None))

    def _plain(
        self, files: tuple[WrittenFile, ...], modality: Modality, wanted: Bool[np.ndarray, " p"] | None
    ) -> tuple[Int64[np.ndarray, " n"], Tensor]:
        """Rows of which each pair has one, with the numbers of their pairs."""
        of = self.of(modality)
        counts = (of >= 0) if wanted is None else (of >= 0) & wanted[of]
        found = list(blocks(self.store, files, VIEWS[self.pooling], counts))
        if not found:
            return np.zeros(0, np.int64), torch.zeros(0, self.store.manifest.width)
        return of[np.concatenate([block.sample for block in found])], torch.cat([block.x for block in found])

    def _patches(self, file: WrittenFile) -> tuple[Int64[np.ndarray, " n"], Tensor]:
        """Mean of the patches of a file that lie on the object of their pair."""
        assert self.objects is not None
        sums, counts = torch.zeros(len(self.pairs), self.store.manifest.width), torch.zeros(len(self.pairs))
        of = self.of("image")
        for block in blocks(self.store, (file,), "tokens", of >= 0, ("tile", "row", "col")):
            drawn = self._drawn[of[block.sample]]
            block, drawn = block.of(drawn >= 0), drawn[drawn >= 0]
            covering = self._labels.several(Places(drawn, *(block.columns[name] for name in ("tile", "row", "col"))))
            pair = of[block.sample[covering.token]]
            hit = covering.category == self._category[self.pairs.label[pair]]
            hit &= self.pairs.label[pair] >= 0
            at = torch.from_numpy(pair[hit])
            sums.index_add_(0, at, block.x[torch.from_numpy(covering.token[hit])].float())
            counts.index_add_(0, at, torch.ones(len(at)))
        there = torch.nonzero(counts)[:, 0]
        return there.numpy(), sums[there] / counts[there, None]

    def _words(self, file: WrittenFile) -> tuple[Int64[np.ndarray, " n"], Tensor]:
        """The last token of the word for the object of their pair, where it stands first, in the captions of a file."""
        assert self.objects is not None
        of, found = self.of("text"), list(blocks(self.store, (file,), "tokens", self.of("text") >= 0, ("position", "token_id")))
        if not found:
            return np.zeros(0, np.int64), torch.zeros(0, self.store.manifest.width)
        x = torch.cat([block.x for block in found])
        pair = of[np.concatenate([block.sample for block in found])]
        position, token = (np.concatenate([block.columns[name] for block in found]) for name in ("position", "token_id"))
        order = np.lexsort((position, pair))
        ends = word_ends(pair[order], position[order], token[order], self.pairs.label, self.objects.words)
        pairs, first = np.unique(pair[order][ends], return_index=True)
        return pairs, x[torch.from_numpy(order[ends][first])].float()

    @cached_property
    def _labels(self) -> PatchLabels:
        assert self.objects is not None
        return PatchLabels(self.objects.regions, self.store)

    @cached_property
    def _drawn(self) -> Int64[np.ndarray, " p"]:
        """For each pair the sample whose regions are known: the pair's own, or its image harvested alone; -1 where neither is."""
        found = np.full(len(self.pairs), -1, np.int64)
        for of in (self.pairs.alone, self.pairs.of["image"]):
            samples = np.flatnonzero(of >= 0)
            samples = samples[self._labels.annotated[False][samples]]
            found[of[samples]] = samples
        return found

    @cached_property
    def _category(self) -> Int64[np.ndarray, " c"]:
        """Number of the category that shows each class; the classes' own order, and -2 for one without a category."""
        known = {name.casefold(): i for i, name in enumerate(self._labels.categories)}
        return np.array([known.get(name.casefold(), -2) for name in self.pairs.classes], np.int64)


def word_ends(
    pair: Int64[np.ndarray, " t"],
    position: Int64[np.ndarray, " t"],
    token: Int64[np.ndarray, " t"],
    label: Int64[np.ndarray, " p"],
    words: tuple[tuple[tuple[int, ...], ...], ...],
) -> Int64[np.ndarray, " k"]:
    """Where the last token of a word for a pair's own class stands, rising.

    Args:
        pair: Pair of each token; tokens are sorted by pair and position.
        position: Place in the sequence.
        token: The token.
        label: Class of each pair, -1 for none.
        words: For each class the ways in which its name is cut into tokens.
    """
    hit = np.zeros(len(token), bool)
    of = label[pair]
    for c, ways in enumerate(words):
        for way in ways:
            k = len(way)
            if k > len(token):
                continue
            same = of[k - 1 :] == c
            for i, one in enumerate(way):
                at = slice(i, len(token) - k + 1 + i)
                same &= (token[at] == one) & (pair[at] == pair[k - 1 :]) & (position[at] == position[k - 1 :] - (k - 1 - i))
            hit[k - 1 :] |= same
    return np.flatnonzero(hit)


def _both(image: tuple[np.ndarray, Tensor], text: tuple[np.ndarray, Tensor]) -> Iterator[Matched]:
    """The rows of the pairs that have both, by rising pairs."""
    both, at, to = np.intersect1d(image[0], text[0], assume_unique=True, return_indices=True)
    if len(both):
        yield both, image[1][torch.from_numpy(at)], text[1][torch.from_numpy(to)]
