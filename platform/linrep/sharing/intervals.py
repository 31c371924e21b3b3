"""Values with intervals: the jackknife for functions of sums, the bootstrap for means over pairs, Wilson's for shares."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.stats import t

from linrep.stats.wilson import wilson


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


def of_hits(
    metric: str,
    hits: Float[np.ndarray, " n"],
    null: float,
    halves: tuple[float, float] | None,
    classes: Int64[np.ndarray, " n"] | None = None,
) -> Measure:
    """The share of the pairs for which something holds, with Wilson's interval; half a pair counts half.

    Args:
        metric: Its name.
        hits: One value for each pair.
        null: The share that chance would give.
        halves: The share in each half of the pairs.
        classes: Class of each pair, where pairs of a class stand or fall together: a probe is right or wrong about a class.
    """
    share, n, noise = float(hits.mean()), len(hits), 0.0
    if classes is not None:
        sums = np.bincount(classes, hits - share)
        noise = max(0.0, float((sums**2).sum()) / n**2 - share * (1 - share) / n)
    return Measure(metric, share, *wilson(share, n, noise), null, n, halves)


def of_rows(
    metric: str,
    values: Float[np.ndarray, " n"],
    null: float | Float[np.ndarray, " m"],
    halves: tuple[float, float] | None,
    resamples: int,
    seed: int,
) -> Measure:
    """The mean of one value for each pair, with its bootstrap interval.

    Args:
        metric: Its name.
        values: One for each pair.
        null: The expected mean under the null, or its values under permutations.
        halves: The mean in each half of the pairs.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    low, high = bootstrap(values, resamples, seed)
    drawn = null if isinstance(null, np.ndarray) else None
    ends = (None, None) if drawn is None else tuple(float(q) for q in np.quantile(drawn, [0.025, 0.975]))
    return Measure(metric, float(values.mean()), low, high, float(np.mean(null)), len(values), halves, *ends)


def of_groups(
    metric: str,
    groups: int,
    measure: Callable[[Sequence[int]], float],
    null: float | None,
    n: int,
    ends: tuple[float, float] | None = None,
) -> Measure:
    """A function of groups' sums, with its jackknife interval and its value on both halves.

    Args:
        metric: Its name.
        groups: How many groups there are.
        measure: The value from some groups, by their numbers; it must not depend on their order.
        null: What it would be if there were nothing.
        n: Pairs in all groups.
        ends: Where the value cannot leave these ends, so that noise pulls it to one side, they are given: the value is then
            corrected by what the groups that are left out say of that bias.

    Source of the correction: Quenouille, "Notes on bias in estimation", 1956.
    """
    everyone = range(groups)
    value = measure(everyone)
    without = [measure([g for g in everyone if g != left]) for left in everyone]
    if ends is not None:
        kept = [w for w in without if math.isfinite(w)]
        value = len(kept) * value - (len(kept) - 1) * float(np.mean(kept)) if kept else value
        low, high = (min(max(end, ends[0]), ends[1]) for end in jackknife(value, without))
        value = min(max(value, ends[0]), ends[1])
    else:
        low, high = jackknife(value, without)
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

    """
    found = hits(range(groups))
    share, c = float(found.mean()), len(found)
    halves = (float(hits(range(groups)[::2]).mean()), float(hits(range(groups)[1::2]).mean()))
    return Measure(metric, share, *wilson(share, c), null, n, halves)


def mean_of_classes(
    metric: str, each: Callable[[Sequence[int]], Float[np.ndarray, " c"]], groups: int, null: float, n: int
) -> Measure:
    """The mean over the classes of something that noise makes smaller, corrected for that, with Student's interval over classes.

    Args:
        metric: Its name.
        each: The classes' values, between -1 and 1, from some groups of pairs.
        groups: How many groups there are.
        null: What it would be if classes meant nothing.
        n: Pairs in all groups.
    """
    everyone = range(groups)
    without = np.mean([each([g for g in everyone if g != left]) for left in everyone], axis=0)
    corrected = groups * each(everyone) - (groups - 1) * without
    value, c = float(corrected.mean()), len(corrected)
    reach = float(t.ppf(0.975, c - 1)) * float(corrected.std(ddof=1)) / math.sqrt(c)
    low, value, high = (min(max(v, -1.0), 1.0) for v in (value - reach, value, value + reach))
    halves = (float(each(everyone[::2]).mean()), float(each(everyone[1::2]).mean()))
    return Measure(metric, value, low, high, null, n, halves)
