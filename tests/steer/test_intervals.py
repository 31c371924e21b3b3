"""Intervals against a slow bootstrap and against coverage; matched damage by hand."""

import numpy as np
import pytest

from linrep.steer.intervals import N_DRAWS, at_matched_damage, estimate


def rows(n_pairs, n_samples, spread_pairs, spread_samples, seed, mean=0.3):
    rng = np.random.default_rng(seed)
    pair = np.repeat(np.arange(n_pairs), n_samples)
    sample = np.tile(np.arange(n_samples), n_pairs)
    value = mean + np.repeat(rng.normal(0, spread_pairs, n_pairs), n_samples) + rng.normal(0, spread_samples, len(pair))
    return pair, sample, value


def slowly(pair, sample, value, seed):
    """The same bootstrap with loops and other random numbers."""
    rng = np.random.default_rng(seed)
    groups = [[value[(pair == p) & (sample == s)] for s in np.unique(sample[pair == p])] for p in np.unique(pair)]
    means = []
    for _ in range(N_DRAWS):
        drawn = []
        for _ in groups:
            group = groups[rng.integers(len(groups))]
            for _ in group:
                drawn.extend(group[rng.integers(len(group))])
        means.append(np.mean(drawn))
    return np.quantile(means, [0.025, 0.975])


def test_the_interval_equals_a_slow_bootstrap_also_with_ragged_pairs_and_repeated_rows():
    pair, sample, value = rows(8, 5, 0.3, 0.2, seed=1)
    pair, sample, value = (np.concatenate([x, x[:7]]) for x in (pair, sample, value))  # some samples have two rows
    keep = np.arange(len(pair)) % 11 != 3
    pair, sample, value = pair[keep], sample[keep], value[keep]
    found = estimate(pair, sample, value)
    assert found.value == pytest.approx(value.mean())
    assert (found.n_pairs, found.n) == (8, len(set(zip(pair, sample, strict=True))))
    low, high = slowly(pair, sample, value, seed=2)
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_it_covers_the_truth_where_pairs_differ_and_one_that_ignores_pairs_does_not():
    hits, naive = 0, 0
    for seed in range(60):
        pair, sample, value = rows(15, 6, 0.3, 0.1, seed)
        found = estimate(pair, sample, value, seed)
        hits += found.low <= 0.3 <= found.high
        ignoring = estimate(np.arange(len(pair)), np.zeros_like(pair), value, seed)
        naive += ignoring.low <= 0.3 <= ignoring.high
    assert hits >= 51
    assert naive < hits - 8


def test_nothing_gives_nan_and_one_sample_gives_no_interval():
    assert np.isnan(estimate(np.array([0]), np.array([0]), np.array([np.nan])).value)
    one = estimate(np.array([0, 0]), np.array([3, 3]), np.array([0.0, 1.0]))
    assert (one.value, one.n) == (0.5, 1)
    assert np.isnan(one.low)


def test_efficacy_at_matched_damage_by_hand():
    strengths = np.array([0.0, 1.0, 2.0])
    efficacy, damage = np.array([[0.0, 0.4, 0.8]] * 3), np.array([[0.0, 0.1, 0.5]] * 3)
    efficacy, damage = list(efficacy[:, None]), list(damage[:, None])  # one photograph and one text for each pair
    half = at_matched_damage(strengths, efficacy, damage, 0.3)  # half way from the second to the third strength
    assert (half.reached, half.strength, half.n_pairs) == (True, 1.5, 3)
    assert half.efficacy == pytest.approx(0.6)
    assert half.low == pytest.approx(half.high) == pytest.approx(0.6)  # equal pairs leave nothing to draw
    never = at_matched_damage(strengths, efficacy, damage, 0.9)
    assert (never.reached, never.strength) == (False, 2.0)
    assert never.efficacy == pytest.approx(0.8)


