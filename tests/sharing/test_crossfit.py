"""Cosines of class directions where pairs share more than their class: the truth, a null of nothing, and no value from noise."""

import numpy as np
import pytest

from linrep.sharing.config import SharingConfig
from linrep.sharing.crossfit import ValueSums, direction_cosine, finds_its_class, value_sums
from linrep.sharing.intervals import Measure
from tests.sharing.planted import in_memory

N, D, C = 800, 32, 10
CONFIG = SharingConfig(groups=20, reservoir=64)


def of_class(x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> ValueSums:
    pairs, sums = in_memory(x, y, labels, CONFIG)
    return next(value_sums(sums, pairs))


def planted(seed: int, shared: float, nuisance: float = 0.5, size: float = 1.0, heavy: float = 0.0, n: int = N):
    """Pairs whose class directions have a squared cosine in common, and whose rows share a nuisance that is no class.

    Args:
        seed: Of the world.
        shared: Cosine of a class's direction in images with that in texts, on average over classes.
        nuisance: Deviation of what an image and its caption have in common beside the class.
        size: Length of class directions; 0 for labels that mean nothing.
        heavy: Scale of an axis with heavy tails, in each modality its own draws.
        n: Pairs.
    """
    rng = np.random.default_rng(seed)
    both, image, text = rng.standard_normal((3, C, D)) / D**0.5
    labels = rng.integers(C, size=n)
    common = nuisance * rng.standard_normal((n, D))
    rows = []
    for own in (image, text):
        noise = 0.5 * rng.standard_normal((n, D))
        noise[:, 0] += heavy * rng.standard_t(3, n)
        rows.append(size * (shared**0.5 * both + (1 - shared) ** 0.5 * own)[labels] + common + noise)
    return of_class(*rows, labels)


def found(*args, **kwargs) -> Measure:
    return direction_cosine(planted(*args, **kwargs), 0)


def test_what_pairs_share_beside_their_class_is_no_likeness_of_classes():
    """Two of the worlds in which the cosine of plain class means is .3 to .7 by the nuisance alone."""
    for shared in (0.0, 0.5):
        some = [found(seed, shared) for seed in range(3)]
        assert np.mean([m.value for m in some]) == pytest.approx(shared, abs=0.12)
        for m in some:
            assert m.low <= shared <= m.high
            assert m.null == 0
            assert -0.4 < m.null_low < 0 < m.null_high < 0.4


def test_directions_that_are_noise_have_no_cosine_and_say_why():
    """Nothing is clipped to 1.00 [1.00, 1.00]: labels that mean nothing, and one heavy axis that drowns what they mean."""
    for seed in range(3):
        m = found(seed, 0.0, size=0.0)
        assert np.isnan([m.value, m.low, m.high]).all()
        assert m.why == "the pairs do not separate classes in images and texts: their directions are noise"
        heavy = found(seed, 0.0, heavy=8.0)
        assert np.isnan(heavy.value) or heavy.low <= 0 <= heavy.high
        assert not abs(heavy.value) >= 1


def test_few_classes_have_an_interval_over_pairs_and_say_so():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=400)
    own = 2.0 * labels[:, None] * np.eye(8)[0]
    x, y = (own + rng.standard_normal((400, 8)) for _ in range(2))
    m = direction_cosine(of_class(x, y, labels), 0)
    assert m.low <= 1 <= m.high
    assert m.high - m.low < 0.4
    assert m.why == "2 classes: the interval is over pairs alone"


def test_a_class_is_not_found_by_its_own_pairs_nuisance():
    """Plain class means of shared pairs find their class in nine of ten here, where classes mean nothing."""
    hits = [finds_its_class(planted(seed, 0.0, nuisance=2.0, size=0.0), range(20), 1).mean() for seed in range(6)]
    assert np.mean(hits) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("size", [0.6, 1.0])
def test_the_interval_holds_the_truth_of_classes_as_often_as_it_says(shared, size):
    some = [found(seed, shared, size=size) for seed in range(200)]
    defined = [m for m in some if np.isfinite(m.value)]
    assert len(defined) >= 190
    held = np.mean([m.low <= shared <= m.high for m in defined])
    assert held >= 0.92 - 0.03
    assert np.mean([m.value for m in defined]) == pytest.approx(shared, abs=0.03)


@pytest.mark.slow
def test_of_heavy_tails_intervals_that_are_given_hold_the_truth():
    some = [found(seed, 0.0, heavy=heavy) for heavy in (1.0, 2.0, 5.0) for seed in range(100)]
    defined = [m for m in some if np.isfinite(m.value)]
    assert np.mean([m.low <= 0 <= m.high for m in defined]) >= 0.9
    assert len(defined) < len(some)
