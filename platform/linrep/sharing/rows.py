"""Geometry level, from the drawn rows: matched cosines, neighbours, clusters, and a probe that separates the modalities."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.sharing.config import SharingConfig
from linrep.sharing.geometry import scatters, solve
from linrep.sharing.intervals import Measure, of_hits, of_rows
from linrep.sharing.study import Pairs
from linrep.sharing.sums import PassSums, unit
from linrep.stats.interval import ends
from linrep.stats.jackknife import error
from linrep.stats.nulls import of_draws
from linrep.stats.wilson import of_bounded

STARTS = 5
"""Of the clustering: from a bad start it keeps two clusters in one."""
ITERATIONS = 30
"""Of the clustering; it has settled long before, or goes round in circles of a few rows."""


def from_rows(found: PassSums, pairs: Pairs, config: SharingConfig) -> Iterator[Measure]:
    """All measures of the geometry level that need rows."""
    drawn, rng = found.drawn, np.random.default_rng(config.seed)
    n, group = len(drawn.pair), pairs.group[drawn.pair]
    sets = [np.arange(n), np.flatnonzero(group % 2 == 0), np.flatnonzero(group % 2 == 1)]

    def halves(of: Callable[[np.ndarray], float]) -> tuple[float, float] | None:
        """From the pairs of each half alone: neighbours, clusters and probes too."""
        return (of(sets[1]), of(sets[2])) if min(len(own) for own in sets[1:]) > 2 else None

    whole, *half = (row_values(drawn.x[own], drawn.y[own], config.neighbours) if len(own) > 2 else {} for own in sets)
    k = min(config.neighbours, n - 1)
    cosines = (unit(centred(drawn.x)) @ unit(centred(drawn.y)).T).double().numpy()
    moved = np.array([cosines[np.arange(n), rng.permutation(n)].mean() for _ in range(config.resamples)])
    # Two sets of k out of n - 1 drawn at random share k^2 / (n - 1) on average.
    nulls = {"cosine_matched_centred": moved, "hub_centred": moved - moved.mean(), "neighbourhood_overlap": k / (n - 1)}
    # A row is a neighbour of many, so that pairs do not vote one by one: groups of them are left out instead.
    others = [torch.from_numpy(group != g) for g in np.unique(group)]
    held_out = [row_values(drawn.x[at], drawn.y[at], config.neighbours) for at in others if int(at.sum()) > 2]
    for name, values in whole.items():
        own = (float(half[0][name].mean()), float(half[1][name].mean())) if all(half) else None
        if name == "neighbourhood_overlap":
            noise = error([float(some[name].mean()) for some in held_out]) ** 2
            low, high = of_bounded(float(values.mean()), noise, len(held_out))
            yield Measure(name, float(values.mean()), low, high, nulls[name], n, own)
        elif name in nulls:
            yield of_rows(name, values, nulls[name], own)
        else:
            yield of_hits(name, values, 1 / n, own)
    groups = range(len(found.sums))
    right, control = modality_probe(found, pairs, config, groups)
    own = halves(lambda at: float(modality_probe(found, pairs, config, np.unique(group[at]).tolist())[0].mean()))
    yield of_hits("modality_probe", right, float(control.mean()), own)
    yield _clusters(found, config, sets[0], halves, rng)


def row_values(x: Float[Tensor, "m d"], y: Float[Tensor, "m d"], neighbours: int) -> dict[str, Float[np.ndarray, " m"]]:
    """What pairs give by comparing their rows with each other's, one value a pair."""
    m, u, v = len(x), unit(centred(x)), unit(centred(y))
    cosines = (u @ v.T).double().numpy()
    matched = cosines.diagonal().copy()
    to_others, of_others = ((cosines.sum(axis) - matched) / (m - 1) for axis in (1, 0))
    return {
        "cosine_matched_centred": matched,
        # A pair takes part in the unmatched mean as an image and as a caption: without both its weight would be too small.
        "hub_centred": matched - to_others - of_others + to_others.mean(),
        "pair_retrieval_image_to_text": (cosines.argmax(1) == np.arange(m)).astype(float),
        "pair_retrieval_text_to_image": (cosines.argmax(0) == np.arange(m)).astype(float),
        "neighbourhood_overlap": neighbourhood_overlap(u, v, min(neighbours, m - 1)),
    }


