"""Split-half correlations over latents and the reliability that follows from them."""

import numpy as np
import pytest

from linrep.sharing.reliability import correlation, reliabilities, spearman_brown


def test_spearman_and_browns_formula_is_theirs():
    """By hand: 2 r / (1 + r)."""
    assert [spearman_brown(r) for r in (0.0, 0.5, 1.0)] == pytest.approx([0, 2 / 3, 1])
    assert spearman_brown(-0.5) == -2  # no correlation, and not clipped to one


def test_halves_that_contradict_each_other_have_no_reliability():
    x = np.arange(10.0)
    split, whole = reliabilities({"x": (x, -x + np.sin(x))}, np.ones(10, bool))
    assert split.value < -0.9
    assert np.isnan(whole.value)
    assert "contradict" in str(whole.why)


def test_the_correlation_and_its_jackknife_are_those_of_the_slow_way():
    x, y = np.random.default_rng(0).standard_normal((2, 30))
    y = y + x
    without = [np.arctanh(np.corrcoef(np.delete(x, i), np.delete(y, i))[0, 1]) for i in range(30)]
    r, low, high = correlation(x, y)
    assert r == pytest.approx(np.corrcoef(x, y)[0, 1])
    error = np.sqrt(29 / 30 * ((without - np.mean(without)) ** 2).sum())
    # Student's with 29 degrees of freedom: 2.045.
    assert [np.arctanh(low), np.arctanh(high)] == pytest.approx(
        [np.arctanh(r) - 2.04523 * error, np.arctanh(r) + 2.04523 * error]
    )


def test_latents_that_do_not_count_or_of_which_a_half_says_nothing_are_left_out():
    x = np.array([0.0, 1, 2, 3, 4, 5, 100, np.nan])
    y = np.array([0.0, 1, 2, 3, 4, 6, -100, 1])
    found = list(reliabilities({"x": (x, y)}, np.arange(8) != 6))
    assert [m.metric for m in found] == ["split_half_x", "reliability_x"]
    r = np.corrcoef(x[:6], y[:6])[0, 1]
    assert [m.value for m in found] == pytest.approx([r, 2 * r / (1 + r)])
    assert [m.n for m in found] == [6, 6]
    assert all(m.low <= m.value <= m.high for m in found)
    assert all(m.null == 0 for m in found)


def test_halves_that_agree_wholly_or_do_not_vary_have_a_plain_answer():
    x = np.arange(10.0)
    assert correlation(x, 2 * x + 1) == pytest.approx((1, 1, 1))
    assert np.isnan(correlation(x, np.ones(10))).all()
    assert np.isnan(correlation(x[:3], x[:3])).all()
