"""The bootstrap over groups: rows of a group are drawn together, and all quantities see the same draws."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from linrep.stats.interval import ends

RESAMPLES = 1000
ROOM = 2**23
"""Weights held at once."""


def draws(groups: int, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "r g"]]:
    """How often each group is drawn in each resample, some resamples at a time.

    Args:
        groups: How many there are.
        resamples: Draws.
        seed: Of the draws.

    Source: Efron & Tibshirani, "An introduction to the bootstrap", 1993.
    """
    rng, step = np.random.default_rng(seed), max(1, ROOM // groups)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        yield rng.multinomial(groups, np.full(groups, 1 / groups), size=size).astype(float)


def of_mean(values: Float[np.ndarray, " n"], resamples: int, seed: int) -> tuple[float, float]:
    """The 95% interval of a mean over independent values; NaN of fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan")
    means = np.concatenate([some @ values / len(values) for some in draws(len(values), resamples, seed)])
    low, high = ends(means)
    return float(low), float(high)


def of_sums(
    sums: Float[np.ndarray, "n m"], statistic: Callable[[Float[np.ndarray, "r m"]], Float[np.ndarray, " r"]], seed: int = 0
) -> tuple[float, float]:
    """The 95% interval of a statistic of column sums; NaN of fewer than two rows, or where a resample has no value.

    Args:
        sums: A row for each independent unit.
        statistic: From column sums, a row a resample.
        seed: Of the draws.
    """
    if len(sums) < 2:
        return float("nan"), float("nan")
    values = np.concatenate([statistic(some @ sums) for some in draws(len(sums), RESAMPLES, seed)])
    low, high = ends(values)
    return float(low), float(high)
