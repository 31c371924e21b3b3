"""Softmax regression reaches scikit-learn's optimum, along a path, and says when it did not."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from linrep.probe.moments import gather
from linrep.probe.softmax import fit_path
from tests.probe.test_closed import rows


def standardised(n: int = 1200, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    x, y = rows(n, 20, 5, seed)
    return ((x - x.mean(0)) / x.std(0)).float(), y


def blocks_of(x: torch.Tensor, y: np.ndarray, size: int = 500):
    def once():
        for start in range(0, len(x), size):
            yield x[start : start + size], torch.from_numpy(y[start : start + size])

    return once


def test_the_weights_are_scikit_learns():
    x, y = standardised()
    moments = gather(x, {"y": y})
    for probe, fit in fit_path(blocks_of(x, y), moments, "y", (1e-1, 1e-2, 1e-3), 1e-4, 500):
        theirs = LogisticRegression(C=1 / (fit.penalty * moments.scale * len(x)), tol=1e-10, max_iter=20000).fit(x.numpy(), y)
        assert fit.converged
        # A softmax does not feel what is added to all classes; the penalty makes the weights sum to zero, the bias is free.
        assert np.allclose(probe.weights.T.numpy(), theirs.coef_, atol=5e-3 * np.abs(theirs.coef_).max())
        assert fit.loss == pytest.approx(-theirs.predict_log_proba(x.numpy())[np.arange(len(y)), y].mean(), rel=1e-3)
        held, truth = standardised(3000, seed=1)
        difference = (probe.scores(held).argmax(1).numpy() == truth).mean() - theirs.score(held.numpy(), truth)
        assert abs(difference) <= 0.005


def test_the_raw_scale_of_a_residual_stream_costs_few_iterations():
    """Dimensions whose spreads differ by 10^4, far from the origin: what plain descent cannot do."""
    x, y = rows(800)
    moments = gather(x, {"y": y})
    for _, fit in fit_path(blocks_of(x.float(), y), moments, "y", (1e-2, 1e-4), 1e-3, 200):
        assert fit.converged
        assert fit.evaluations < 120


def test_a_warm_start_takes_fewer_passes_than_a_cold_one():
    x, y = standardised()
    moments = gather(x, {"y": y})
    warm = [fit.evaluations for _, fit in fit_path(blocks_of(x, y), moments, "y", (1e-2, 9e-3), 1e-4, 500)]
    ((_, cold),) = fit_path(blocks_of(x, y), moments, "y", (9e-3,), 1e-4, 500)
    assert warm[1] < cold.evaluations


def test_asking_for_more_than_float32_can_give_ends_all_the_same():
    x, y = standardised()
    ((_, fit),) = fit_path(blocks_of(x, y), gather(x, {"y": y}), "y", (1e-2,), 1e-12, 10_000)
    assert not fit.converged
    assert fit.gradient < 1e-3
    assert fit.evaluations < 10_000


def test_too_few_iterations_are_admitted():
    x, y = standardised()
    ((_, fit),) = fit_path(blocks_of(x, y), gather(x, {"y": y}), "y", (1e-5,), 1e-9, 5)
    assert not fit.converged
    assert fit.gradient > 1e-9


def test_equal_rows_give_the_shares_of_the_classes():
    x, y = torch.full((60, 4), 3.0), np.repeat([0, 1, 1], 20)
    ((probe, fit),) = fit_path(blocks_of(x, y), gather(x, {"y": y}), "y", (1e-2,), 1e-4, 50)
    assert fit.converged
    assert torch.softmax(probe.scores(x), 1)[0].tolist() == pytest.approx([1 / 3, 2 / 3], abs=0.01)
