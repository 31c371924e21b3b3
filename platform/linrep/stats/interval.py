"""A value with its 95% interval, the interval of a plain mean, and an interval as readers see it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import t

LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
"""Shares of a distribution below both ends of an interval."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


NOTHING = Interval(math.nan, math.nan, math.nan)
NO_INTERVAL = " [no interval: too few rows that differ]"


def in_brackets(low: float | None, high: float | None, number: Callable[[float], str], otherwise: str = NO_INTERVAL) -> str:
    """Both ends of an interval, to stand behind its value.

    Args:
        low: Lower end; None or not finite where it is not known.
        high: Upper end, likewise.
        number: Writes one end.
        otherwise: What stands there if an end is not known; empty for measures that need not have an interval.

    >>> in_brackets(0.25, 0.75, "{:.2f}".format)
    ' [0.25, 0.75]'
    >>> in_brackets(math.nan, math.nan, "{:.2f}".format)
    ' [no interval: too few rows that differ]'
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return otherwise
    return f" [{number(low)}, {number(high)}]"


def student(groups: float) -> float:
    """How many standard errors an interval reaches where the error itself comes from some groups; infinite of one."""
    return float(t.ppf(TAILS[1], groups - 1)) if groups > 1 else math.inf


def of_mean(values: Float[np.ndarray, " n"]) -> Interval:
    """The mean of independent values, with Student's interval; without ends for fewer than two.

    >>> of_mean(np.array([1.0, 2.0, 3.0]))
    Interval(value=2.0, low=-0.48413771175033027, high=4.48413771175033)
    """
    n = len(values)
    if n < 2:
        return Interval(float(values[0]) if n else math.nan, math.nan, math.nan)
    mean, reach = float(values.mean()), student(n) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - reach, mean + reach)


def ends(draws: Float[np.ndarray, "r *rest"]) -> Float[np.ndarray, "2 *rest"]:
    """Both ends of the middle 95% of some draws, along the first axis."""
    return np.quantile(draws, TAILS, axis=0)
