"""Geometry level, from sums: how near the two modalities lie by cosines, linear CKA and leading subspaces."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.linear import solve_damped
from linrep.sharing.config import Pooling, SharingConfig
from linrep.sharing.intervals import Measure, of_groups
from linrep.sharing.sums import PassSums, Sums

OF_EVERY_POOLING = ("hub", "cosine_matched", "cosine_unmatched", "gap_share")
"""Measures that are taken of every pooling, not only of means."""


def from_sums(found: PassSums, config: SharingConfig, pooling: Pooling = "mean") -> Iterator[Measure]:
    """All measures of the geometry level that need no rows; of other poolings than means those that compare pairs directly.

    Args:
        found: What a pass found.
        config: What to compare.
        pooling: Which tokens the rows are made of.
    """
    everything = found.everything
    wanted: list[tuple[str, Callable[[Sums], float], float | None]] = [
        ("hub", hub, 0.0),
        ("cosine_matched", lambda s: float(s.uv / s.n), unmatched(everything)),
        ("cosine_unmatched", unmatched, None),
        ("cosine_image", lambda s: float(s.u @ s.u - s.n) / _pairs(s), None),
        ("cosine_text", lambda s: float(s.v @ s.v - s.n) / _pairs(s), None),
        # Images of other pairs' captions correlate by 0 on average over the permutations, exactly.
        ("correlation", correlation, 0.0),
        ("gap_share", lambda s: gap_share(s, *found.references), 0.0),
        ("cka", cka, permuted_cka(everything)),
        # Its estimators of HSIC are zero on average over the permutations of the pairs, whatever their number.
        ("cka_debiased", debiased_cka, 0.0),
    ]
    for name, measure, null in wanted:
        if pooling != "mean" and name not in OF_EVERY_POOLING:
            continue
        yield of_groups(name, len(found.sums), partial(_of_groups_sums, found, measure), null, found.n)
    if pooling != "mean":
        return
    d = len(found.references[0])
    k = min(config.subspace, d)
    both = subspace_measures(found, k)
    # A subspace knows no pairs, so there is nothing to permute: the null is two subspaces drawn at random, whose mean squared
    # cosine is k / d.
    for at, (name, null) in enumerate((("subspace_overlap", k / d), ("subspace_cosine", _random_cosine(k, d, config.seed)))):
        yield of_groups(name, len(found.sums), lambda groups, at=at: both(groups)[at], null, found.n, (0.0, 1.0))


def _of_groups_sums(found: PassSums, measure: Callable[[Sums], float], groups: Sequence[int]) -> float:
    """A measure of some groups; NaN of a single pair, which has nothing to be compared with."""
    total = found.total(groups)
    return measure(total) if total.n > 1 else float("nan")


def _pairs(s: Sums) -> float:
    return float(s.n * (s.n - 1))


def unmatched(s: Sums) -> float:
    """Mean cosine of an image and another's caption, from sums of unit rows: what permuted pairs have on average."""
    return float(s.u @ s.v - s.uv) / _pairs(s)


def hub(s: Sums) -> float:
    """Mean cosine of an image and its caption, minus that of an image and another's caption.

    Source: Wu et al., "The Semantic Hub Hypothesis", ICLR 2025.
    """
    return float(s.uv / s.n) - unmatched(s)


def gap_share(s: Sums, a: Float[Tensor, " d"], b: Float[Tensor, " d"]) -> float:
    """Share of the variance of all rows that lies between the means of the modalities: 0 where they coincide.

    Of as many images as texts the variance is that within a modality, on average, plus a quarter of the squared distance of the
    means. What the draw of pairs adds to that distance is taken off, so that the value may be slightly below 0.

    Args:
        s: The sums.
        a: What images are measured from.
        b: What texts are measured from.
    """
    n = float(s.n)
    xx, yy, xy = (float(own.trace()) for own in scatters(s))
    gap = s.x / s.n + a - s.y / s.n - b
    between = (float(gap @ gap) - (xx + yy - 2 * xy) / (n * (n - 1))) / 4
    within = (xx + yy) / 2 / (n - 1)
    return between / (between + within) if between + within > 0 else float("nan")


def correlation(s: Sums) -> float:
    """Pearson's correlation of images with their captions about the means, over all dimensions at once.

    As `hub_centred` it knows no rotation, but long rows count more: it is a share of the spread, not of the rows.
    """
    xx, yy, xy = scatters(s)
    scale = float(xx.trace() * yy.trace()) ** 0.5
    return float(xy.trace()) / scale if scale > 0 else float("nan")


def cka(s: Sums) -> float:
    """Linear CKA of the centred rows, from cross-covariances; its bias grows as pairs become few against dimensions.

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019.
    """
    xx, yy, xy = scatters(s)
    scale = float(xx.norm() * yy.norm())
    return float(xy.square().sum()) / scale if scale > 0 else float("nan")


def permuted_cka(s: Sums) -> float:
    """Mean of the plain CKA over all permutations of the pairs, exactly: what its bias leaves of rows that share nothing.

    For centred kernels K and M of n rows the mean of tr(K P M P^T) over permutations P is tr(K) tr(M) / (n - 1).
    """
    xx, yy, _ = scatters(s)
    scale = float((s.n - 1) * xx.norm() * yy.norm())
    return float(xx.trace() * yy.trace()) / scale if scale > 0 else float("nan")


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


def subspace_measures(found: PassSums, k: int) -> Callable[[Sequence[int]], tuple[float, float]]:
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


def solve(scatter: Float[Tensor, "d d"], penalty: float, right: Float[Tensor, "d c"]) -> Float[Tensor, "d c"]:
    """The solution of (scatter + penalty I) w = right; zero where nothing varies."""
    if not penalty > 0:
        return torch.zeros_like(right)
    return solve_damped(scatter, penalty, right)
