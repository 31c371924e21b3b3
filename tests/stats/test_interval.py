"""An interval as readers see it."""

import math

import pytest

from linrep.stats.interval import in_brackets


def test_both_ends_stand_behind_the_value():
    assert in_brackets(-0.126, 0.5, "{:+.2f}".format) == " [-0.13, +0.50]"


@pytest.mark.parametrize(
    "ends", [(None, None), (None, 1.0), (0.0, None), (math.nan, math.nan), (0.0, math.nan), (-math.inf, 1.0)]
)
def test_an_end_that_is_not_known_is_never_shown(ends):
    assert in_brackets(*ends, str) == " [no interval: too few rows that differ]"
    assert in_brackets(*ends, str, otherwise="") == ""
