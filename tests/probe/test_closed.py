"""Closed forms agree with scikit-learn on the same rows, and moments merge and move without loss."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import NearestCentroid

from linrep.probe.closed import class_means, lda, pattern, rank_coordinates, ridge, sparse
from linrep.probe.moments import gather, merge


def rows(n: int = 400, d: int = 24, c: int = 5, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Correlated rows far from the origin, with dimensions of very different spread, as a residual stream has them."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(c), rng.choice(c, n - c, p=np.arange(1, c + 1) / np.arange(1, c + 1).sum())])
    x = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 2.0 * rng.standard_normal((c, d))[y]
    return torch.from_numpy(100.0 + x * 10.0 ** rng.uniform(-2, 2, d)), y


@pytest.mark.parametrize("alpha", [1e-2, 3.0, 1e4])
def test_ridge_has_scikit_learns_weights(alpha):
    x, y = rows()
    ours = ridge(gather(x, {"y": y}), ["y"], [alpha])["y"][0]
    theirs = RidgeClassifier(alpha=alpha).fit(x.numpy(), y)
    assert np.allclose(
        ours.weights.T.numpy(), theirs.coef_, rtol=1e-4, atol=1e-4 * np.abs(theirs.coef_).max(axis=1, keepdims=True)
    )
    assert np.allclose(ours.scores(x).numpy(), theirs.decision_function(x.numpy()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shrinkage", [1e-3, 0.1, 1.0])
def test_lda_has_scikit_learns_weights_and_posteriors(shrinkage):
    x, y = rows()
    (ours,) = lda(gather(x, {"y": y}), "y", [shrinkage])
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x.numpy(), y)
    # Ours are measured from the mean of all rows, theirs from zero: the differences between classes are the same.
    centred = theirs.coef_ - theirs.priors_ @ theirs.coef_
    scale = np.abs(centred).max(axis=1, keepdims=True)
    assert np.allclose(ours.weights.T.numpy(), centred, rtol=1e-4, atol=1e-4 * scale)
    assert np.allclose(torch.softmax(ours.scores(x), 1).numpy(), theirs.predict_proba(x.numpy()), atol=1e-4)


def test_class_means_choose_the_nearest_centroid():
    x, y = rows()
    ours = class_means(gather(x, {"y": y}), "y")
    assert (ours.scores(x).argmax(1).numpy() == NearestCentroid().fit(x.numpy(), y).predict(x.numpy())).all()
    mean = ours.centre + ours.weights.T
    assert np.allclose(mean.numpy(), np.stack([x.numpy()[y == c].mean(0) for c in range(5)]))


def within_deviation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    means = np.stack([x[y == c].mean(0) for c in range(y.max() + 1)])
    return np.sqrt(((x - means[y]) ** 2).mean(0))


def test_a_sparse_probe_is_scikit_learns_discriminant_on_the_coordinates_of_all_classes():
    x, y = rows()
    moments = gather(x, {"y": y})
    order = rank_coordinates(moments, "y")
    deviation = within_deviation(x.numpy(), y)
    for c in range(5):
        gap = np.abs(x.numpy()[y == c].mean(0) - x.numpy()[y != c].mean(0)) / deviation
        assert order[c].tolist() == np.argsort(-gap, kind="stable").tolist()
    ours = sparse(moments, "y", 2, order, alpha=0.0)
    chosen = np.unique(order[:, :2].numpy())
    assert ours.notes["coordinates"] == len(chosen) < x.shape[1]
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=None).fit(x.numpy()[:, chosen], y)
    scores = ours.scores(x).numpy()
    posterior = np.exp(scores - scores.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    assert np.allclose(posterior, theirs.predict_proba(x.numpy()[:, chosen]), atol=1e-6)
    assert (ours.weights.abs().sum(1) > 0).sum() == len(chosen)


def test_loud_dimensions_are_not_chosen_and_one_coordinate_a_class_reads_planted_classes():
    """Twelve dimensions of 64 are 60 times louder and tell nothing; five others tell a class each."""
    rng = np.random.default_rng(3)
    y = rng.integers(5, size=2000)
    x = rng.standard_normal((2000, 64))
    x[np.arange(2000), 20 + y] += 4.0
    x[:, :12] *= 60
    train, test = slice(0, 1500), slice(1500, None)
    moments = gather(torch.from_numpy(x[train]), {"y": y[train]})
    order = rank_coordinates(moments, "y")
    assert order[:, 0].tolist() == [20, 21, 22, 23, 24]
    ours = sparse(moments, "y", 1)
    # Of five unit Gaussians that lie 4 apart along their own axes the nearest mean is right this often (by sampling).
    z = rng.standard_normal((200_000, 5))
    z[:, 0] += 4.0
    best = (z.argmax(1) == 0).mean()
    right = (ours.scores(torch.from_numpy(x[test])).argmax(1).numpy() == y[test]).mean()
    assert right == pytest.approx(best, abs=0.02)


def test_the_pattern_of_ridge_weights_is_the_class_mean_where_weights_are_not():
    """Noise that two dimensions share: weights cancel it, and so point away from where the classes lie (Haufe et al., 2014)."""
    rng = np.random.default_rng(4)
    y = np.arange(4000) % 2
    shared = 5 * rng.standard_normal(4000)
    x = 0.5 * rng.standard_normal((4000, 2)) + np.stack([shared + 2.0 * y, shared], axis=1)
    moments = gather(torch.from_numpy(x), {"y": y})
    (probe,) = ridge(moments, ["y"], [1e-9])["y"]
    weights, found = probe.weights[:, 1] - probe.weights[:, 0], pattern(moments, probe)
    difference = torch.tensor([1.0, 0.0], dtype=torch.float64)
    cosine = lambda v: float(v @ difference / v.norm())  # noqa: E731
    assert cosine(found[1] - found[0]) > 0.98
    assert cosine(weights) == pytest.approx(0.5**0.5, abs=0.05)


def test_parts_merge_to_the_whole_and_the_reference_does_not_matter():
    x, y = rows()
    columns = {"a": y, "b": np.where(y > 2, -1, y)}
    sizes = {"a": 5, "b": 3}
    whole = gather(x, columns, sizes)
    cuts = [0, 1, 150, 151, 400]
    parts = [gather(x[i:j], {n: c[i:j] for n, c in columns.items()}, sizes) for i, j in itertools.pairwise(cuts)]
    for other in (merge(parts), merge(parts[::-1]), whole.about(torch.zeros(24, dtype=torch.float64))):
        assert other.n == whole.n
        assert torch.allclose(other.mean, whole.mean, rtol=1e-12)
        assert torch.allclose(other.scatter, whole.scatter, rtol=1e-6, atol=1e-9 * float(whole.scatter.diagonal().max()))
        for column in columns:
            assert torch.equal(other.counts[column], whole.counts[column])
            assert torch.allclose(other.between(column), whole.between(column), rtol=1e-8, atol=1e-8)
    assert whole.counts["b"].tolist() == [(y == c).sum() for c in range(3)]
    assert np.allclose(whole.scatter.numpy(), np.cov(x.numpy().T, bias=True) * 400, rtol=1e-8, atol=1e-6)
    assert whole.norm == pytest.approx(float(x.norm(dim=1).sum()))


def test_a_planted_direction_is_recovered():
    rng = np.random.default_rng(1)
    planted = rng.standard_normal(32)
    planted /= np.linalg.norm(planted)
    y = rng.integers(0, 2, 4000)
    x = torch.from_numpy(rng.standard_normal((4000, 32)) + 1.5 * (2 * y[:, None] - 1) * planted)
    moments = gather(x, {"y": y})
    for probe in (ridge(moments, ["y"], [1.0])["y"][0], lda(moments, "y", [0.01])[0], class_means(moments, "y")):
        found = probe.weights[:, 1] - probe.weights[:, 0]
        assert float(found @ torch.from_numpy(planted) / found.norm()) > 0.98, probe.kind


def test_rows_that_are_all_equal_give_one_answer_for_all_and_no_error():
    """The last token at layer 0 is one and the same vector in every image."""
    x = torch.full((60, 8), 0.1, dtype=torch.float64) * torch.arange(1, 9)
    y = np.arange(60) % 3
    moments = merge([gather(x[:20], {"y": y[:20]}, {"y": 3}), gather(x[20:], {"y": y[20:]}, {"y": 3})])
    assert moments.scale == 0
    everything = [*ridge(moments, ["y"], [0.0, 1.0])["y"], *lda(moments, "y", [0.0, 0.5]), class_means(moments, "y")]
    for probe in [*everything, sparse(moments, "y", 2)]:
        assert probe.scores(x).isfinite().all()
        assert len(set(probe.scores(x).argmax(1).tolist())) == 1, probe.kind


def test_dimensions_that_never_vary_do_no_harm():
    x, y = rows()
    x = torch.cat([x, torch.full((400, 3), 7.0, dtype=torch.float64)], dim=1)
    moments = gather(x, {"y": y})
    narrow = gather(x[:, :24], {"y": y})
    assert torch.allclose(
        ridge(moments, ["y"], [0.0])["y"][0].weights[:24], ridge(narrow, ["y"], [0.0])["y"][0].weights, rtol=1e-3
    )
    assert sparse(moments, "y", 27).weights.isfinite().all()
