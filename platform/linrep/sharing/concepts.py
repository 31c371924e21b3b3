"""Concept level: whether a class has the same direction in images and in texts, and whether a probe of one works on the other."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.sharing.config import Pooling, SharingConfig
from linrep.sharing.crossfit import ValueSums, direction_cosine, finds_its_class, value_sums
from linrep.sharing.geometry import scatters, solve
from linrep.sharing.intervals import Measure, mean_without, of_classes, of_hits, without_classes
from linrep.sharing.study import Pairs
from linrep.sharing.sums import PassSums, Sums
from linrep.store.samples import CLASS

WAYS = (("image", "text"), ("text", "image"))


def concepts(found: PassSums, pairs: Pairs, config: SharingConfig, pooling: Pooling = "mean") -> list[Measure]:
    """All measures of the concept level: of classes and of every attribute; none where pairs have neither.

    Args:
        found: What a pass found.
        pairs: The pairs.
        config: What to compare.
        pooling: Which tokens the rows are made of: transfers of probes are of means alone.
    """
    taken = [measure for sums in value_sums(found, pairs) for measure in _directions(sums, config)]
    return [*taken, *(_transfers(found, pairs, config) if pairs.classes and pooling == "mean" else ())]


def _directions(sums: ValueSums, config: SharingConfig) -> Iterator[Measure]:
    c = len(sums.values)
    if not two_sets(sums.n):
        return
    yield direction_cosine(sums, config.seed)
    for (source, target), axis in zip(WAYS, (1, 0), strict=True):

        def hits(chosen: Sequence[int], axis: int = axis) -> np.ndarray:
            return finds_its_class(sums, chosen, axis)

        # A guess is right once in c classes.
        name = f"class_retrieval_{source}_to_{target}"
        yield of_classes(name, hits, len(sums.n), 1 / c, sums.pairs, sums.values, sums.attribute)


def two_sets(n: Float[Tensor, "g c"]) -> bool:
    """Whether every value has pairs in two groups: of one in a single group there are no two sets of pairs.

    Args:
        n: Pairs by group and value.
    """
    return bool((n.sum(0) > n.max(0).values).all())


def _transfers(found: PassSums, pairs: Pairs, config: SharingConfig) -> Iterator[Measure]:
    everyone = range(len(found.sums))
    right, control = transfers(found, pairs, config, everyone)
    half = [transfers(found, pairs, config, own)[0] for own in (everyone[::2], everyone[1::2])]
    labels, c = labels_in_order(found, pairs, everyone), len(pairs.classes)
    for name, hits in right.items():
        own = (float(half[0][name].mean()), float(half[1][name].mean())) if all(half) else None
        left_out = without_classes(mean_without(hits, labels, c), pairs.classes)
        yield replace(of_hits(name, hits, float(control[name].mean()), own, labels, left_out), attribute=CLASS)


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
        weights, bias = discriminant(scatter, by_class, total, counts, s.n, config.ridge)
        for target in ("image", "text"):
            centre = means[source]
            if source == target:
                yield f"probe_{source}", (rows[target] - centre) @ weights + bias
                continue
            yield f"transfer_{source}_to_{target}", (rows[target] - centre) @ weights + bias
            yield f"transfer_{source}_to_{target}_centred", (rows[target] - means[target]) @ weights + bias


def discriminant(
    scatter: Float[Tensor, "d d"],
    by_class: Float[Tensor, "c d"],
    total: Float[Tensor, " d"],
    counts: Float[Tensor, " c"],
    n: Float[Tensor, ""],
    ridge: float,
) -> tuple[Float[Tensor, "d c"], Float[Tensor, " c"]]:
    """Weights and biases of a linear discriminant of rows about their mean; classes count alike.

    Args:
        scatter: Of all n rows about their mean.
        by_class: Sums of the labelled rows by class, about any reference.
        total: Sum of all rows, about the same.
        counts: Labelled rows.
        n: Rows.
        ridge: Penalty in mean variances of a dimension.
    """
    means_of = by_class / counts.clamp(min=1)[:, None] - total / n
    within = (scatter - (means_of.T * counts) @ means_of) / n
    weights = solve(within, ridge * float(within.diagonal().mean()), means_of.T.contiguous())
    return weights, -0.5 * (weights * means_of.T).sum(0)
