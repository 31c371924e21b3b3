"""Concept level: whether a class has the same direction in images and in texts, and whether a probe of one works on the other."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sharing.config import SharingConfig
from linrep.sharing.geometry import scatters, solve
from linrep.sharing.intervals import Measure, of_classes, of_groups, of_rows
from linrep.sharing.study import Pairs
from linrep.sharing.sums import Gathered, Sums, unit

WAYS = (("image", "text"), ("text", "image"))


def concepts(found: Gathered, pairs: Pairs, config: SharingConfig) -> list[Measure]:
    """All measures of the concept level; none where pairs have no classes."""
    if not pairs.classes:
        return []
    return [*_directions(found, pairs), *_transfers(found, pairs, config)]


def class_directions(s: Sums) -> tuple[Float[Tensor, "c d"], Float[Tensor, "c d"]]:
    """Class means minus the mean of the classes, of images and of texts."""
    counts = s.counts.clamp(min=1)[:, None]
    x, y = s.cx[0] / counts, s.cy[0] / counts
    return x - x.mean(0), y - y.mean(0)


def direction_cosines(s: Sums) -> Float[Tensor, "c c"]:
    """Cosine of each class's direction in images (rows) with each class's in texts (columns)."""
    x, y = class_directions(s)
    return unit(x) @ unit(y).T


def _directions(found: Gathered, pairs: Pairs) -> Iterator[Measure]:
    c, groups = len(pairs.classes), len(found.sums)
    n = int((pairs.label >= 0).sum())
    cosines = direction_cosines(found.everything)
    other = float((cosines.sum() - cosines.diagonal().sum()) / (c * (c - 1)))
    yield of_groups(
        "direction_cosine", groups, lambda chosen: float(direction_cosines(found.total(chosen)).diagonal().mean()), other, n
    )
    own = torch.arange(c)
    for (source, target), dim in zip(WAYS, (1, 0), strict=True):

        def hits(chosen: Sequence[int], dim: int = dim) -> np.ndarray:
            return (direction_cosines(found.total(chosen)).argmax(dim) == own).numpy()

        # A guess is right once in c classes.
        yield of_classes(f"class_retrieval_{source}_to_{target}", hits, groups, 1 / c, n)


def _transfers(found: Gathered, pairs: Pairs, config: SharingConfig) -> Iterator[Measure]:
    drawn = found.drawn
    labelled = np.flatnonzero(pairs.label[drawn.pair] >= 0)
    even = (pairs.group[drawn.pair[labelled]] % 2 == 0).tolist()
    right: dict[str, np.ndarray] = {}
    control: dict[str, np.ndarray] = {}
    for g in range(len(found.sums)):
        at = np.flatnonzero(pairs.group[drawn.pair[labelled]] == g)
        if not len(at):
            continue
        own = labelled[at]
        s = found.everything - found.sums[g]
        for which, (hits, labels) in enumerate(((right, pairs.label), (control, pairs.shuffled))):
            truth = torch.from_numpy(labels[drawn.pair[own]])
            for name, scores in _scores(found, s, own, which, config):
                hits.setdefault(name, np.zeros(len(labelled)))[at] = (scores.argmax(1) == truth).double().numpy()
    for name, hits in right.items():
        yield of_rows(name, hits, float(control[name].mean()), config.resamples, config.seed, even)


def _scores(found: Gathered, s: Sums, own: np.ndarray, which: int, config: SharingConfig) -> Iterator[tuple[str, Tensor]]:
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
