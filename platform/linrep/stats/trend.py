"""Whether a measure rises or falls over layers, from its values without the same parts of the data at every layer.

Values of two layers come from the same samples, so that they err together: what their marginal intervals say of the difference
is too little. Here one part after the other is left out at all layers at once, and what is jackknifed is the contrast itself.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from linrep.stats.interval import NOTHING, Interval
from linrep.stats.jackknife import jackknife
from linrep.stats.wilson import of_sum, unanimous

Verdict = Literal["rises", "falls", "flat", "undecided"]
TENTH = 0.1
"""Changes of less than this share of the distance from the null are called flat."""
SLIGHT = 0.01
"""And those of less than this, whatever the distance: a measure that is next to its null does not rise by a thousandth."""


class Layer(NamedTuple):
    """A measure at one layer."""

    value: float
    """The estimate."""
    low: float
    """Lower end of its own interval."""
    high: float
    """Upper end of it."""
    left_out: Float[np.ndarray, " g"]
    """Its values without each of g parts of the data, the same parts in the same order at every layer; none where not known."""


def last_minus_first(n: int) -> Float[np.ndarray, " n"]:
    """The weights of the last of n layers minus the first."""
    weights = np.zeros(n)
    weights[0], weights[-1] = -1.0, 1.0
    return weights


def slope(layers: Sequence[int]) -> Float[np.ndarray, " n"]:
    """The weights of the least-squares slope over some layers, a layer.

    >>> slope([1, 2, 3])
    array([-0.5,  0. ,  0.5])
    """
    away = np.asarray(layers, float) - np.mean(layers)
    return away / (away @ away)


def contrast(weights: Float[np.ndarray, " l"], layers: Sequence[Layer], n: int) -> Interval:
    """A weighted sum of the values at some layers, with its 95% interval.

    Where the parts agree wholly, as where all classes are found at both layers, a jackknife has no width: n cases may still be
    otherwise as Wilson's interval leaves open. Where what is left out is not known the layers count as independent.

    Args:
        weights: One for each layer; their sum is 0.
        layers: The measure.
        n: Independent cases.
    """
    value = float(weights @ [layer.value for layer in layers])
    if not math.isfinite(value):
        return NOTHING
    sizes = {len(layer.left_out) for layer in layers}
    if sizes != {0} and len(sizes) == 1:
        left = weights @ np.stack([layer.left_out for layer in layers])
        known = left[np.isfinite(left)]
        if len(known) > 1 and np.ptp(known) > 1e-12:
            return Interval(value, *jackknife(value, left))
        if len(known) > 1:
            return Interval(value, *unanimous(value, n, -1.0, 1.0))
        return Interval(value, math.nan, math.nan)
    parts = [(float(w), layer.value, layer.low, layer.high) for w, layer in zip(weights, layers, strict=True) if w]
    return Interval(value, *of_sum(parts))


def verdict(change: Interval, distance: float) -> Verdict:
    """One word on a change: rises or falls where its interval does not hold 0, flat where it holds small changes alone.

    A change is small that is less than a tenth of the distance from the null; see `TENTH` and `SLIGHT`.

    Args:
        change: With its interval.
        distance: Of the value that is further from the null.

    >>> verdict(Interval(0.2, 0.1, 0.3), 0.5), verdict(Interval(0.01, -0.02, 0.04), 0.5), verdict(Interval(0.1, -0.2, 0.4), 0.5)
    ('rises', 'flat', 'undecided')
    """
    small = max(TENTH * distance, SLIGHT)
    if -small <= change.low and change.high <= small:
        return "flat"
    return "rises" if change.low > 0 else "falls" if change.high < 0 else "undecided"
