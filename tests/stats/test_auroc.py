"""Areas under curves: scikit-learn's, from scores and from histograms."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from linrep.stats.auroc import of_histograms, of_scores


@pytest.mark.parametrize("levels", [3, 20, 10**6])
def test_both_ways_are_scikit_learns_with_ties_too(levels):
    rng = np.random.default_rng(levels)
    true = rng.random(500) < 0.3
    score = np.floor((rng.random(500) + 0.3 * true) * levels)
    assert of_scores(score, true) == pytest.approx(roc_auc_score(true, score))
    bins = np.unique(score, return_inverse=True)[1]
    counts = [np.bincount(bins[own], minlength=bins.max() + 1) for own in (~true, true)]
    assert of_histograms(*counts) == pytest.approx(roc_auc_score(true, score))


def test_one_kind_alone_has_no_area():
    assert np.isnan(of_scores(np.arange(4.0), np.ones(4, bool)))
    assert np.isnan(of_histograms(np.zeros(3), np.ones(3)))
