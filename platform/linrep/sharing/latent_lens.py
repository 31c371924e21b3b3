"""LatentLens beside the logit lens: which texts an image token is nearest to, and whether these name what the image shows.

LatentLens has contextual tokens of captions at all layers to choose from; the captions are of other images than those that are
read. Beside it stand contexts of the token's own layer, those of layer 0, which are the word embeddings, and the logit lens: the
words that the model's final norm and output matrix make of the token. All have the same tokens, as many choices and one score.

Source: "LatentLens", arXiv 2602.00462, 2026; nostalgebraist, "interpreting GPT: the logit lens", 2020.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from linrep.sharing.config import LensConfig
from linrep.sharing.lens_tokens import LensTokens, about_mean, labels_of
from linrep.sharing.study import Pairs, Words
from linrep.stats.interval import of_mean
from linrep.stats.jackknife import jackknife
from linrep.stats.wilson import of_clusters
from linrep.vlm.nearest_words import nearest_words
from linrep.vlm.unembed import Unembedding

ROWS = 256
"""Image tokens that are compared at once."""

Contexts = Literal["all", "own", "first", "logit"]


@dataclass(frozen=True)
class LensShare:
    """How often the nearest contexts of an image token name a value of its image.

    Attributes:
        image_layer: Layer of the image tokens.
        contexts: Text layers that the contexts are of: all, the same, or the first. Or words of the logit lens.
        attribute: Whose values: class, or an attribute.
        value: Share of image tokens of whose k nearest contexts, or k likeliest words, one names the value: mean over images.
        low: Lower end of its 95% interval, over images.
        high: Upper end.
        permuted: The same with the values of the other images, exactly.
        over: value - permuted.
        over_low: Lower end of its 95% interval, over images or over values, whichever is wider.
        over_high: Upper end.
        random: The same with contexts, or words of the vocabulary, drawn at random.
        text_layer: Mean layer of the nearest contexts: mean over images. None of words.
        text_layer_low: Lower end of its 95% interval, over images.
        text_layer_high: Upper end.
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
    text_layer: float | None
    text_layer_low: float | None
    text_layer_high: float | None
    tokens: int
    images: int


@dataclass(frozen=True)
class Nearest:
    """What the nearest contexts, or the likeliest words, of t image tokens name.

    Attributes:
        named: By attribute, which of its v values one of them names.
        rate: By attribute, the share of all contexts, or of the vocabulary, that names each value.
        layer: Mean layer of the nearest contexts; None of words.
    """

    named: Mapping[str, Bool[np.ndarray, "t v"]]
    rate: Mapping[str, Float[np.ndarray, " v"]]
    layer: Float[np.ndarray, " t"] | None = None


def lens(
    layers: Mapping[int, LensTokens], pairs: Pairs, config: LensConfig, words: Words, unembedding: Unembedding | None = None
) -> Iterator[LensShare]:
    """All shares, image layer by image layer.

    Args:
        layers: The tokens by layer.
        pairs: The pairs.
        config: How many contexts count.
        words: How names are cut into tokens.
        unembedding: The model's output matrix; None leaves the logit lens out.
    """
    labels = labels_of(pairs)
    for i in sorted(layers):
        image, pair = layers[i].image, layers[i].pair
        if not len(image):
            continue
        found: dict[Contexts, Nearest] = nearest_contexts(i, layers, {n: len(v) for n, (v, _) in labels.items()}, config.nearest)
        if unembedding is not None:
            found["logit"] = likeliest_words(image, unembedding, words, config.nearest)
        for contexts, near in found.items():
            depth = (None, None, None)
            if near.layer is not None:
                mean = of_mean(_by_image(near.layer, pair))
                depth = (mean.value, mean.low, mean.high)
            for name, named in near.named.items():
                own = shares(named, near.rate[name], labels[name][1][pair], pair, config.nearest)
                if own is not None:
                    yield LensShare(i, contexts, name, **own, **dict(zip(DEPTH, depth, strict=True)))


DEPTH = ("text_layer", "text_layer_low", "text_layer_high")


