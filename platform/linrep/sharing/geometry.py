"""Geometry level: how near the two modalities lie, by cosines, subspaces, neighbourhoods and a probe that tells them apart."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.sharing.config import SharingConfig
from linrep.sharing.intervals import Measure, of_groups, of_rows
from linrep.sharing.study import Pairs
from linrep.sharing.sums import Gathered, Sums, unit

ITERATIONS = 30
"""Of the clustering; it has settled long before, or goes round in circles of a few rows."""


def geometry(found: Gathered, pairs: Pairs, config: SharingConfig) -> list[Measure]:
    """All measures of the geometry level."""
    return [*_from_sums(found, config), *_from_rows(found, pairs, config)]


def _from_sums(found: Gathered, config: SharingConfig) -> Iterator[Measure]:
    k = min(config.subspace, len(found.references[0]))
    null_debiased, null_plain = permuted_cka(found, config)
    wanted: list[tuple[str, Callable[[Sums], float], float | None]] = [
        ("hub", hub, 0.0),
        ("cosine_matched", lambda s: float(s.uv / s.n), None),
        ("cosine_unmatched", lambda s: float(s.u @ s.v - s.uv) / _pairs(s), None),
        ("cosine_image", lambda s: float(s.u @ s.u - s.n) / _pairs(s), None),
        ("cosine_text", lambda s: float(s.v @ s.v - s.n) / _pairs(s), None),
        ("cka", cka, null_plain),
        ("cka_debiased", debiased_cka, null_debiased),
    ]
    for name, measure, null in wanted:
        yield of_groups(name, len(found.sums), lambda groups, measure=measure: measure(found.total(groups)), null, found.n)
    both = subspace_measures(found, k)
    # Directions drawn at random: the mean squared cosine between two k-dimensional subspaces of d dimensions is k / d.
    d = len(found.references[0])
    yield of_groups("subspace_overlap", len(found.sums), lambda groups: both(groups)[0], k / d, found.n)
    yield of_groups(
        "subspace_cosine", len(found.sums), lambda groups: both(groups)[1], _random_cosine(k, d, config.seed), found.n
    )


def _pairs(s: Sums) -> float:
    return float(s.n * (s.n - 1))


def hub(s: Sums) -> float:
    """Mean cosine of an image and its caption, minus that of an image and another's caption; the latter from sums of unit rows.

    Source: Wu et al., "The Semantic Hub Hypothesis", ICLR 2025.
    """
    return float(s.uv / s.n) - float(s.u @ s.v - s.uv) / _pairs(s)


def cka(s: Sums) -> float:
    """Linear CKA of the centred rows, from cross-covariances; its bias grows as pairs become few against dimensions.

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019.
    """
    xx, yy, xy = scatters(s)
    scale = float(xx.norm() * yy.norm())
    return float(xy.square().sum()) / scale if scale > 0 else float("nan")


def scatters(s: Sums) -> tuple[Tensor, Tensor, Tensor]:
    """Scatter of images, of texts, and of images with texts, about the means."""
    return tuple(w - torch.outer(a, b) / s.n for w, a, b in ((s.xx, s.x, s.x), (s.yy, s.y, s.y), (s.xy, s.x, s.y)))  # pyright: ignore[reportReturnType]


def debiased_cka(s: Sums) -> float:
    """Linear CKA with the unbiased estimators of HSIC, from the same sums: zero on average where nothing is shared.

    With centred rows the kernel's rows sum to zero, so the estimator needs the squared scatters, the sums of squared norms and
    the sums of their products over pairs, all of which follow from sums about any reference.

    Source: Song et al., "Feature selection via dependence maximization", 2012; Murphy et al., "Correcting biased CKA", 2024.
    """
    n = float(s.n)
    if n < 4:
        return float("nan")
    xx, yy, xy = scatters(s)
    p, q = float(xx.diagonal().sum()), float(yy.diagonal().sum())
    pp, pq, qq = _norm_products(s)

    def hsic(cross: Tensor, traces: float, products: float) -> float:
        inside = float(cross.square().sum()) - products + traces / ((n - 1) * (n - 2)) - 2 / (n - 2) * products
        return inside / (n * (n - 3))

    scale = hsic(xx, p * p, pp) * hsic(yy, q * q, qq)
    return hsic(xy, p * q, pq) / scale**0.5 if scale > 0 else float("nan")


def _norm_products(s: Sums) -> tuple[float, float, float]:
    """Sums over pairs of |x - mean|^2 |x - mean|^2, of |x - mean|^2 |y - mean|^2, and of |y - mean|^2 |y - mean|^2."""
    a, b, n = s.x / s.n, s.y / s.n, s.n
    aa, bb = a @ a, b @ b
    # |x - a|^2 = p - 2 a.x + aa with p = |x|^2, everything measured from the references; then the products term by term.
    pp = s.pq[0] + 4 * a @ s.xx @ a + n * aa**2 - 4 * a @ s.px[0] + 2 * aa * s.p - 4 * aa * (a @ s.x)
    qq = s.pq[2] + 4 * b @ s.yy @ b + n * bb**2 - 4 * b @ s.px[3] + 2 * bb * s.q - 4 * bb * (b @ s.y)
    pq = (
        s.pq[1] - 2 * b @ s.px[2] + bb * s.p - 2 * a @ s.px[1] + 4 * a @ s.xy @ b - 2 * bb * (a @ s.x)
        + aa * s.q - 2 * aa * (b @ s.y) + n * aa * bb
    )  # fmt: skip
    return float(pp), float(pq), float(qq)


def permuted_cka(found: Gathered, config: SharingConfig, draws: int = 5) -> tuple[float, float]:
    """Means of debiased and of plain CKA between the drawn images and the captions of others.

    The plain one is biased by what the number of pairs leaves: with fewer pairs in the reservoir than in all, it is too high.
    """
    rng = np.random.default_rng(config.seed)
    x, y = (centred(z).double() for z in (found.drawn.x, found.drawn.y))
    k, m = x @ x.T, y @ y.T
    scale = float((k.square().sum() * m.square().sum()).sqrt())
    plain, fair = [], []
    for _ in range(draws):
        order = torch.from_numpy(rng.permutation(len(y)))
        moved = m[order][:, order]
        plain.append(float((k * moved).sum()) / scale if scale > 0 else float("nan"))
        fair.append(unbiased_hsic(k, moved) / max(unbiased_hsic(k, k) * unbiased_hsic(m, m), 1e-300) ** 0.5)
    return float(np.mean(fair)), float(np.mean(plain))


def unbiased_hsic(k: Float[Tensor, "n n"], m: Float[Tensor, "n n"]) -> float:
    """The unbiased estimator of HSIC from two kernels, for rows that fit into memory."""
    n = len(k)
    k, m = k - torch.diag(k.diagonal()), m - torch.diag(m.diagonal())
    inside = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) @ m.sum(1))
    return float(inside) / (n * (n - 3))


def subspace_measures(found: Gathered, k: int) -> Callable[[Sequence[int]], tuple[float, float]]:
    """`principal_angles` of some groups; each set of groups is worked out once."""
    known: dict[tuple[int, ...], tuple[float, float]] = {}

    def measured(groups: Sequence[int]) -> tuple[float, float]:
        key = tuple(groups)
        if key not in known:
            known[key] = principal_angles(found.total(groups), k)
        return known[key]

    return measured


def principal_angles(s: Sums, k: int) -> tuple[float, float]:
    """Mean squared cosine, and largest cosine, of the principal angles between the leading subspaces; both means removed.

    Source: Björck & Golub, "Numerical methods for computing angles between linear subspaces", 1973.
    """
    xx, yy, _ = scatters(s)
    if float(xx.diagonal().sum()) <= 0 or float(yy.diagonal().sum()) <= 0:
        return float("nan"), float("nan")
    cosines = torch.linalg.svdvals(torch.linalg.eigh(xx)[1][:, -k:].T @ torch.linalg.eigh(yy)[1][:, -k:]).clamp(max=1)
    return float(cosines.square().mean()), float(cosines[0])


def _random_cosine(k: int, d: int, seed: int, draws: int = 5) -> float:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        one, other = (np.linalg.qr(rng.standard_normal((d, k)))[0] for _ in range(2))
        found.append(float(np.linalg.svd(one.T @ other, compute_uv=False)[0]))
    return float(np.mean(found))


def _from_rows(found: Gathered, pairs: Pairs, config: SharingConfig) -> Iterator[Measure]:
    drawn = found.drawn
    even = (pairs.group[drawn.pair] % 2 == 0).tolist()
    rng = np.random.default_rng(config.seed)
    n = len(drawn.pair)

    def row(name: str, values: np.ndarray, null: float | np.ndarray | None) -> Measure:
        return of_rows(name, values, null, config.resamples, config.seed, even)

    u, v = unit(centred(drawn.x)), unit(centred(drawn.y))
    cosines = (u @ v.T).double().numpy()
    permuted = np.array([cosines[np.arange(n), rng.permutation(n)].mean() for _ in range(config.resamples)])
    others = (cosines.sum(1) - cosines.diagonal()) / (n - 1)
    yield row("cosine_matched_centred", cosines.diagonal().copy(), permuted)
    yield row("hub_centred", cosines.diagonal() - others, permuted - others.mean())
    yield row("pair_retrieval_image_to_text", (cosines.argmax(1) == np.arange(n)).astype(float), 1 / n)
    yield row("pair_retrieval_text_to_image", (cosines.argmax(0) == np.arange(n)).astype(float), 1 / n)
    k = min(config.neighbours, n - 1)
    # Two sets of k out of n - 1 drawn at random share k^2 / (n - 1) on average.
    yield row("neighbourhood_overlap", neighbourhood_overlap(u, v, k), k / (n - 1))
    right, control = modality_probe(found, pairs, config)
    yield row("modality_probe", right, float(control.mean()))
    labels, assigned = cluster(drawn.x, drawn.y, config)
    shuffled = np.array([homogeneity(rng.permutation(labels), assigned) for _ in range(50)])
    value = homogeneity(labels, assigned)
    # Rows of a pair are drawn together; clusters stay as they are.
    draws = [rng.integers(n, size=n) for _ in range(config.resamples)]
    spread = [
        homogeneity(np.concatenate([labels[i], labels[n + i]]), np.concatenate([assigned[i], assigned[n + i]])) for i in draws
    ]
    low, high = (float(q) for q in np.quantile(spread, [0.025, 0.975]))
    first = np.tile(np.array(even, bool), 2)
    halves = (homogeneity(labels[first], assigned[first]), homogeneity(labels[~first], assigned[~first]))
    ends = tuple(float(q) for q in np.quantile(shuffled, [0.025, 0.975]))
    yield Measure("cluster_homogeneity", value, low, high, float(shuffled.mean()), n, halves, *ends)


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
    found: Gathered, pairs: Pairs, config: SharingConfig
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Share of a pair's two rows that a linear probe of the modality gets right, and of its control with swapped labels.

    Least squares from the sums of all other groups, scored on the drawn rows of the one left out: each pair is held out once.
    """
    drawn, (a, b) = found.drawn, found.references
    right, control = np.zeros(len(drawn.pair)), np.zeros(len(drawn.pair))
    for g in range(len(found.sums)):
        own = np.flatnonzero(pairs.group[drawn.pair] == g)
        if not len(own):
            continue
        s = found.everything - found.sums[g]
        gap = (s.x + s.n * a - s.y - s.n * b) / s.n
        xx, yy, _ = scatters(s)
        scatter = xx + yy + s.n / 2 * torch.outer(gap, gap)
        middle = ((s.x / s.n + a) + (s.y / s.n + b)) / 2
        directions = solve(scatter, config.ridge * float(scatter.diagonal().mean()), torch.stack([gap, s.swapped / s.n], dim=1))
        at = torch.from_numpy(own)
        of_image, of_text = ((z[at].double() - middle) @ directions for z in (drawn.x, drawn.y))
        right[own] = ((of_image[:, 0] > 0).double() + (of_text[:, 0] < 0).double()).numpy() / 2
        keeps = torch.from_numpy(~pairs.swapped[drawn.pair[own]])
        control[own] = (((of_image[:, 1] > 0) == keeps).double() + ((of_text[:, 1] < 0) == keeps).double()).numpy() / 2
    return right, control


def solve(scatter: Float[Tensor, "d d"], penalty: float, right: Float[Tensor, "d c"]) -> Float[Tensor, "d c"]:
    """The solution of (scatter + penalty I) w = right; zero where nothing varies."""
    if not penalty > 0:
        return torch.zeros_like(right)
    damped = scatter.clone()
    damped.diagonal().add_(penalty)
    return torch.linalg.solve(damped, right)


def cluster(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], config: SharingConfig
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Modality (0 image, 1 text) and cluster of all rows: k-means on unit rows, seeded, started by distance (k-means++)."""
    rows = torch.cat([unit(x), unit(y)])
    rng = np.random.default_rng(config.seed)
    k = min(config.clusters, len(rows))
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
    return np.repeat([0, 1], [len(x), len(y)]), assigned.numpy()


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
