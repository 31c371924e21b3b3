"""Concept level: whether a class has the same direction in images and in texts, and whether a probe of one works on the other."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.sharing.config import SharingConfig
from linrep.sharing.geometry import scatters, solve
from linrep.sharing.intervals import Measure, mean_of_classes, of_classes, of_groups, of_hits
from linrep.sharing.study import Pairs
from linrep.sharing.sums import Gathered, Sums, unit

WAYS = (("image", "text"), ("text", "image"))


def concepts(found: Gathered, pairs: Pairs, config: SharingConfig) -> list[Measure]:
    """All measures of the concept level; none where pairs have no classes."""
    if not pairs.classes:
        return []
    return [*_directions(found, pairs), *_transfers(found, pairs, config)]


def class_directions(s: Sums, shuffled: bool = False) -> tuple[Float[Tensor, "c d"], Float[Tensor, "c d"]]:
    """Class means minus the mean of the classes, of images and of texts; or those of the classes dealt out anew."""
    counts = (s.shuffled if shuffled else s.counts).clamp(min=1)[:, None]
    x, y = s.cx[int(shuffled)] / counts, s.cy[int(shuffled)] / counts
    return x - x.mean(0), y - y.mean(0)


def direction_cosines(s: Sums, shuffled: bool = False) -> Float[Tensor, "c c"]:
    """Cosine of each class's direction in images (rows) with each class's in texts (columns)."""
    x, y = class_directions(s, shuffled)
    return unit(x) @ unit(y).T


def _directions(found: Gathered, pairs: Pairs) -> Iterator[Measure]:
    c, groups = len(pairs.classes), len(found.sums)
    n = int((pairs.label >= 0).sum())

    def own_cosines(chosen: Sequence[int]) -> np.ndarray:
        return direction_cosines(found.total(chosen)).diagonal().numpy()

    def other_cosine(chosen: Sequence[int]) -> float:
        cosines = direction_cosines(found.total(chosen))
        return float((cosines.sum() - cosines.diagonal().sum()) / (c * (c - 1)))

    # Pairs dealt to classes at random stay pairs: what any set of photographs has in common with its captions is no concept.
    null = float(direction_cosines(found.everything, shuffled=True).diagonal().mean())
    yield mean_of_classes("direction_cosine", own_cosines, groups, null, n)
    yield of_groups("direction_cosine_other", groups, other_cosine, None, n, (-1.0, 1.0))
    own = torch.arange(c)
    for (source, target), dim in zip(WAYS, (1, 0), strict=True):

        def hits(chosen: Sequence[int], dim: int = dim) -> np.ndarray:
            return (direction_cosines(found.total(chosen)).argmax(dim) == own).numpy()

        # A guess is right once in c classes.
        yield of_classes(f"class_retrieval_{source}_to_{target}", hits, groups, 1 / c, n)


def _transfers(found: Gathered, pairs: Pairs, config: SharingConfig) -> Iterator[Measure]:
    everyone = range(len(found.sums))
    right, control = transfers(found, pairs, config, everyone)
    half = [transfers(found, pairs, config, own)[0] for own in (everyone[::2], everyone[1::2])]
    labels = labels_in_order(found, pairs, everyone)
    for name, hits in right.items():
        own = (float(half[0][name].mean()), float(half[1][name].mean())) if all(half) else None
        yield of_hits(name, hits, float(control[name].mean()), own, labels)


def labels_in_order(found: Gathered, pairs: Pairs, groups: Sequence[int]) -> Int64[np.ndarray, " m"]:
    """Class of each drawn, labelled pair, group by group: the order of `transfers`."""
    of, group = pairs.label[found.drawn.pair], pairs.group[found.drawn.pair]
    return np.concatenate([of[(of >= 0) & (group == g)] for g in groups])


def transfers(
    found: Gathered, pairs: Pairs, config: SharingConfig, groups: Sequence[int]
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
