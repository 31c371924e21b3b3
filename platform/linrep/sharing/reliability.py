"""Reliability: how well what one half of the pairs says of each latent agrees with what the other half says of it."""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float

from linrep.sharing.intervals import Measure
from linrep.stats.jackknife import jackknife


def reliabilities(
    halves: Mapping[str, tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]], counted: Bool[np.ndarray, " f"]
) -> Iterator[Measure]:
    """For each quantity its correlation over the latents between both halves, and the reliability of the whole that follows.

    The null of both is 0: halves that know nothing of each other. Intervals are over latents.

    Args:
        halves: What each half of the pairs says of every latent, by quantity; NaN where it says nothing.
        counted: Latents that fire often enough to count.

    Source: Spearman, "Correlation calculated from faulty data", 1910; Brown, "Some experimental results", 1910.
    """
    for name, (one, other) in halves.items():
        both = counted & np.isfinite(one) & np.isfinite(other)
        r, low, high = correlation(one[both], other[both])
        n = int(both.sum())
        yield Measure(f"split_half_{name}", r, low, high, 0.0, n)
        value, low, high = (spearman_brown(v) for v in (r, low, high))
        why = None
        if value < 0:
            value, why = float("nan"), f"the halves contradict each other ({r:.2f}): there is no reliability"
        yield Measure(f"reliability_{name}", value, low, high, 0.0, n, why=why)


def spearman_brown(r: float) -> float:
    """The reliability of twice as many pairs as gave a correlation; of negative ones it falls without end, and is not clipped."""
    return 2 * r / (1 + r) if r > -1 else float("nan") if r != r else -float("inf")


def correlation(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
    """Pearson's correlation with its 95% interval: a jackknife of Fisher's z, which asks for no normal values.

    NaN where one of them does not vary, or of fewer than four.

    Source: Fisher, "On the probable error of a coefficient of correlation", 1921; Miller, "The jackknife", 1974.
    """
    n = len(x)
    if n < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan"), float("nan"), float("nan")
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    # Without one of them, from the sums of all.
    a, b, m = -x, -y, n - 1
    cross, xx, yy = (x @ y - x * y) - a * b / m, (n - x * x) - a * a / m, (n - y * y) - b * b / m
    most = 1 - 1e-12  # z of halves that agree wholly is no number
    r = float(np.clip(x @ y / n, -most, most))
    with np.errstate(invalid="ignore", divide="ignore"):
        without = np.clip(cross / np.sqrt(xx * yy), -most, most)
    without = np.arctanh(without[np.isfinite(without)])
    low, high = jackknife(float(np.arctanh(r)), without)
    return r, float(np.tanh(low)), float(np.tanh(high))
