"""Tokens of matched pairs, balanced while they are read: a pair gives as many of its image's tokens as of its caption's, drawn by
a hash of its name. Of a chunk no more is held than its captions' tokens, twice, and the block being read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped, UInt64
from torch import Tensor

from linrep.sample import unit_hash
from linrep.sharing.grouped import Part
from linrep.sharing.study import Pairs
from linrep.store.blocks import blocks
from linrep.store.commit import WrittenFile
from linrep.store.layout import Modality
from linrep.store.read import Store


@dataclass(frozen=True)
class Tokens:
    """Some tokens of one modality, pair after pair.

    Attributes:
        pair: Number of each token's pair, rising.
        number: Its number among its pair's tokens as the store has them: it names the token in every pass.
        x: The vectors, in the store's number format.
    """

    pair: Int64[np.ndarray, " t"]
    number: Int64[np.ndarray, " t"]
    x: Shaped[Tensor, "t d"]

    def at(self, where: Shaped[np.ndarray, " k"]) -> "Tokens":
        """Some of them."""
        return Tokens(self.pair[where], self.number[where], self.x[torch.from_numpy(where)])


@dataclass(frozen=True)
class Matched:
    """Tokens of some pairs of one chunk, as many of either modality.

    Attributes:
        pair: Number of each pair, rising.
        counts: Tokens that each has of either modality.
        image: Tokens of the images; those of a pair are in the order of the draw.
        text: Tokens of the captions.
    """

    pair: Int64[np.ndarray, " p"]
    counts: Int64[np.ndarray, " p"]
    image: Tokens
    text: Tokens

    def of(self, chosen: Bool[np.ndarray, " p"]) -> "Matched":
        """Some of the pairs."""
        where = np.flatnonzero(np.repeat(chosen, self.counts))
        return Matched(self.pair[chosen], self.counts[chosen], self.image.at(where), self.text.at(where))


def pieces(store: Store, pairs: Pairs, part: Part, seed: int, rows: int) -> Iterator[tuple[int, Matched]]:
    """The balanced tokens of a part: a group's number, and some of its pairs, with at most `rows` tokens, or one pair more."""
    for matched in matched_tokens(store, pairs, part, seed):
        group = pairs.group[matched.pair]
        for g in np.unique(group):
            own = group == g
            before = np.cumsum(matched.counts * own) - matched.counts * own
            for piece in np.unique(before[own] // rows):
                yield int(g), matched.of(own & (before // rows == piece))


def matched_tokens(store: Store, pairs: Pairs, part: Part, seed: int) -> Iterator[Matched]:
    """The balanced tokens of a part, chunk by chunk."""
    texts = {file.path.rsplit("/", 1)[-1]: file for file in part["text"]}
    for file in part["image"]:
        other = texts.get(file.path.rsplit("/", 1)[-1])
        if other is None:
            continue
        # Captions are short: their tokens say how many of an image are wanted at all.
        text, of_text = _thinned(store, pairs, "text", other, seed, None)
        wanted = np.bincount(text.pair, minlength=len(pairs))
        image, _ = _thinned(store, pairs, "image", file, seed, wanted)
        counts = np.bincount(image.pair, minlength=len(pairs))
        text = text.at(_smallest(text.pair, of_text, counts))
        pair = np.flatnonzero(counts)
        if len(pair):
            yield Matched(pair, counts[pair], image, text)


def tokens_of(
    store: Store, pairs: Pairs, modality: Modality, file: WrittenFile, wanted: Bool[np.ndarray, " p"]
) -> Iterator[Tokens]:
    """The tokens of some pairs in a file, block by block and in the store's order, each with its number."""
    of, seen = pairs.of[modality], np.zeros(len(pairs), np.int64)
    for block in blocks(store, (file,), "tokens", (of >= 0) & wanted[of]):
        own = of[block.sample]
        there, counts = np.unique(own, return_counts=True)
        order = np.argsort(own, kind="stable")
        number = np.empty(len(own), np.int64)
        number[order] = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield Tokens(own, number + seen[own], block.x)
        seen[there] += counts


def _thinned(
    store: Store, pairs: Pairs, modality: Modality, file: WrittenFile, seed: int, wanted: Int64[np.ndarray, " p"] | None
) -> tuple[Tokens, UInt64[np.ndarray, " t"]]:
    """A file's tokens with their keys: of each pair those of the smallest keys, as many as are wanted, all where none says."""
    found = Tokens(np.zeros(0, np.int64), np.zeros(0, np.int64), torch.zeros(0, store.manifest.width))
    keys = np.zeros(0, np.uint64)
    everyone = np.ones(len(pairs), bool)
    for block in tokens_of(store, pairs, modality, file, everyone if wanted is None else wanted > 0):
        there, at = np.unique(block.pair, return_inverse=True)
        salt = np.array([int(unit_hash(pairs.names[p], f"{seed}/tokens") * 2**53) for p in there], np.uint64)
        keys = np.concatenate([keys, _mixed(salt[at] + block.number.astype(np.uint64))])
        found = Tokens(
            np.concatenate([found.pair, block.pair]),
            np.concatenate([found.number, block.number]),
            torch.cat([found.x, block.x]) if len(found.x) else block.x,
        )
        kept = _smallest(found.pair, keys, np.bincount(found.pair, minlength=len(pairs)) if wanted is None else wanted)
        found, keys = found.at(kept), keys[kept]
    return found, keys


def _smallest(
    pair: Int64[np.ndarray, " t"], key: UInt64[np.ndarray, " t"], wanted: Int64[np.ndarray, " p"]
) -> Int64[np.ndarray, " k"]:
    """Where the tokens of the smallest keys of each pair are, pair by pair and by rising keys."""
    order = np.lexsort((key, pair))
    own = pair[order]
    starts = np.flatnonzero(np.diff(own, prepend=-1))
    rank = np.arange(len(own)) - np.repeat(starts, np.diff(np.append(starts, len(own))))
    return order[rank < wanted[own]]


def _mixed(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Numbers without a pattern from numbers with one (splitmix64; Steele et al., 2014)."""
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
