"""LatentLens: the contextual text tokens, of all layers, that an image token is nearest to, and whether they name what it shows.

Contexts are captions of other images than those that are read. Beside all layers stand the contexts of layer 0 alone, which are
the word embeddings: there the lens is the plain one of nearest embeddings. The logit lens needs the model, which is not here: it
is steering's.

Source: "LatentLens", arXiv 2602.00462, 2026.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from linrep.sharing.config import LensConfig
from linrep.sharing.pooled import word_ends
from linrep.sharing.study import Pairs
from linrep.sharing.sums import unit
from linrep.stats.interval import student
from linrep.stats.wilson import of_clusters
from linrep.store.blocks import blocks
from linrep.store.read import Store
from linrep.store.samples import CLASS

QUERIES = 5
"""Every fifth group of pairs gives images that are read; the captions of the others are contexts."""

PER_SAMPLE = 32
"""Tokens of an image, or of a caption, at most: evenly spaced."""
ROWS = 256
"""Image tokens that are compared at once."""

Contexts = Literal["all", "own", "first"]
Words = Mapping[str, tuple[tuple[tuple[int, ...], ...], ...]]
"""By attribute, for each value the ways in which its name is cut into tokens."""


@dataclass(frozen=True)
class LensTokens:
    """Tokens of a layer about the mean of their modality, each of norm 1.

    Attributes:
        image: Tokens of images.
        pair: Pair of each image token.
        text: Tokens of captions of other pairs.
        named: By attribute, the value that each text token names; -1 for none.
    """

    image: Float32[Tensor, "t d"]
    pair: Int64[np.ndarray, " t"]
    text: Float32[Tensor, "c d"]
    named: Mapping[str, Int64[np.ndarray, " c"]]


@dataclass(frozen=True)
class LensShare:
    """How often the nearest contexts of an image token name a value of its image.

    Attributes:
        image_layer: Layer of the image tokens.
        contexts: Text layers that the contexts are of: all, the same, or the first.
        attribute: Whose values: class, or an attribute.
        value: Share of image tokens of whose k nearest contexts one names the value.
        low: Lower end of its 95% interval, over images.
        high: Upper end.
        permuted: The same with the values of the other images, exactly.
        over: value - permuted.
        over_low: Lower end of its 95% interval, over images or over values, whichever is wider.
        over_high: Upper end.
        random: The same with contexts drawn at random.
        text_layer: Mean layer of the nearest contexts.
        tokens: Image tokens.
        images: Images that they are of.
    """

    image_layer: int
    contexts: Contexts
    attribute: str
    value: float
    low: float
    high: float
    permuted: float
    over: float
    over_low: float
    over_high: float
    random: float
    text_layer: float
    tokens: int
    images: int


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
    for modality, own in chosen.items():
        wanted = np.zeros(len(pairs), bool)
        wanted[own] = True
        of = pairs.of[modality]
        files = store.select("tokens", layer, modality).files  # pyright: ignore[reportArgumentType]
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
        _about_mean(image[torch.from_numpy(of_images)]),
        pair[of_images],
        _about_mean(text[torch.from_numpy(of_texts)]),
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


def _about_mean(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return unit(x - x.mean(0)) if len(x) else x


def lens(layers: Mapping[int, LensTokens], pairs: Pairs, config: LensConfig) -> Iterator[LensShare]:
    """All shares, image layer by image layer.

    Args:
        layers: The tokens by layer; text tokens are the same ones at every layer.
        pairs: The pairs.
        config: How many contexts count.
    """
    labels, first = labels_of(pairs), min(layers)
    for i in sorted(layers):
        pools: dict[Contexts, list[int]] = {"all": sorted(layers), "own": [i], "first": [first]}
        for contexts, chosen in pools.items():
            text = torch.cat([layers[j].text for j in chosen])
            if len(text) < config.nearest or not len(layers[i].image):
                continue
            parts = [(some @ text.T).topk(config.nearest, dim=1).indices for some in layers[i].image.split(ROWS)]
            at = torch.cat(parts).numpy()
            layer = np.repeat(chosen, [len(layers[j].text) for j in chosen])
            for name in layers[i].named:
                named = np.concatenate([layers[j].named[name] for j in chosen])
                if not (named >= 0).any():
                    continue  # captions do not speak of it
                values, label = labels[name]
                told = shares(named[at], label[layers[i].pair], layers[i].pair, named, len(values))
                if told is not None:
                    yield LensShare(i, contexts, name, text_layer=float(layer[at].mean()), **told)


def shares(
    nearest: Int64[np.ndarray, "t k"],
    own: Int64[np.ndarray, " t"],
    image: Int64[np.ndarray, " t"],
    named: Int64[np.ndarray, " c"],
    n_values: int,
) -> dict[str, Any] | None:
    """The numbers of `LensShare` by name, without the text layer; None of fewer than two labelled images.

    Args:
        nearest: Values that the nearest contexts of each image token name, -1 for none.
        own: Value of each token's image, -1 for none.
        image: Number of its image.
        named: Values that all contexts name.
        n_values: Values there are.
    """
    known = own >= 0
    nearest, own, image = nearest[known], own[known], image[known]
    images, first, token_of = np.unique(image, return_index=True, return_inverse=True)
    if len(images) < 2:
        return None
    named_near: Bool[np.ndarray, "t v"] = np.stack([(nearest == v).any(1) for v in range(n_values)], axis=1)
    hit = named_near[np.arange(len(own)), own].astype(float)
    # The values of the other images, each as likely.
    others = np.bincount(own[first], minlength=n_values)[None] - np.eye(n_values)[own]
    permuted = (named_near * others).sum(1) / (len(images) - 1)
    rate = np.bincount(named[named >= 0], minlength=n_values) / len(named)
    random = 1 - (1 - rate[own]) ** nearest.shape[1]

    def by_image(some: Float[np.ndarray, " t"]) -> Float[np.ndarray, " i"]:
        return np.bincount(token_of, some) / np.bincount(token_of)

    each, away = by_image(hit), by_image(hit - permuted)
    share, over, value_of = float(each.mean()), float(away.mean()), own[first]
    low, high = of_clusters(share, len(own), float(each.var(ddof=1)) / len(images), len(images))
    # Images of a value stand or fall together, as they are near the same contexts: the wider interval holds for other values too.
    reach = max(student(n) * sigma for n, sigma in (_error(away, np.arange(len(away))), _error(away, value_of)))
    return {
        "value": share, "low": low, "high": high, "permuted": float(by_image(permuted).mean()),
        "over": over, "over_low": over - reach, "over_high": over + reach, "random": float(by_image(random).mean()),
        "tokens": len(own), "images": len(images),
    }  # fmt: skip


def _error(values: Float[np.ndarray, " i"], cluster: Int64[np.ndarray, " i"]) -> tuple[int, float]:
    """How many clusters there are, and the standard error of the mean of values that stand or fall with their cluster."""
    sums = np.bincount(np.unique(cluster, return_inverse=True)[1], values - values.mean())
    g = len(sums)
    return g, float(np.sqrt((sums**2).sum() * g / max(g - 1, 1))) / len(values)
