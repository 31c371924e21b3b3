"""Contrasts over layers: by hand, with the same parts left out at every layer, and as often right as they say."""

import numpy as np
import pytest

from linrep.stats.interval import Interval
from linrep.stats.trend import Layer, contrast, last_minus_first, slope, verdict
from linrep.stats.wilson import wilson

NONE = np.zeros(0)


def test_the_weights_are_those_of_a_difference_and_of_a_line():
    assert last_minus_first(3).tolist() == [-1, 0, 1]
    layers, values = [1, 2, 4, 8], np.array([0.3, 0.1, 0.7, 0.2])
    assert slope(layers) @ values == pytest.approx(np.polyfit(layers, values, 1)[0])


def test_what_layers_have_in_common_cancels():
    """By hand: both layers move together by 1, 2, 3 when a part is left out, and apart by -.1, 0, .1."""
    first = Layer(5.0, 0.0, 10.0, np.array([4.0, 5.0, 6.0]))
    last = Layer(7.0, 2.0, 12.0, np.array([5.9, 7.0, 8.1]))
    found = contrast(last_minus_first(2), [first, last], 100)
    # sqrt(2 / 3 * .02) times Student's 4.3027 with two degrees of freedom.
    assert (found.value, found.high - 2) == pytest.approx((2.0, 4.302653 * (2 / 3 * 0.02) ** 0.5))
    apart = contrast(last_minus_first(2), [first._replace(left_out=NONE), last._replace(left_out=NONE)], 100)
    assert apart.high - 2 == pytest.approx(50**0.5)


def test_parts_that_agree_wholly_leave_as_much_open_as_wilsons_interval():
    found_at_both = Layer(1.0, 0.8, 1.0, np.ones(16))
    found = contrast(last_minus_first(2), [found_at_both, found_at_both], 16)
    assert (found.value, found.high) == pytest.approx((0.0, 1 - wilson(1.0, 16)[0]))


def test_the_word_says_what_the_interval_holds():
    """A tenth of .5 is small."""
    words = {(0.2, 0.3): "rises", (-0.3, -0.2): "falls", (-0.04, 0.04): "flat", (0.01, 0.04): "flat", (-0.1, 0.2): "undecided"}
    assert {ends: verdict(Interval(0.0, *ends), 0.5) for ends in words} == words
    assert verdict(Interval(0.0, 0.001, 0.009), 0.0) == "flat"  # next to the null a thousandth is no rise


@pytest.mark.slow
@pytest.mark.parametrize("truth", [0.0, 0.3])
def test_the_interval_of_a_difference_holds_the_truth_as_often_as_it_says(truth):
    """Correlations of the same 400 pairs at two layers, with noise in common: marginal intervals are far too wide for it."""
    held, narrower = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        x, common, *own = rng.standard_normal((4, 400))
        layers = []
        for r, e in zip((0.3, 0.3 + truth), own, strict=True):
            y = r * x + (1 - r**2) ** 0.5 * (0.9 * common + (1 - 0.81) ** 0.5 * e)
            group = np.arange(400) % 20
            left = np.array([np.corrcoef(x[group != g], y[group != g])[0, 1] for g in range(20)])
            value, reach = np.corrcoef(x, y)[0, 1], 2.093 * (19 / 20 * ((left - left.mean()) ** 2).sum()) ** 0.5
            layers.append(Layer(value, value - reach, value + reach, left))
        found = contrast(last_minus_first(2), layers, 400)
        apart = contrast(last_minus_first(2), [one._replace(left_out=NONE) for one in layers], 400)
        held.append(found.low <= truth <= found.high)
        narrower.append((found.high - found.low) / (apart.high - apart.low))
    assert 0.92 <= np.mean(held) <= 0.985
    assert np.median(narrower) < 0.7
