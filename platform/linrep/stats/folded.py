"""The interval of a measure of all samples from its values without each of some groups of them."""

from collections.abc import Sequence

import numpy as np

from linrep.stats.interval import Interval
from linrep.stats.jackknife import error
from linrep.stats.wilson import of_bounded, of_clusters, unanimous


def folded(value: float, without: Sequence[float], n: int, most: float) -> Interval:
    """The interval of a value between 0 and 1 from its values without each of some groups of samples.

    Args:
        value: From all samples.
        without: From all but one group.
        n: Samples: they decide where all groups agree, as where everything is right.
        most: Most yes-or-no cases that say as much as the samples do; infinite for areas, whose pairs are many more.
    """
    left = np.array([v for v in without if np.isfinite(v)])
    if len(left) < 2:
        return Interval(value, float("nan"), float("nan"))
    if not np.ptp(left):
        return Interval(value, *unanimous(value, n))
    variance = error(left) ** 2
    found = of_bounded(value, variance, len(left)) if most > n else of_clusters(value, most, variance, len(left))
    return Interval(value, *found)