def _clusters(
    found: PassSums, config: SharingConfig, everyone: np.ndarray, halves: Callable, rng: np.random.Generator
) -> Measure:
    def clustered(own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = torch.from_numpy(own)
        return cluster(found.drawn.x[at], found.drawn.y[at], config)

    n = len(everyone)
    labels, assigned = clustered(everyone)
    shuffled = np.array([homogeneity(rng.permutation(labels), assigned) for _ in range(50)])
    # Rows of a pair are drawn together; clusters stay as they are.
    draws = [rng.integers(n, size=n) for _ in range(config.resamples)]
    spread = [
        homogeneity(np.concatenate([labels[i], labels[n + i]]), np.concatenate([assigned[i], assigned[n + i]])) for i in draws
    ]
    value = homogeneity(labels, assigned)
    # Drawing again adds as much bias once more as the draw of the pairs did: mirrored at the value, it goes the other way.
    low, high = map(float, ends(np.array(spread)))
    low, high = max(0.0, min(low, 2 * value - high)), min(1.0, max(high, 2 * value - low))
    null = of_draws(shuffled)
    own = halves(lambda at: homogeneity(*clustered(at)))
    return Measure("cluster_homogeneity", value, min(low, value), max(high, value), null.value, n, own, null.low, null.high)


def centred(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows about their mean."""
    return x - x.mean(0)


def neighbourhood_overlap(u: Float[Tensor, "n d"], v: Float[Tensor, "n d"], k: int) -> Float[np.ndarray, " n"]:
    """For each pair the share of its k nearest neighbours among images that are also its nearest among texts.

    Source: Doimo et al., "Hierarchical nucleation in deep neural networks", 2020 (the measure that Narrow Gate uses).
    """
    n = len(u)
    near = []
    for z in (u, v):
        cosines = z @ z.T
        cosines.fill_diagonal_(-2)
        near.append(torch.zeros(n, n, dtype=torch.bool).scatter_(1, cosines.topk(k, dim=1).indices, True))
    return ((near[0] & near[1]).sum(1).double() / k).numpy()


def modality_probe(
    found: PassSums, pairs: Pairs, config: SharingConfig, groups: Sequence[int]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Share of a pair's two rows that a linear probe of the modality gets right, and of its control with swapped labels.

    Least squares from the sums of all but one of some groups, scored on the drawn rows of the one left out: each of their pairs
    is held out once.
    """
    drawn, (a, b) = found.drawn, found.references
    right, control, whole = [np.zeros(0)], [np.zeros(0)], found.total(groups)
    for g in groups:
        own = np.flatnonzero(pairs.group[drawn.pair] == g)
        if not len(own):
            continue
        s = whole - found.sums[g]
        gap = (s.x + s.n * a - s.y - s.n * b) / s.n
        xx, yy, _ = scatters(s)
        scatter = xx + yy + s.n / 2 * torch.outer(gap, gap)
        middle = ((s.x / s.n + a) + (s.y / s.n + b)) / 2
        directions = solve(scatter, config.ridge * float(scatter.diagonal().mean()), torch.stack([gap, s.swapped / s.n], dim=1))
        at = torch.from_numpy(own)
        of_image, of_text = ((z[at].double() - middle) @ directions for z in (drawn.x, drawn.y))
        right.append(((of_image[:, 0] > 0).double() + (of_text[:, 0] < 0).double()).numpy() / 2)
        keeps = torch.from_numpy(~pairs.swapped[drawn.pair[own]])
        control.append((((of_image[:, 1] > 0) == keeps).double() + ((of_text[:, 1] < 0) == keeps).double()).numpy() / 2)
    return np.concatenate(right), np.concatenate(control)


def cluster(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], config: SharingConfig
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Modality (0 image, 1 text) and cluster of all rows: the tightest of several k-means on unit rows, seeded."""
    rows, rng = torch.cat([unit(x), unit(y)]), np.random.default_rng(config.seed)
    _, assigned = min((_k_means(rows, min(config.clusters, len(rows)), rng) for _ in range(STARTS)), key=lambda found: found[0])
    return np.repeat([0, 1], [len(x), len(y)]), assigned


def _k_means(rows: Float[Tensor, "n d"], k: int, rng: np.random.Generator) -> tuple[float, Int64[np.ndarray, " n"]]:
    """Sum of the squared distances to the centres, and cluster of each row; started by distance (k-means++)."""
    chosen = [int(rng.integers(len(rows)))]
    nearest = (rows - rows[chosen[0]]).square().sum(1)
    for _ in range(k - 1):
        weights = nearest.double().numpy()
        total = weights.sum()
        chosen.append(int(rng.choice(len(rows), p=weights / total)) if total > 0 else int(rng.integers(len(rows))))
        nearest = torch.minimum(nearest, (rows - rows[chosen[-1]]).square().sum(1))
    centres = rows[chosen]
    assigned = torch.zeros(len(rows), dtype=torch.int64)
    for _ in range(ITERATIONS):
        now = torch.cdist(rows, centres).argmin(1)
        if bool((now == assigned).all()):
            break
        assigned = now
        sums = torch.zeros_like(centres).index_add_(0, assigned, rows)
        counts = torch.bincount(assigned, minlength=k)
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
    return float((rows - centres[assigned]).square().sum()), assigned.numpy()


def homogeneity(labels: Int64[np.ndarray, " n"], assigned: Int64[np.ndarray, " n"]) -> float:
    """1 where every cluster holds one modality, 0 where clusters say nothing about it.

    Source: Rosenberg & Hirschberg, "V-Measure", 2007; used so by "Narrow Gate", NeurIPS 2025.
    """
    table = np.zeros((labels.max() + 1, assigned.max() + 1))
    np.add.at(table, (labels, assigned), 1)
    share = table / len(labels)
    known = share.sum(1)
    whole = -float((known[known > 0] * np.log(known[known > 0])).sum())
    within = np.divide(share, share.sum(0), out=np.zeros_like(share), where=share.sum(0) > 0)
    left = -float((share[within > 0] * np.log(within[within > 0])).sum())
    return 1 - left / whole if whole > 0 else 1.0
