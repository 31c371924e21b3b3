"""Values with intervals: the jackknife for functions of sums, the bootstrap for means over pairs, Wilson's for shares."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binomtest, t


@dataclass(frozen=True)
class Measure:
    """One number of the sharing table.

    Attributes:
        metric: Its name.
        value: The estimate from all pairs.
        low: Lower end of the 95% interval.
        high: Upper end.
        null: What there would be if the modalities shared nothing, or nothing told them apart; None where none is defined.
        n: Pairs (tokens, for latents) that it rests on.
        halves: The same from each half of the pairs.
        null_low: Lower end of the null's 95% range, where it was drawn.
        null_high: Upper end of it.
    """

    metric: str
    value: float
    low: float
    high: float
    null: float | None
    n: int
    halves: tuple[float, float] | None = None
    null_low: float | None = None
    null_high: float | None = None


def jackknife(value: float, without: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of a value from its values with one of g groups left out each.

    Args:
        value: From all groups.
        without: From all but one; those that are not finite are left out.

    Source: Tukey, 1958; Student's t with g - 1 degrees of freedom, as groups are few.
    """
    kept = np.array([w for w in without if math.isfinite(w)])
    g = len(kept)
    if g < 2:
        return float("nan"), float("nan")
    error = math.sqrt((g - 1) / g * float(((kept - kept.mean()) ** 2).sum()))
    reach = float(t.ppf(0.975, g - 1)) * error
    return value - reach, value + reach


def bootstrap(values: Float[np.ndarray, " n"], resamples: int, seed: int) -> tuple[float, float]:
    """The 95% interval of a mean over pairs, by drawing pairs with replacement."""
    if len(values) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def of_rows(
    metric: str,
    values: Float[np.ndarray, " n"],
    null: float | Float[np.ndarray, " m"] | None,
    resamples: int,
    seed: int,
    even: Sequence[bool] | None = None,
) -> Measure:
    """The mean of one value for each pair, with its interval.

    Args:
        metric: Its name.
        values: One for each pair.
        null: The expected mean under the null, or its values under permutations.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        even: Which pairs make the first half.
    """
    low, high = bootstrap(values, resamples, seed)
    drawn = null if isinstance(null, np.ndarray) else None
    ends = (None, None) if drawn is None else tuple(float(q) for q in np.quantile(drawn, [0.025, 0.975]))
    first = np.arange(len(values)) % 2 == 0 if even is None else np.array(even, bool)
    halves = (float(values[first].mean()), float(values[~first].mean())) if first.any() and not first.all() else None
    expected = float(drawn.mean()) if drawn is not None else None if null is None else float(np.mean(null))
    return Measure(metric, float(values.mean()), low, high, expected, len(values), halves, *ends)


def of_groups(
    metric: str,
    groups: int,
    measure: Callable[[Sequence[int]], float],
    null: float | None,
    n: int,
) -> Measure:
    """A function of groups' sums, with its jackknife interval and its value on both halves.

    Args:
        metric: Its name.
        groups: How many groups there are.
        measure: The value from some groups, by their numbers; it must not depend on their order.
        null: What it would be if there were nothing.
        n: Pairs in all groups.
    """
    everyone = range(groups)
    value = measure(everyone)
    low, high = jackknife(value, [measure([g for g in everyone if g != left]) for left in everyone])
    return Measure(metric, value, low, high, null, n, (measure(everyone[::2]), measure(everyone[1::2])))


def of_classes(metric: str, hits: Callable[[Sequence[int]], Bool[np.ndarray, " c"]], groups: int, null: float, n: int) -> Measure:
    """The share of the classes for which something holds, with Wilson's interval over the classes.

    A share of few classes moves in steps, which a jackknife over pairs cannot follow; and another set of classes would differ
    more than other pairs of the same ones.

    Args:
        metric: Its name.
        hits: For which classes it holds, from some groups of pairs.
        groups: How many groups there are.
        null: The share that chance would give.
        n: Pairs in all groups.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    found = hits(range(groups))
    low, high = binomtest(int(found.sum()), len(found)).proportion_ci(method="wilson")
    halves = (float(hits(range(groups)[::2]).mean()), float(hits(range(groups)[1::2]).mean()))
    return Measure(metric, float(found.mean()), float(low), float(high), null, n, halves)
