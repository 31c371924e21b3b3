"""Scores equal scikit-learn's, count block by block, and their intervals respect that rows of one sample go together."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score, top_k_accuracy_score

from linrep.probe.score import Tally, areas, bootstrap, by_class


def scored(n: int = 3000, c: int = 8, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    return torch.from_numpy(rng.standard_normal((n, c)) + 1.2 * (y[:, None] == np.arange(c))).float(), y


def tally_of(scores: torch.Tensor, y: np.ndarray, cluster: np.ndarray, step: int = 700) -> Tally:
    c = scores.shape[1]
    tally = Tally(c, int(cluster.max()) + 1, torch.stack([torch.full((c,), -6.0), torch.full((c,), 7.0)]))
    for i in range(0, len(y), step):
        tally.add(scores[i : i + step], y[i : i + step], cluster[i : i + step])
    return tally


def test_counts_in_blocks_are_scikit_learns_over_all_rows():
    scores, y = scored()
    tally = tally_of(scores, y, np.arange(len(y)))
    assert tally.top1.sum() / tally.n_rows == top_k_accuracy_score(y, scores.numpy(), k=1)
    assert tally.top5.sum() / tally.n_rows == top_k_accuracy_score(y, scores.numpy(), k=5)
    assert (tally.confusion == confusion_matrix(y, scores.numpy().argmax(1))).all()
    assert tally.chance == np.bincount(y).max() / len(y)
    one_by_one = [roc_auc_score(y == c, scores[:, c].numpy()) for c in range(8)]
    auroc, each = tally.auroc()
    assert np.allclose(each, one_by_one, atol=2e-4)
    assert auroc.value == pytest.approx(np.mean(one_by_one), abs=1e-4)
    assert auroc.low < auroc.value < auroc.high
    balanced = tally.balanced()
    assert balanced.value == pytest.approx(balanced_accuracy_score(y, scores.numpy().argmax(1)))
    assert balanced.low < balanced.value < balanced.high


def test_constant_scores_are_no_better_than_chance():
    y = np.arange(800) % 8
    tally = tally_of(torch.zeros(800, 8), y, np.arange(800))
    assert tally.top1.sum() / 800 == 1 / 8
    assert tally.top5.sum() / 800 == 5 / 8
    assert tally.auroc()[0].value == 0.5


def test_an_area_by_hand():
    # Rest at bins 0, 0, 1; class at bins 1, 2: pairs won 2 + half of 1, and 3, of 6.
    assert areas(np.array([[[2, 1, 0], [0, 1, 1]]])).tolist() == [pytest.approx(5.5 / 6)]
    assert np.isnan(areas(np.array([[[2, 1, 0], [0, 0, 0]]])))


def test_the_interval_of_independent_samples_is_the_binomial_one():
    hits = (np.arange(400) < 100).astype(float)
    (interval,) = bootstrap(np.ones(400), [hits], 4000, seed=0)
    assert interval.value == 0.25
    deviation = np.sqrt(0.25 * 0.75 / 400)
    assert interval.low == pytest.approx(0.25 - 1.96 * deviation, abs=0.004)
    assert interval.high == pytest.approx(0.25 + 1.96 * deviation, abs=0.004)


def test_a_constant_answer_on_uneven_classes_is_half_right_in_the_balanced_score():
    y = (np.arange(500) % 10 == 0).astype(np.int64)
    tally = tally_of(torch.tensor([[1.0, 0.0]]).expand(500, 2), y, np.arange(500))
    assert tally.chance == 0.9
    assert tally.balanced().value == 0.5


def test_the_interval_of_folds_is_as_wide_as_wilsons_but_for_students_t():
    """Classes alike, one row a sample: balanced accuracy is accuracy. Twenty folds: 2.093 standard errors, not 1.96."""
    ratios = []
    for seed in range(20):
        y, right = np.arange(2000) % 2, np.random.default_rng(seed).random(2000) < 0.7
        scores = torch.from_numpy(np.where(right[:, None], y[:, None] == np.arange(2), y[:, None] != np.arange(2))).float()
        folds = tally_of(scores, y, np.arange(2000)).balanced()
        (whole,) = bootstrap(np.ones(2000), [right], 1, seed=0)
        ratios.append((folds.high - folds.low) / (whole.high - whole.low))
    assert np.mean(ratios) == pytest.approx(2.093 / 1.96, abs=0.08)


def test_rows_of_one_sample_count_as_one_observation():
    """Fifty tokens of each of 40 images, right or wrong together: no narrower than 40 independent observations."""
    right = (np.arange(40) < 20).astype(float)
    (by_sample,) = bootstrap(np.full(40, 50.0), [50 * right], 2000, seed=0)
    (by_row,) = bootstrap(np.ones(2000), [np.repeat(right, 50)], 2000, seed=0)
    assert by_sample.high - by_sample.low > 5 * (by_row.high - by_row.low)


def test_a_difference_of_the_same_rows_is_resampled_in_pairs():
    rng = np.random.default_rng(0)
    one = (rng.random(500) < 0.5).astype(float)
    other = np.where(rng.random(500) < 0.05, 1 - one, one)  # differs from the first in one row of twenty
    a, b, difference = bootstrap(np.ones(500), [one, other, one - other], 2000, seed=0)
    assert difference.value == pytest.approx(a.value - b.value)
    assert difference.high - difference.low < 0.6 * (a.high - a.low)


def test_samples_that_are_all_right_leave_as_much_open_as_there_are_samples():
    """Ten of ten: Wilson's interval ends at 10 / 13.84; a hundred rows of ten samples know no more."""
    ten, differ = np.full(10, 10.0), np.zeros(10)
    right, wrong, same = bootstrap(ten, [ten, differ, differ], 200, seed=0, lowest=[0.0, 0.0, -1.0])
    assert (right.low, right.high) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert (wrong.low, wrong.high) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert (same.low, same.high) == pytest.approx((-0.2775, 0.2775), abs=1e-4)
    y = np.arange(10) % 2
    perfect = tally_of(torch.from_numpy(y[:, None] == np.arange(2)).float(), y, np.arange(10))
    for interval in (perfect.balanced(), perfect.auroc()[0]):
        assert (interval.value, interval.high) == (1.0, 1.0)
        assert interval.low == pytest.approx(0.7225, abs=1e-4)


def test_each_class_has_its_own_interval_and_an_absent_one_none():
    scores, y = scored(600, 4)
    scores, y = scores[y != 2], y[y != 2]
    (classes,) = by_class([tally_of(scores, y, np.arange(len(y)))], 500, seed=0)
    for c in (0, 1, 3):
        assert classes[c].value == pytest.approx((scores.argmax(1).numpy()[y == c] == c).mean())
        assert classes[c].low <= classes[c].value <= classes[c].high
    assert np.isnan(classes[2].value)