def test_a_direction_that_breaks_less_reaches_more_at_equal_damage():
    strengths = np.array([0.0, 1.0, 2.0])
    efficacy = np.array([[0.0, 0.5, 0.9]] * 2)
    gentle = at_matched_damage(strengths, list(efficacy[:, None]), list(np.array([[[0.0, 0.1, 0.2]]] * 2)), 0.2)
    rough = at_matched_damage(strengths, list(efficacy[:, None]), list(np.array([[[0.0, 0.4, 0.8]]] * 2)), 0.2)
    assert gentle.efficacy == pytest.approx(0.9)
    assert rough.efficacy == pytest.approx(0.25)


def shares(n_pairs, n_samples, p, seed):
    rng = np.random.default_rng(seed)
    pair = np.repeat(np.arange(n_pairs), n_samples)
    return pair, np.tile(np.arange(n_samples), n_pairs), (rng.random(len(pair)) < p).astype(float)


def test_a_share_of_none_or_all_leaves_the_room_that_as_many_pairs_leave():
    """Wilson's upper end at 0 of n is z^2/(n + z^2): 0.3244 for 8 pairs, 0.1072 for 32 photographs of a single pair."""
    pair, sample = np.repeat(np.arange(8), 4), np.tile(np.arange(4), 8)
    none = estimate(pair, sample, np.zeros(32), span=(0.0, 1.0))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(0.3244, abs=1e-4)
    every = estimate(pair, sample, np.ones(32), span=(0.0, 1.0))
    assert (every.value, every.high) == (1, 1)
    assert every.low == pytest.approx(1 - 0.3244, abs=1e-4)
    assert estimate(np.zeros(32, int), np.arange(32), np.zeros(32), span=(0.0, 1.0)).high == pytest.approx(0.1072, abs=1e-4)
    same = estimate(pair, sample, np.zeros(32), span=(-1.0, 1.0))  # two directions that turn the same answers
    assert (same.low, same.high) == pytest.approx((-0.3244, 0.3244), abs=1e-4)
    alike = estimate(pair, sample, np.full(32, 0.8))  # no share: alike because nothing acts
    assert (alike.low, alike.high) == (0.8, 0.8)


def test_the_interval_of_a_rare_event_covers_it_also_where_none_was_seen():
    hits = 0
    for seed in range(60):
        found = estimate(*shares(8, 4, 0.02, seed), seed, span=(0.0, 1.0))  # half of these samples hold no event at all
        hits += found.low <= 0.02 <= found.high
    assert hits >= 54


def test_the_interval_at_matched_damage_draws_pairs_photographs_and_texts():
    strengths = np.array([0.0, 1.0])
    flat, rising = np.array([[0.0, 0.2]] * 6), np.array([[0.0, 0.2]] * 4)
    mixed = np.array([[0.0, 0.1], [0.0, 0.9]] * 3)  # photographs of a pair that differ; all pairs are alike
    spread = at_matched_damage(strengths, [mixed] * 5, [rising] * 5, 0.2)
    assert spread.efficacy == pytest.approx(0.5)
    # By hand: 30 photographs of standard deviation 0.4 have a mean with standard error 0.4/sqrt(30) = 0.073.
    assert spread.low == pytest.approx(0.5 - 1.96 * 0.073, abs=0.02)
    assert spread.high == pytest.approx(0.5 + 1.96 * 0.073, abs=0.02)
    texts = at_matched_damage(strengths, [flat] * 5, [np.array([[0.0, 0.1], [0.0, 0.9]])] * 5, 0.25)
    assert texts.high - texts.low > 0.02  # the same photographs, but where the damage is reached is uncertain
    pairs = at_matched_damage(strengths, [flat, 4 * flat, flat, 4 * flat], [rising] * 4, 0.2)
    assert pairs.high - pairs.low > 0.4
    ragged = at_matched_damage(strengths, [flat, flat[:1]], [rising, rising[:2]], 0.2)
    assert (ragged.efficacy, ragged.low) == pytest.approx((0.2, 0.2))
