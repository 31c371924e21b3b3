"""Concept level: whether a class has the same direction in images and in texts, and whether a probe of one works on the other."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from linrep.sharing.config import SharingConfig
from linrep.sharing.crossfit import direction_cosine, finds_its_class
from linrep.sharing.geometry import scatters, solve
from linrep.sharing.intervals import Measure, of_classes, of_hits
from linrep.sharing.study import Pairs
from linrep.sharing.sums import PassSums, Sums

WAYS = (("image", "text"), ("text", "image"))


def concepts(found: PassSums, pairs: Pairs, config: SharingConfig) -> list[Measure]:
    """All measures of the concept level; none where pairs have no classes."""
    if not pairs.classes:
        return []
    return [*_directions(found, pairs, config), *_transfers(found, pairs, config)]


def _directions(found: PassSums, pairs: Pairs, config: SharingConfig) -> Iterator[Measure]:
    c, groups = len(pairs.classes), len(found.sums)
    n = round(float(found.total(range(groups)).counts.sum()))  # labelled pairs of which both rows count
    yield direction_cosine(found, n, config.seed)
    for (source, target), axis in zip(WAYS, (1, 0), strict=True):

        def hits(chosen: Sequence[int], axis: int = axis) -> np.ndarray:
            return finds_its_class(found, chosen, axis)

        # A guess is right once in c classes.
        yield of_classes(f"class_retrieval_{source}_to_{target}", hits, groups, 1 / c, n)


def _transfers(found: PassSums, pairs: Pairs, config: SharingConfig) -> Iterator[Measure]:
    everyone = range(len(found.sums))
    right, control = transfers(found, pairs, config, everyone)
    half = [transfers(found, pairs, config, own)[0] for own in (everyone[::2], everyone[1::2])]
    labels = labels_in_order(found, pairs, everyone)
    for name, hits in right.items():
        own = (float(half[0][name].mean()), float(half[1][name].mean())) if all(half) else None
        yield of_hits(name, hits, float(control[name].mean()), own, labels)


def labels_in_order(found: PassSums, pairs: Pairs, groups: Sequence[int]) -> Int64[np.ndarray, " m"]:
    """Class of each drawn, labelled pair, group by group: the order of `transfers`."""
    of, group = pairs.label[found.drawn.pair], pairs.group[found.drawn.pair]
    return np.concatenate([of[(of >= 0) & (group == g)] for g in groups])


def transfers(
    found: PassSums, pairs: Pairs, config: SharingConfig, groups: Sequence[int]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Which drawn, labelled pairs of some groups each probe gets right, held out group by group; and of shuffled labels."""
    drawn, whole = found.drawn, found.total(groups)
    right: dict[str, list[np.ndarray]] = {}
    control: dict[str, list[np.ndarray]] = {}
    for g in groups:
        own = np.flatnonzero((pairs.label[drawn.pair] >= 0) & (pairs.group[drawn.pair] == g))
        if not len(own):
            continue
        s = whole - found.sums[g]
        for which, (hits, labels) in enumerate(((right, pairs.label), (control, pairs.shuffled))):
            truth = torch.from_numpy(labels[drawn.pair[own]])
            for name, scores in _scores(found, s, own, which, config):
                hits.setdefault(name, []).append((scores.argmax(1) == truth).double().numpy())
    return tuple({name: np.concatenate(hits) for name, hits in some.items()} for some in (right, control))  # pyright: ignore[reportReturnType]


def _scores(found: PassSums, s: Sums, own: np.ndarray, which: int, config: SharingConfig) -> Iterator[tuple[str, Tensor]]:
    """Scores of held-out rows by probes of either modality: at home, carried over, and carried over with the means aligned.

    Linear discriminants from the sums; classes count alike.
    """
    xx, yy, _ = scatters(s)
    at = torch.from_numpy(own)
    rows = {"image": found.drawn.x[at].double(), "text": found.drawn.y[at].double()}
    means = {"image": s.x / s.n + found.references[0], "text": s.y / s.n + found.references[1]}
    counts = (s.counts, s.shuffled)[which]
    sums = {"image": (s.cx[which], s.x), "text": (s.cy[which], s.y)}
    for source, scatter in (("image", xx), ("text", yy)):
        by_class, total = sums[source]
        means_of = by_class / counts.clamp(min=1)[:, None] - total / s.n
        within = (scatter - (means_of.T * counts) @ means_of) / s.n
        weights = solve(within, config.ridge * float(within.diagonal().mean()), means_of.T.contiguous())
        bias = -0.5 * (weights * means_of.T).sum(0)
        for target in ("image", "text"):
            centre = means[source]
            if source == target:
                yield f"probe_{source}", (rows[target] - centre) @ weights + bias
                continue
            yield f"transfer_{source}_to_{target}", (rows[target] - centre) @ weights + bias
            yield f"transfer_{source}_to_{target}_centred", (rows[target] - means[target]) @ weights + bias
