"""Intervals of shares: Wilson's published ones, and what n cases that agree leave open."""

import math

import pytest

from linrep.stats.wilson import unanimous, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(10, 10, 0.7225, 1.0), (0, 10, 0.0, 0.2775), (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(hits, n, low, high):
    """Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I (method 3); 10 of 10 by hand:
    n / (n + 1.96^2) = 10 / 13.84."""
    assert wilson(hits / n, n) == pytest.approx((low, high), abs=6e-5)


def test_no_cases_say_nothing():
    assert all(math.isnan(end) for end in wilson(0.5, 0))


def test_cases_that_agree_leave_open_what_wilson_leaves_open():
    assert unanimous(1.0, 10) == pytest.approx(wilson(1.0, 10))
    assert unanimous(0.0, 10) == pytest.approx(wilson(0.0, 10))
    # A difference between -1 and 1 that is nothing ten times: 0.2775 of the cases may be either way.
    assert unanimous(0.0, 10, lowest=-1.0) == pytest.approx((-0.2775, 0.2775), abs=6e-5)
    assert unanimous(1.0, 10, lowest=-1.0) == pytest.approx((1 - 2 * 0.2775, 1.0), abs=1e-4)