def nearest_contexts(i: int, layers: Mapping[int, LensTokens], n_values: Mapping[str, int], k: int) -> dict[Contexts, Nearest]:
    """The k nearest of all contexts, of those of the same layer, and of those of the first.

    Attributes whose values no context names are left out.

    Args:
        i: Layer of the image tokens.
        layers: The tokens by layer.
        n_values: Values of each attribute.
        k: Contexts of a token.
    """
    x = about_mean(layers[i].image)
    near = {}
    for j in sorted(layers):
        text = layers[j].text
        parts = [(some @ text.T).topk(min(k, len(text)), dim=1) for some in x.split(ROWS)]
        near[j] = torch.cat([one.values for one in parts]), torch.cat([one.indices for one in parts]).numpy()
    pools: dict[Contexts, list[int]] = {"all": sorted(layers), "own": [i]}
    if 0 in layers:
        pools["first"] = [0]
    found: dict[Contexts, Nearest] = {}
    for contexts, chosen in pools.items():
        cosine = torch.cat([near[j][0] for j in chosen], dim=1)
        if cosine.shape[1] < k:
            continue
        at = cosine.topk(k, dim=1).indices.numpy()
        layer = np.repeat(chosen, [near[j][0].shape[1] for j in chosen])[at].mean(1)
        named, rate = {}, {}
        for name, n in n_values.items():
            every = np.concatenate([layers[j].named[name] for j in chosen])
            if not (every >= 0).any():
                continue  # captions do not speak of it
            own = np.concatenate([layers[j].named[name][near[j][1]] for j in chosen], axis=1)
            own = np.take_along_axis(own, at, axis=1)
            named[name] = np.stack([(own == v).any(1) for v in range(n)], axis=1)
            rate[name] = np.bincount(every[every >= 0], minlength=n) / len(every)
        found[contexts] = Nearest(named, rate, layer)
    return found


def likeliest_words(image: Float[Tensor, "t d"], unembedding: Unembedding, words: Words, k: int) -> Nearest:
    """The k likeliest words of each image token in the logit lens.

    Args:
        image: The tokens, as they are.
        unembedding: The model's final norm and output matrix.
        words: How names are cut into tokens.
        k: Words of a token.
    """
    ids = nearest_words(image[None], unembedding, k).ids[0].numpy()
    begin = {name: [first_pieces(ways) for ways in values] for name, values in words.items()}
    begin = {name: values for name, values in begin.items() if any(values)}
    return Nearest(
        {name: np.stack([np.isin(ids, own).any(1) for own in values], axis=1) for name, values in begin.items()},
        {name: np.array([len(own) for own in values]) / len(unembedding.matrix) for name, values in begin.items()},
    )


def first_pieces(ways: Sequence[tuple[int, ...]]) -> list[int]:
    """The tokens that begin a name where it is cut into fewest: a name that is one token somewhere counts as such.

    >>> first_pieces([(7,), (3, 4), (8,)])
    [7, 8]
    """
    fewest = min(map(len, ways), default=0)
    return sorted({way[0] for way in ways if len(way) == fewest})


def shares(
    named: Bool[np.ndarray, "t v"],
    rate: Float[np.ndarray, " v"],
    own: Int64[np.ndarray, " t"],
    image: Int64[np.ndarray, " t"],
    k: int,
) -> dict[str, Any] | None:
    """The numbers of `LensShare` by name, without the text layer; None of fewer than two labelled images.

    Args:
        named: Values that the nearest contexts of each image token name.
        rate: Share of all contexts that name each value.
        own: Value of each token's image, -1 for none.
        image: Number of its image.
        k: Contexts of each.
    """
    known = own >= 0
    images, first, of = np.unique(image[known], return_index=True, return_inverse=True)
    n, value_of = len(images), own[known][first]
    if n < 2:
        return None
    naming = np.zeros((n, named.shape[1]))  # share of an image's tokens that name each value
    np.add.at(naming, of, named[known])
    naming /= np.bincount(of)[:, None]
    hit, counts = naming[np.arange(n), value_of], np.bincount(value_of, minlength=named.shape[1])
    others = naming @ counts - hit  # sum over the other images of the share that names their value
    each = hit - others / (n - 1)
    share, over = float(hit.mean()), float(each.mean())
    low, high = of_clusters(share, int(known.sum()), float(hit.var(ddof=1)) / n, n)
    without = []
    for v in np.flatnonzero(counts):
        kept, left = value_of != v, n - counts[v]
        rest = hit - (others - naming[:, v] * counts[v]) / max(left - 1, 1)
        without.append(float(rest[kept].mean()) if left > 1 else math.nan)
    # Images of a value stand or fall together, as they are near the same contexts: the wider interval holds for other values too.
    over_low, over_high = max((jackknife(over, without), _ends(each)), key=_width)
    return {
        "value": share, "low": low, "high": high, "permuted": share - over,
        "over": over, "over_low": over_low, "over_high": over_high,
        "random": float((1 - (1 - rate[value_of]) ** k).mean()), "tokens": int(known.sum()), "images": n,
    }  # fmt: skip


def _ends(values: Float[np.ndarray, " i"]) -> tuple[float, float]:
    mean = of_mean(values)
    return mean.low, mean.high


def _width(ends: tuple[float, float]) -> float:
    """Of an interval; that without ends is never the wider one."""
    return ends[1] - ends[0] if math.isfinite(ends[1] - ends[0]) else -1.0


def _by_image(values: Float[np.ndarray, " t"], image: Int64[np.ndarray, " t"]) -> Float[np.ndarray, " i"]:
    """Mean over the tokens of each image."""
    of = np.unique(image, return_inverse=True)[1]
    return np.bincount(of, values) / np.bincount(of)
