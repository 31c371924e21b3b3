"""Intervals of shares and probabilities from crossed designs: known limits, values by hand, and the set of p written out."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import t

from linrep.stats import crossed
from linrep.stats.wilson import Z, of_varying, wilson

PAIR = np.repeat(np.arange(8), 4)
"""Eight pairs of four answers; no pair shares a class."""


def by_scan(mean, variance, clusters, cases=math.inf):
    """All p of a fine grid whose variance allows the mean, with the formula of the docstring read literally."""
    p = np.linspace(0, 1, 200_001)[1:-1]
    r, spread = p * (1 - p) / (mean * (1 - mean)), mean * (1 - mean)
    drawing = min(variance, spread / (cases - 1))
    between = variance - drawing
    c = min(1.0, between * clusters / spread)
    wide = variance * (t.ppf(0.975, clusters - 1) / Z) ** 2
    if cases < math.inf:
        wide = min(max(wide, spread / cases), spread / clusters)
    total = wide / variance * (drawing * r + between * r**2 / (1 - c + c * r))
    held = p[(mean - p) ** 2 <= Z**2 * total]
    return held[0], held[-1]


@pytest.mark.parametrize(
    ("mean", "variance", "clusters", "cases"),
    [
        (0.1, 0.004, 8, math.inf),
        (0.9, 0.004, 8, math.inf),
        (0.02, 0.0001, 16, math.inf),
        (0.3, 0.02, 3, math.inf),
        (0.25, 0.01, 8, 32),
        (0.06, 0.0004, 10, 360),
    ],
)
def test_the_interval_is_the_set_of_shares_that_allow_the_mean(mean, variance, clusters, cases):
    assert of_varying(mean, variance, clusters, cases) == pytest.approx(by_scan(mean, variance, clusters, cases), abs=1e-5)


def test_small_effects_on_the_logit_by_hand():
    """Two clusters of mean .1 that hardly differ: t = 12.706, k = t * sqrt(.000045) / .09 = .947. Where the variance goes as the
    square, p - .1 = k p (1 - p), so that k p^2 + (1 - k) p - .1 = 0 and p = .298; below, k p^2 - (1 + k) p + .1 = 0, p = .0527.
    """
    assert of_varying(0.1, 0.000045, 2) == pytest.approx((0.0527, 0.298), abs=1e-3)


def test_clusters_that_are_all_yes_or_all_no_have_wilsons_interval_by_hand():
    """Two of four: t = 3.182, (p - .5)^2 = t^2 / 4 * p (1 - p), so that p = .5 -+ (t / 4) / sqrt(1 + t^2 / 4) = .5 -+ .4233."""
    assert of_varying(0.5, 0.25 / 4, 4) == pytest.approx((0.0767, 0.9233), abs=1e-4)
    assert of_varying(0.2, 0.16 / 5, 5) == pytest.approx(wilson(0.2, 5 * (Z / t.ppf(0.975, 4)) ** 2))


def test_without_effects_of_classes_a_share_has_wilsons_interval():
    """One of 32: the pairs differ as much as independent answers do, which have the variance p (1 - p) / 31."""
    one = (np.arange(32) == 5).astype(float)
    assert crossed.share(one, [PAIR]) == pytest.approx(wilson(1 / 32, 31 * (Z / t.ppf(0.975, 7)) ** 2))
    # One yes in each of four pairs, two in each of the others: pairs differ less than chance makes them, and no answer is lost.
    even = (np.arange(32) % 4 < 1 + PAIR % 2).astype(float)
    assert crossed.share(even, [PAIR]) == pytest.approx(wilson(12 / 32, 32))


def test_answers_that_stand_or_fall_with_their_pair_count_once():
    """Two of eight pairs turn in all of their answers: about Wilson's of 2 of 8, whatever Student's t says."""
    assert crossed.share((PAIR < 2).astype(float), [PAIR]) == pytest.approx(wilson(0.25, 8), abs=0.02)


@pytest.mark.parametrize("interval", [crossed.share, crossed.bounded])
def test_yes_and_no_are_the_same_question(interval):
    rng = np.random.default_rng(0)
    ids = (rng.integers(0, 6, 60), rng.integers(0, 6, 60))
    value = rng.beta(0.3, 2, 60) if interval is crossed.bounded else (rng.random(60) < 0.1).astype(float)
    low, high = interval(value, ids)
    assert interval(1 - value, ids) == pytest.approx((1 - high, 1 - low))


def test_the_ends_stay_between_0_and_1_around_the_mean():
    for mean in (1e-6, 0.001, 0.05, 0.5, 0.95, 0.999, 1 - 1e-6):
        for clusters in (2, 3, 8, 100):
            for part in (1e-9, 0.001, 0.1, 1.0):  # of the largest variance that there can be
                for cases in (math.inf, 4 * clusters):
                    low, high = of_varying(mean, part * mean * (1 - mean), clusters, cases)
                    assert 0 <= low < mean < high <= 1


@pytest.mark.parametrize("cases", [math.inf, 400])
def test_larger_effects_of_classes_make_it_wider(cases):
    ends = [of_varying(0.1, variance, 16, cases) for variance in (0.0003, 0.0006, 0.0012, 0.0024, 0.005)]
    assert all(b[0] < a[0] and a[1] < b[1] for a, b in pairwise(ends))


def test_effects_planted_in_classes_widen_the_interval_of_the_same_probabilities():
    rng = np.random.default_rng(1)
    source, target = np.divmod(np.arange(100), 10)
    logit = -3 + rng.normal(0, 1, 10)[source]
    value = 1 / (1 + np.exp(-logit))
    planted, mixed = crossed.bounded(value, (source, target)), crossed.bounded(rng.permutation(value), (source, target))
    assert planted[1] - planted[0] > 1.5 * (mixed[1] - mixed[0])


def test_near_the_ends_it_reaches_further_to_the_middle_than_one_that_takes_all_for_drawing():
    """Eight clusters of mean .1 and standard error .05: Wilson's of as much variance has both ends too low."""
    plain = wilson(0.1, 0.09 / 0.05**2 * (Z / t.ppf(0.975, 7)) ** 2)
    found = of_varying(0.1, 0.05**2, 8)
    assert found[0] > plain[0]
    assert found[1] > plain[1] + 0.02
    middle = of_varying(0.5, 0.05**2, 8)
    assert middle == pytest.approx(wilson(0.5, 0.25 / 0.05**2 * (Z / t.ppf(0.975, 7)) ** 2), abs=0.003)  # nothing to separate


def test_probabilities_that_are_all_the_same_leave_nothing_open_and_one_cluster_all():
    same = np.full(32, 0.2)
    assert crossed.bounded(same, [PAIR]) == pytest.approx((0.2, 0.2))
    assert all(math.isnan(end) for end in crossed.bounded(same, [np.zeros(32, int)]))
    assert all(math.isnan(end) for end in crossed.share(np.ones(32), [np.zeros(32, int)]))
