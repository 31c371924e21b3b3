"""Single tokens for the lenses: image tokens of some pairs, and tokens of other pairs' captions with the values they name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from linrep.sharing.config import LensConfig
from linrep.sharing.pooled import word_ends
from linrep.sharing.study import Pairs, Words
from linrep.sharing.sums import unit
from linrep.store.blocks import blocks
from linrep.store.layout import MODALITIES
from linrep.store.read import Store
from linrep.store.samples import CLASS

QUERIES = 5
"""Every fifth group of pairs gives images that are read; the captions of the others are contexts."""
PER_SAMPLE = 32
"""Tokens of an image, or of a caption, at most: evenly spaced."""


@dataclass(frozen=True)
class LensTokens:
    """Tokens of a layer. Those that the store keeps apart are missing, which may be others at each layer.

    Attributes:
        image: Tokens of images, as they are: the logit lens needs their means.
        pair: Pair of each image token.
        text: Tokens of captions of other pairs, about their mean, each of norm 1.
        named: By attribute, the value that each text token names; -1 for none.
    """

    image: Float32[Tensor, "t d"]
    pair: Int64[np.ndarray, " t"]
    text: Float32[Tensor, "c d"]
    named: Mapping[str, Int64[np.ndarray, " c"]]


@dataclass(frozen=True)
class LensRows:
    """Tokens by layer."""

    layers: Mapping[int, LensTokens]


def add_lens(one: LensRows, other: LensRows) -> LensRows:
    """The layers of both."""
    return LensRows({**one.layers, **other.layers})


def labels_of(pairs: Pairs) -> dict[str, tuple[tuple[str, ...], Int64[np.ndarray, " p"]]]:
    """Values of each attribute, class among them, and the number of each pair's value."""
    own = {CLASS: (pairs.classes, pairs.label)} if pairs.classes else {}
    return own | {one.name: (one.values, one.label) for one in pairs.attributes}


def read_tokens(store: Store, layer: int, pairs: Pairs, words: Words, config: LensConfig) -> LensTokens:
    """The tokens of a layer: of the first images of some groups of pairs, and of the first captions of the others."""
    query = pairs.group % QUERIES == 0
    chosen = {"image": np.flatnonzero(query)[: config.images], "text": np.flatnonzero(~query)[: config.texts]}
    found = {}
    for modality in MODALITIES:
        own = chosen[modality]
        wanted = np.zeros(len(pairs), bool)
        wanted[own] = True
        of = pairs.of[modality]
        files = store.select("tokens", layer, modality).files
        some = list(blocks(store, files, "tokens", (of >= 0) & wanted[of], ("position", "token_id")))
        pair = of[np.concatenate([b.sample for b in some])] if some else np.zeros(0, np.int64)
        columns = [
            np.concatenate([b.columns[name] for b in some]) if some else np.zeros(0, np.int64)
            for name in ("position", "token_id")
        ]
        x = torch.cat([b.x for b in some]).float() if some else torch.zeros(0, store.manifest.width)
        order = np.lexsort((columns[0], pair))
        found[modality] = (x[torch.from_numpy(order)], pair[order], *(own[order] for own in columns))
    image, pair, *_ = found["image"]
    text, of_text, position, token = found["text"]
    named = {name: named_by(of_text, position, token, ways) for name, ways in words.items()}
    of_images, of_texts = evenly(pair), evenly(of_text)
    return LensTokens(
        image[torch.from_numpy(of_images)],
        pair[of_images],
        about_mean(text[torch.from_numpy(of_texts)]),
        {name: own[of_texts] for name, own in named.items()},
    )


def evenly(pair: Int64[np.ndarray, " t"], most: int = PER_SAMPLE) -> Int64[np.ndarray, " k"]:
    """Which tokens to keep of samples that have more than `most`; those of a sample stand together.

    >>> evenly(np.array([0, 0, 0, 0, 1]), 2).tolist()
    [1, 3, 4]
    """
    _, start, counts = np.unique(pair, return_index=True, return_counts=True)
    n, rank = np.repeat(counts, counts), np.arange(len(pair)) - np.repeat(start, counts)
    return np.flatnonzero((n <= most) | ((rank + 1) * most // np.maximum(n, 1) > rank * most // np.maximum(n, 1)))


def named_by(
    pair: Int64[np.ndarray, " t"],
    position: Int64[np.ndarray, " t"],
    token: Int64[np.ndarray, " t"],
    ways: Sequence[tuple[tuple[int, ...], ...]],
) -> Int64[np.ndarray, " t"]:
    """The value whose name ends at each token, -1 for none; tokens are sorted by pair and position."""
    found = np.full(len(token), -1, np.int64)
    for value in range(len(ways)):
        label = np.full(int(pair.max(initial=-1)) + 1, value, np.int64)
        found[word_ends(pair, position, token, label, tuple(ways))] = value
    return found


def about_mean(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows without their mean, each of norm 1: tokens of one modality are all alike before."""
    return unit(x - x.mean(0)) if len(x) else x
