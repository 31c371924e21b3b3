"""Geometry level, from the drawn rows: matched cosines, neighbours and clusters."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.sharing.config import Pooling, SharingConfig
from linrep.sharing.geometry import scatters
from linrep.sharing.intervals import Measure, of_hits, of_rows, without_groups
from linrep.sharing.modality import modality_directions, modality_probe
from linrep.sharing.study import Pairs
from linrep.sharing.sums import Drawn, PassSums, unit
from linrep.stats.interval import ends
from linrep.stats.jackknife import error
from linrep.stats.nulls import of_draws
from linrep.stats.wilson import of_bounded

STARTS = 5
"""Of the clustering: from a bad start it keeps two clusters in one."""
ITERATIONS = 30
"""Of the clustering; it has settled long before, or goes round in circles of a few rows."""


def from_rows(found: PassSums, pairs: Pairs, config: SharingConfig, pooling: Pooling = "mean") -> Iterator[Measure]:
    """All measures of the geometry level that need rows; of other poolings than means those that compare pairs directly.

    Args:
        found: What a pass found.
        pairs: The pairs.
        config: What to compare.
        pooling: Which tokens the rows are made of.
    """
    drawn, rng = found.drawn, np.random.default_rng(config.seed)
    n, group = len(drawn.pair), pairs.group[drawn.pair]
    sets = [np.arange(n), np.flatnonzero(group % 2 == 0), np.flatnonzero(group % 2 == 1)]
    if n < 3:
        return

    def halves(of: Callable[[np.ndarray], float]) -> tuple[float, float] | None:
        """From the pairs of each half alone: neighbours, clusters and probes too."""
        return (of(sets[1]), of(sets[2])) if min(len(own) for own in sets[1:]) > 2 else None

    neighbours = config.neighbours if pooling == "mean" else 0
    everyone = range(len(found.sums))
    white, *whites = (whitened(found, groups) for groups in (everyone, everyone[::2], everyone[1::2]))
    whole = row_values(drawn, white, sets[0], neighbours)
    half = [row_values(drawn, own, at, neighbours) if len(at) > 2 else {} for own, at in zip(whites, sets[1:], strict=True)]
    k = min(config.neighbours, n - 1)
    moved = _of_other_pairs(drawn.x, drawn.y, config.resamples, rng)
    # Two sets of k out of n - 1 drawn at random share k^2 / (n - 1) on average.
    nulls = {"cosine_matched_centred": moved, "hub_centred": moved - moved.mean(), "neighbourhood_overlap": k / (n - 1)}
    moved = _of_other_pairs(*white, config.resamples, rng)
    nulls["hub_whitened"] = moved - moved.mean()
    # A row is a neighbour of many, so that pairs do not vote one by one: groups of them are left out instead.
    others = {int(g): np.flatnonzero(group != g) for g in np.unique(group)}
    held_out = {g: row_values(drawn, white, at, neighbours) for g, at in others.items() if len(at) > 2}
    for name, values in whole.items():
        own = (float(half[0][name].mean()), float(half[1][name].mean())) if all(half) else None
        without = [float(some[name].mean()) for some in held_out.values()]
        left_out = without_groups(without, list(held_out))
        if name == "neighbourhood_overlap":
            low, high = of_bounded(float(values.mean()), error(without) ** 2, len(held_out))
            yield Measure(name, float(values.mean()), low, high, nulls[name], n, own, left_out=left_out)
        elif name in nulls:
            yield of_rows(name, values, nulls[name], own, left_out)
        else:
            yield of_hits(name, values, 1 / n, own, left_out=left_out)
    yield modality_directions(found, pairs, config)
    if pooling != "mean":
        return
    groups = range(len(found.sums))
    right, control = modality_probe(found, pairs, config, groups)
    own = halves(lambda at: float(modality_probe(found, pairs, config, np.unique(group[at]).tolist())[0].mean()))
    yield of_hits("modality_probe", right, float(control.mean()), own)
    yield _clusters(found, config, sets[0], halves, rng)


def _of_other_pairs(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " r"]:
    """Mean cosine of images with texts about their means, under permutations of the pairs."""
    n, cosines = len(x), (unit(centred(x)) @ unit(centred(y)).T).double().numpy()
    return np.array([cosines[np.arange(n), rng.permutation(n)].mean() for _ in range(draws)])


def whitened(found: PassSums, groups: Sequence[int]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """The drawn rows of each modality about their mean, with the covariance of its rows in some groups taken to the identity.

    Of few rows, and of axes along which nearly nothing varies, whitening would make noise loud: the covariance is shrunk towards
    a multiple of the identity as far as its own noise asks for. Axes stay where they are (ZCA), so that cosines across modalities
    keep their meaning.

    Source: Chen et al., "Shrinkage algorithms for MMSE covariance estimation", 2010 (the shrinkage); Kessy et al., "Optimal
    whitening and decorrelation", 2018 (ZCA).
    """
    s, rows = found.total(groups), []
    xx, yy, _ = scatters(s)
    for z, scatter, mean in ((found.drawn.x, xx, s.x), (found.drawn.y, yy, s.y)):
        values, axes = torch.linalg.eigh(shrunk(scatter / s.n, float(s.n)))
        top = float(values[-1])
        scale = values.clamp(min=1e-12 * top).rsqrt() if top > 0 else torch.zeros_like(values)
        away = z.double() - (mean / s.n + found.references[len(rows)])
        rows.append(((away @ axes) * scale @ axes.T).float())
    return rows[0], rows[1]


def shrunk(covariance: Float[Tensor, "d d"], n: float) -> Float[Tensor, "d d"]:
    """A covariance of n rows, shrunk towards a multiple of the identity (oracle approximating shrinkage)."""
    d, trace = len(covariance), float(covariance.trace())
    square = float(covariance.square().sum())
    share = (1 - 2 / d) * square + trace**2
    most = (n + 1 - 2 / d) * (square - trace**2 / d)
    rho = min(1.0, share / most) if most > 0 else 1.0
    return (1 - rho) * covariance + rho * trace / d * torch.eye(d, dtype=covariance.dtype)


def row_values(
    drawn: Drawn, white: tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]], at: Int64[np.ndarray, " m"], neighbours: int
) -> dict[str, Float[np.ndarray, " m"]]:
    """What pairs give by comparing their rows with each other's, one value a pair.

    Args:
        drawn: The rows.
        white: The same whitened.
        at: Which of them.
        neighbours: How many nearest rows to compare; 0 leaves neighbours out.
    """
    own = torch.from_numpy(at)
    m, u, v = len(at), unit(centred(drawn.x[own])), unit(centred(drawn.y[own]))
    cosines = (u @ v.T).double().numpy()
    matched = cosines.diagonal().copy()
    near = {"neighbourhood_overlap": neighbourhood_overlap(u, v, min(neighbours, m - 1))} if neighbours else {}
    return {
        "cosine_matched_centred": matched,
        "hub_centred": _hub(u, v),
        "hub_whitened": _hub(*(unit(centred(z[own])) for z in white)),
        "pair_retrieval_image_to_text": (cosines.argmax(1) == np.arange(m)).astype(float),
        "pair_retrieval_text_to_image": (cosines.argmax(0) == np.arange(m)).astype(float),
        **near,
    }


def _hub(u: Float[Tensor, "m d"], v: Float[Tensor, "m d"]) -> Float[np.ndarray, " m"]:
    """Matched minus unmatched cosine of unit rows, pair by pair.

    A pair takes part in the unmatched mean as an image and as a caption: without both its weight would be too small.
    """
    u, v = u.double(), v.double()
    matched = (u * v).sum(1)
    to_others, of_others = ((own @ other.sum(0) - matched) / (len(u) - 1) for own, other in ((u, v), (v, u)))
    return (matched - to_others - of_others + to_others.mean()).numpy()


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
