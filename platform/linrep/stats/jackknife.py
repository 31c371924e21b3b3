"""The jackknife: the interval of a function of sums from its values with one group left out each."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from linrep.stats.interval import NOTHING, Interval, student


def error(without: Sequence[float] | Float[np.ndarray, " g"]) -> float:
    """The standard error of a value from its values with one of g groups left out each; NaN of fewer than two.

    Args:
        without: Values from all groups but one; those that are not finite are left out.

    Source: Tukey, "Bias and confidence in not-quite large samples", 1958.
    """
    kept = np.array([w for w in without if math.isfinite(w)])
    g = len(kept)
    return math.sqrt((g - 1) / g * float(((kept - kept.mean()) ** 2).sum())) if g > 1 else math.nan


def jackknife(value: float, without: Sequence[float] | Float[np.ndarray, " g"]) -> tuple[float, float]:
    """The 95% interval: Student's t with g - 1 degrees of freedom, as groups are few.

    Args:
        value: From all groups.
        without: From all but one; those that are not finite are left out.
    """
    reach = student(sum(math.isfinite(w) for w in without)) * error(without)
    return (value - reach, value + reach) if math.isfinite(reach) else (math.nan, math.nan)


def corrected(value: float, without: Sequence[float], lowest: float, highest: float) -> tuple[Interval, str | None]:
    """A value without the bias that noise gives it, as the groups that are left out say; and why not, where they cannot.

    The correction multiplies the noise of what is left out by the number of groups. It is of no use where it takes the value out
    of its range. The plain value then stands, with an interval that is wider by the bias. Nothing is clipped: an end of the range
    is no estimate.

    Args:
        value: From all groups.
        without: From all but one.
        lowest: Least value there can be.
        highest: Largest value there can be.

    Source: Quenouille, "Notes on bias in estimation", 1956.
    """
    kept = [w for w in without if math.isfinite(w)]
    if len(kept) < 2 or not math.isfinite(value):
        return NOTHING, "without some groups of pairs there is no value"
    bias, reach, noise = (len(kept) - 1) * (float(np.mean(kept)) - value), student(len(kept)), error(kept)
    if lowest <= value - bias <= highest:
        return Interval(value - bias, value - bias - reach * noise, value - bias + reach * noise), None
    wide = reach * math.hypot(noise, bias)
    return Interval(value, value - wide, value + wide), f"not corrected for noise, which would make it {value - bias:.2f}"
