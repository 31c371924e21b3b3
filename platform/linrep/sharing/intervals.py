"""Values with intervals: the jackknife for functions of sums, Student's for means over pairs, Wilson's for shares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int64

from linrep.stats.interval import of_mean
from linrep.stats.jackknife import corrected, jackknife
from linrep.stats.nulls import Null, of_draws
from linrep.stats.wilson import of_clusters, wilson


@dataclass(frozen=True)
class Measure:
    """One number of the sharing table.

    Attributes:
        metric: Its name.
        value: The estimate from all pairs.
        low: Lower end of the 95% interval.
        high: Upper end.
        null: What there would be if the modalities shared nothing, or nothing separated them; None where none is defined.
        n: Pairs (tokens, for latents) that it rests on.
        halves: The same from each half of the pairs.
        null_low: Lower end of the null's 95% range, where it was drawn.
        null_high: Upper end of it.
        why: Why there is no value, or none that is corrected; None where nothing is to be said.
        attribute: Whose values the number is about: class, or a column of the attributes; None where it is about none.
        left_out: The value without each of some parts of the data, by the part's name: "pairs 3" is a group of pairs, "class
            boat" a class. A part has the same pairs at every layer, which trends use. Empty where there are none.
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
    why: str | None = None
    attribute: str | None = None
    left_out: Mapping[str, float] = field(default_factory=dict)


def without_groups(values: Sequence[float], groups: Sequence[int] | None = None) -> dict[str, float]:
    """Values without each group of pairs, named as `Measure.left_out` has them."""
    numbers = range(len(values)) if groups is None else groups
    return {f"pairs {g}": float(value) for g, value in zip(numbers, values, strict=True)}


def without_classes(values: Sequence[float] | Float[np.ndarray, " c"], classes: Sequence[str]) -> dict[str, float]:
    """Values without each class, likewise."""
    return {f"class {name}": float(value) for name, value in zip(classes, values, strict=True)}


def mean_without(values: Float[np.ndarray, " n"], part: Int64[np.ndarray, " n"], n_parts: int) -> Float[np.ndarray, " g"]:
    """The mean of some values without each part; NaN where nothing else is left."""
    sums, counts = np.bincount(part, values, n_parts), np.bincount(part, minlength=n_parts)
    left = len(values) - counts
    return np.divide(values.sum() - sums, left, out=np.full(n_parts, np.nan), where=left > 0)


def of_hits(
    metric: str,
    hits: Float[np.ndarray, " n"],
    null: float,
    halves: tuple[float, float] | None,
    classes: Int64[np.ndarray, " n"] | None = None,
    left_out: Mapping[str, float] | None = None,
) -> Measure:
    """The share of the pairs for which something holds, with Wilson's interval; half a pair counts half.

    Args:
        metric: Its name.
        hits: One value for each pair.
        null: The share that chance would give.
        halves: The share in each half of the pairs.
        classes: Class of each pair, where pairs of a class stand or fall together: a probe is right or wrong about a class.
        left_out: The share without each part of the data, see `Measure`.
    """
    share, n = float(hits.mean()), len(hits)
    found = wilson(share, n)
    if classes is not None and 0 < share < 1:  # of hits that are all alike classes do not say how far they stand together
        sums = np.bincount(np.unique(classes, return_inverse=True)[1], hits - share)
        g = len(sums)
        found = of_clusters(share, n, float((sums**2).sum()) / n**2 * g / (g - 1), g) if g > 1 else found
    return Measure(metric, share, *found, null, n, halves, left_out=left_out or {})


def of_rows(
    metric: str,
    values: Float[np.ndarray, " n"],
    null: float | Float[np.ndarray, " m"],
    halves: tuple[float, float] | None,
    left_out: Mapping[str, float] | None = None,
) -> Measure:
    """The mean of one value for each pair, with Student's interval.

    Args:
        metric: Its name.
        values: One for each pair.
        null: The expected mean under the null, or its values under permutations.
        halves: The mean in each half of the pairs.
        left_out: The mean without each part of the data, see `Measure`.
    """
    found = of_mean(values)
    drawn = of_draws(null) if isinstance(null, np.ndarray) else Null(null, float("nan"), float("nan"))
    ends = (drawn.low, drawn.high) if isinstance(null, np.ndarray) else (None, None)
    return Measure(metric, found.value, found.low, found.high, drawn.value, len(values), halves, *ends, left_out=left_out or {})


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
            corrected by what the groups that are left out say of that bias, where they can, see `linrep.stats.jackknife`.
    """
    everyone = range(groups)
    value = measure(everyone)
    without = [measure([g for g in everyone if g != left]) for left in everyone]
    halves = (measure(everyone[::2]), measure(everyone[1::2]))
    left_out = without_groups(without)
    if ends is None:
        return Measure(metric, value, *jackknife(value, without), null, n, halves, left_out=left_out)
    found, why = corrected(value, without, *ends)
    return Measure(metric, found.value, found.low, found.high, null, n, halves, why=why, left_out=left_out)


def of_classes(
    metric: str,
    hits: Callable[[Sequence[int]], Bool[np.ndarray, " c"]],
    groups: int,
    null: float,
    n: int,
    names: Sequence[str],
    attribute: str,
) -> Measure:
    """The share of the classes for which something holds, with Wilson's interval over the classes.

    A share of few classes moves in steps, which a jackknife over pairs cannot follow; and another set of classes would differ
    more than other pairs of the same ones.

    Args:
        metric: Its name.
        hits: For which classes it holds, from some groups of pairs.
        groups: How many groups there are.
        null: The share that chance would give.
        n: Pairs in all groups.
        names: The classes in words.
        attribute: Of which they are the values.
    """
    found = hits(range(groups))
    share, c = float(found.mean()), len(found)
    halves = (float(hits(range(groups)[::2]).mean()), float(hits(range(groups)[1::2]).mean()))
    left_out = without_classes(mean_without(found.astype(float), np.arange(c), c), names)
    return Measure(metric, share, *wilson(share, c), null, n, halves, attribute=attribute, left_out=left_out)
