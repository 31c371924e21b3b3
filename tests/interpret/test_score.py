"""Balanced accuracy by hand, its interval, and what is silent or fires by a slow count."""

import numpy as np
import pytest

from linrep.contents.stored import Token
from linrep.interpret.firing import Firing
from linrep.interpret.score import mean_overlap, overlap, score_answers
from tests.interpret.worlds import Codes


def test_balanced_accuracy_by_hand():
    truth = [True] * 4 + [False] * 8 + [True]
    said = [True, True, True, False] + [True, True] + [False] * 6 + [None]
    hard = [False] * 4 + [True] * 4 + [False] * 5
    found = score_answers(truth, said, hard)
    assert found.sensitivity == 0.75
    assert found.specificity == 0.75
    assert found.specificity_hard == 0.5
    assert found.value == 0.75
    assert (found.n_positive, found.n_negative, found.n_hard, found.n_unanswered) == (4, 8, 4, 1)
    assert found.low < 0.75 < found.high


def test_who_always_says_the_same_scores_one_half_whatever_the_numbers():
    for said in (True, False):
        found = score_answers([True] * 30 + [False] * 5, [said] * 35, [False] * 35)
        assert found.value == 0.5
        # Five negatives leave much open: Wilson's interval of 0 or 5 of 5 is .43 wide, and counts half.
        assert found.high - found.low > 0.2


def test_the_interval_holds_the_truth_nineteen_times_in_twenty():
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        said = np.concatenate([rng.random(40) < 0.7, rng.random(40) < 0.4])
        found = score_answers([True] * 40 + [False] * 40, said.tolist(), [False] * 80)
        held += found.low <= 0.65 <= found.high
    assert 0.9 <= held / 300 <= 0.99


def test_too_few_answers_are_no_score():
    found = score_answers([True] * 3 + [False] * 9, [True] * 12, [False] * 12)
    assert found.value is None
    assert found.n_positive == 3


def test_overlap_by_hand():
    fires, there = np.array([True, True, False, False]), np.array([False, True, True, False])
    assert overlap(fires, there) == pytest.approx(1 / 3)
    assert overlap(fires, fires) == 1
    assert overlap(~fires & fires, there & ~there) is None
    assert mean_overlap([0.0, 1.0, 1.0, 0.0]).value == 0.5
    assert mean_overlap([1.0] * 3).value is None


def test_firing_equals_a_slow_count():
    rng = np.random.default_rng(0)
    n_samples, firing, slow, tokens = 37, None, {}, {}
    firing = Firing([3, 5, 11], n_samples, {"image": [4, 7], "text": []})
    for part in (range(20), range(20, 37)):
        rows, lists = [], []
        for sample in part:
            if sample % 5 == 2:
                continue  # no tokens here
            for position in range(int(rng.integers(1, 6))):
                active = sorted(set(rng.integers(0, 14, 3).tolist()))
                rows.append((sample, position, 0, position, 1))
                lists.append(active)
                tokens.setdefault(sample, []).append((position, active))
                for z in active:
                    slow.setdefault(z, set()).add(sample)
        ends = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
        firing.add("image", Codes(*np.array(rows).T, ends, np.array([z for x in lists for z in x])))
    for z in (3, 5, 11):
        assert set(np.flatnonzero(firing.fires("image", z))) == slow.get(z, set())
        assert set(np.flatnonzero(firing.silent("image", z))) == tokens.keys() - slow.get(z, set())
        assert not firing.fires("text", z).any()
        assert not firing.silent("text", z).any()
    assert set(np.flatnonzero(firing.hard("image", 3, [5, 11]))) == (slow[5] | slow[11]) - slow[3]
    for sample in (4, 7):
        if sample in tokens:
            held = firing.sample_tokens("image", sample)
            assert [t.position for t in held.tokens] == [p for p, _ in tokens[sample]]
            assert held.quiet(5) == tuple(Token(p, 0, p, 1) for p, active in tokens[sample] if 5 not in active)
    assert firing.sample_tokens("image", 1).tokens == ()
