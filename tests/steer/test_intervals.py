"""Intervals against the formula with loops and against coverage; matched damage by hand."""

import numpy as np
import pytest
from scipy.stats import t

from linrep.steer.intervals import at_matched_damage, estimate


def ring(n_classes, n_pairs):
    """Ordered pairs as a plan deals them: all with the next class, then all with the one after that."""
    return [(i % n_classes, (i % n_classes + 1 + i // n_classes) % n_classes) for i in range(n_pairs)]


def planted(n_classes, n_pairs, n_images, of_class, seed, mean=0.0):
    """Answers whose logit is the sum of a source's, a target's and an image's effect; an image serves all pairs of its class."""
    rng = np.random.default_rng(seed)
    source, target = np.repeat(np.array(ring(n_classes, n_pairs)), n_images, axis=0).T
    leaves, comes = rng.normal(0, of_class, (2, n_classes))
    image = source * n_images + np.tile(np.arange(n_images), n_pairs)
    logit = mean + leaves[source] + comes[target] + rng.normal(0, 0.5, n_classes * n_images)[image]
    return source, target, image, (rng.random(len(source)) < 1 / (1 + np.exp(-logit))).astype(float)


def by_loops(source, target, image, value):
    """Two-way variance of the mean, written out: sources, and targets, less what both count twice; images lie in sources."""
    away = value - value.mean()

    def of(clusters):
        kinds = sorted(set(clusters))
        sums = [sum(a for a, c in zip(away, clusters, strict=True) if c == kind) for kind in kinds]
        return len(kinds) / (len(kinds) - 1) * sum(s * s for s in sums) / len(away) ** 2

    s, both = of(source), of(list(zip(source, target, strict=True)))
    i, all_three = of(image), of(list(zip(target, image, strict=True)))
    tt = of(target)
    return max(s + tt + i - both - i - all_three + all_three, s, tt, both, i, all_three)


def test_the_interval_of_any_values_is_that_of_the_formula():
    source, target, image, _ = planted(6, 14, 3, 1.0, 0)
    value = np.random.default_rng(1).normal(0, 1, len(source)) + source
    found = estimate(source, target, image, value)
    reach = t.ppf(0.975, 5) * by_loops(source.tolist(), target.tolist(), image.tolist(), value) ** 0.5
    assert (found.value, found.n_pairs, found.n) == (pytest.approx(value.mean()), 14, 42)
    assert (found.low, found.high) == pytest.approx((value.mean() - reach, value.mean() + reach))


def test_it_covers_the_truth_where_pairs_share_classes_and_one_over_pairs_alone_does_not():
    """Two hundred pairs of sixteen classes: over pairs alone about half of the intervals hold the truth, .5 by symmetry."""
    held, naive = 0, 0
    for seed in range(40):
        source, target, image, value = planted(16, 200, 4, 1.0, seed)
        found = estimate(source, target, image, value, "share")
        held += found.low <= 0.5 <= found.high
        pairs = estimate(source * 16 + target, np.zeros_like(source), np.arange(len(source)), value, "share")
        naive += pairs.low <= 0.5 <= pairs.high
    assert held >= 35
    assert naive <= 29


def test_images_that_serve_several_pairs_count_once():
    """One source, eight targets, the same four images in each: what images do is known from four, whatever the pairs."""
    image = np.tile(np.arange(4), 8)
    found = estimate(np.zeros(32, int), np.repeat(np.arange(8), 4), image, (image < 2).astype(float), "share")
    assert found.high - found.low > 0.6  # two of four
    apart = estimate(np.zeros(32, int), np.repeat(np.arange(8), 4), np.arange(32), (image < 2).astype(float), "share")
    assert apart.high - apart.low < 0.4  # sixteen of thirty-two


def test_nothing_gives_nan_and_one_sample_gives_no_interval():
    one, two = np.array([0]), np.array([0, 0])
    assert np.isnan(estimate(one, one, one, np.array([np.nan])).value)
    for kind in ("share", "difference", "bounded", "any"):
        found = estimate(two, two, two, np.array([0.0, 1.0]), kind)
        assert (found.value, found.n) == (0.5, 1)
        assert np.isnan(found.low)


def test_a_share_of_none_or_all_leaves_the_room_that_as_many_pairs_leave():
    """Wilson's upper end at 0 of n is z^2/(n + z^2): 0.3244 for 8 pairs, 0.1072 for 32 images of a single pair."""
    pair, sample, zeros = np.repeat(np.arange(8), 4), np.arange(32), np.zeros(32, int)
    none = estimate(pair, pair, sample, np.zeros(32), "share")
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(0.3244, abs=1e-4)
    every = estimate(pair, pair, sample, np.ones(32), "share")
    assert (every.value, every.high) == (1, 1)
    assert every.low == pytest.approx(1 - 0.3244, abs=1e-4)
    assert estimate(zeros, zeros, sample, np.zeros(32), "share").high == pytest.approx(0.1072, abs=1e-4)
    same = estimate(pair, pair, sample, np.zeros(32), "difference")  # two directions that turn the same answers
    assert (same.low, same.high) == pytest.approx((-0.3244, 0.3244), abs=1e-4)
    alike = estimate(pair, pair, sample, np.full(32, 0.8))  # no share: alike because nothing acts
    assert (alike.low, alike.high) == pytest.approx((0.8, 0.8))


def test_shares_of_none_and_of_nearly_none_have_intervals_of_one_kind():
    """One of 32 in 8 pairs: the pairs say as much as 31 cases, 21 by Student's t. By hand: Wilson's 1 of 32 with n = 21.3."""
    pair, sample = np.repeat(np.arange(8), 4), np.arange(32)
    high = [estimate(pair, pair, sample, (sample < hits).astype(float), "share").high for hits in range(3)]
    assert high[0] == pytest.approx(0.324, abs=1e-3)
    assert high[1] == pytest.approx(0.202, abs=1e-3)
    assert high[2] > high[1]


def test_the_interval_of_a_rare_event_covers_it_also_where_none_was_seen():
    held = 0
    pair = np.repeat(np.arange(8), 4)
    for seed in range(60):
        value = (np.random.default_rng(seed).random(32) < 0.02).astype(float)  # half of these samples hold no event at all
        found = estimate(pair, pair, np.arange(32), value, "share")
        held += found.low <= 0.02 <= found.high
    assert held >= 54


def curves(*of_pairs, name="i"):
    """Curves of pairs 0 to 1, 1 to 2, ...; each pair's samples have names of their own."""
    return {
        (f"c{p}", f"c{p + 1}"): {f"{name}{p}-{i}": list(own) for i, own in enumerate(rows)} for p, rows in enumerate(of_pairs)
    }


def test_efficacy_at_matched_damage_by_hand():
    strengths = np.array([0.0, 1.0, 2.0])
    efficacy, damage = curves(*[[[0.0, 0.4, 0.8]]] * 3), curves(*[[[0.0, 0.1, 0.5]]] * 3)
    half = at_matched_damage(strengths, efficacy, damage, 0.3)  # half way from the second to the third strength
    assert (half.reached, half.strength, half.n_pairs) == (True, 1.5, 3)
    assert half.efficacy == pytest.approx(0.6)
    assert half.low == pytest.approx(half.high) == pytest.approx(0.6)  # equal pairs leave nothing open
    never = at_matched_damage(strengths, efficacy, damage, 0.9)
    assert (never.reached, never.strength) == (False, 2.0)
    assert never.efficacy == pytest.approx(0.8)


def test_a_direction_that_breaks_less_reaches_more_at_equal_damage():
    strengths, efficacy = np.array([0.0, 1.0, 2.0]), curves(*[[[0.0, 0.5, 0.9]]] * 2)
    gentle = at_matched_damage(strengths, efficacy, curves(*[[[0.0, 0.1, 0.2]]] * 2), 0.2)
    rough = at_matched_damage(strengths, efficacy, curves(*[[[0.0, 0.4, 0.8]]] * 2), 0.2)
    assert gentle.efficacy == pytest.approx(0.9)
    assert rough.efficacy == pytest.approx(0.25)


def test_the_interval_at_matched_damage_leaves_out_classes_images_and_texts():
    strengths = np.array([0.0, 1.0])
    flat, rising = [[0.0, 0.2]] * 6, [[0.0, 0.2]] * 4
    # By hand: five pairs whose efficacies are .1 .3 .5 .7 .9 have a mean of .5 with a standard error of .3162 / sqrt(5) = .1414,
    # and Student's t with 4 degrees of freedom is 2.776.
    efficacies, reach = (0.1, 0.3, 0.5, 0.7, 0.9), 2.776 * 0.1414
    spread = at_matched_damage(strengths, curves(*[[[0.0, e]] * 3 for e in efficacies]), curves(*[rising] * 5), 0.2)
    assert (spread.efficacy, spread.low, spread.high) == pytest.approx((0.5, 0.5 - reach, 0.5 + reach), abs=1e-3)
    one = {("a", "b"): {f"i{i}": [0.0, e] for i, e in enumerate(efficacies)}}
    of_images = at_matched_damage(strengths, one, {("a", "b"): {"t": [0.0, 0.2]}}, 0.2)
    assert of_images.high - of_images.low > 0.5  # a single pair: its images
    alone = at_matched_damage(strengths, {("a", "b"): {"i": [0.0, 0.8]}}, {("a", "b"): {"t0": [0, 0.2], "t1": [0, 0.4]}}, 0.1)
    assert np.isnan([alone.low, alone.high]).all()  # a single image says nothing of others, whatever the texts
    texts = {pair: {"t0": [0.0, 0.1], "t1": [0.0, 0.9]} for pair in curves(*[flat] * 5)}  # the same texts in every pair
    found = at_matched_damage(strengths, curves(*[flat] * 5), texts, 0.25)
    assert found.high - found.low > 0.02  # where the damage is reached is uncertain
    ragged = at_matched_damage(strengths, curves(flat, flat[:1]), curves(rising, rising[:2]), 0.2)
    assert (ragged.efficacy, ragged.low) == pytest.approx((0.2, 0.2))
