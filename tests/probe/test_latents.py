"""Few-latent probes find the planted latent of each class, by least squares on its own latents."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from linrep.probe.latents import LatentProbe, Weighed, fit_latents, survey


class PlainSae:
    """Latents are the positive parts of projections on given directions; of none, the rows themselves."""

    def __init__(self, directions: torch.Tensor | None) -> None:
        self.directions = directions
        self.n_latents, self.d_model = (0, 0) if directions is None else directions.shape

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.directions is None else (x.to(self.directions.dtype) @ self.directions.T).clamp(min=0)


def planted(n: int = 900, d: int = 16, f: int = 64, c: int = 4) -> tuple[PlainSae, torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(0)
    directions = torch.from_numpy(rng.standard_normal((f, d)))
    directions /= directions.norm(dim=1, keepdim=True)
    y = rng.integers(0, c, n)
    x = torch.from_numpy(0.4 * rng.standard_normal((n, d))) + 3 * directions[10 * (1 + torch.from_numpy(y))]
    return PlainSae(directions), x, y


def passes(sae: PlainSae, x: torch.Tensor, y: np.ndarray, size: int = 256):
    return lambda: (Weighed(sae.encode(x[i : i + size]), {"y": y[i : i + size]}) for i in range(0, len(x), size))


def fitted(sae: PlainSae, x: torch.Tensor, y: np.ndarray, ks: tuple[int, ...]) -> list[LatentProbe]:
    rows = passes(sae, x, y)
    return fit_latents(rows, survey(rows, sae.n_latents, {"y": int(y.max()) + 1}), ks)["y"]


def test_the_latent_of_each_class_is_found_and_one_is_enough():
    sae, x, y = planted()
    one, five = fitted(sae, x, y, (1, 5))
    assert [one.of(c).tolist() for c in range(4)] == [[10], [20], [30], [40]]
    assert [len(five.of(c)) for c in range(4)] == [5] * 4
    right = [(probe.scores(sae.encode(x)).argmax(1).numpy() == y).mean() for probe in (one, five)]
    assert right[0] > 0.9
    assert right[1] >= right[0] - 0.01


def test_a_latent_probe_is_least_squares_on_its_own_latents_with_a_score_of_zero_midway():
    _, x, y = planted()
    x = x.abs()
    (probe,) = fitted(PlainSae(torch.eye(16, dtype=torch.float64)), x, y, (3,))
    for c in range(int(y.max()) + 1):
        gap = np.abs(x.numpy()[y == c].mean(0) - x.numpy()[y != c].mean(0))
        own = np.sort(np.argsort(-gap, kind="stable")[:3])
        assert probe.of(c).tolist() == own.tolist()
        theirs = LinearRegression().fit(x.numpy()[:, own], np.where(y == c, 1.0, -1.0))
        weights = probe.probe.weights[torch.isin(probe.latents, probe.of(c)), c]
        assert np.allclose(weights, theirs.coef_, rtol=1e-3, atol=1e-5)
        scores = probe.scores(x)[:, c].numpy()
        assert scores[y == c].mean() == pytest.approx(-scores[y != c].mean(), rel=1e-6)


def test_many_classes_choose_many_latents_and_each_is_least_squares_on_its_own():
    """More latents than a common Gram matrix has room for: 300 classes times 40 latents of 9,000."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(300), 3)
    z = torch.from_numpy(rng.random((900, 9000), np.float32))
    rows = passes(PlainSae(None), z, y, 300)
    (probe,) = fit_latents(rows, survey(rows, 9000, {"y": 300}), (40,))["y"]
    assert len(probe.latents) > 6000
    for c in (0, 299):
        own = probe.of(c)
        assert len(own) == 40
        x = z[:, own].double().numpy()
        gap = (z[y == c].double().mean(0) - z[y != c].double().mean(0)).abs()
        assert set(own.tolist()) == set(gap.topk(40).indices.tolist())
        weights = LinearRegression().fit(x, np.where(y == c, 1.0, -1.0)).coef_
        assert np.allclose(probe.probe.weights[torch.isin(probe.latents, own), c], weights, rtol=1e-3, atol=1e-5)


def test_groups_of_rows_weigh_the_same_whatever_their_number():
    """The rows of one group ten times over change nothing."""
    sae, x, y = planted(300)
    half = [Weighed(sae.encode(x[i : i + 150]), {"y": y[i : i + 150]}, group) for group, i in enumerate((0, 150))]
    few, many = (partial(iter, own) for own in (half, [half[0]] * 10 + half[1:]))
    one, other = (fit_latents(rows, survey(rows, 64, {"y": 4}), (3,))["y"][0] for rows in (few, many))
    assert torch.equal(one.latents, other.latents)
    assert torch.allclose(one.probe.weights, other.probe.weights, rtol=1e-8)
    assert one.n == other.n == 300


def test_the_most_active_latents_are_those_that_fire_on_most_rows():
    z = torch.tensor([[1.0, 0, 2, 0], [1, 0, 0, 0], [1, 3, 1, 0]])
    found = survey(lambda: iter([Weighed(z, {"y": np.zeros(3, np.int64)})]), 4, {"y": 1})
    assert found.most_active(2).tolist() == [0, 2]
    assert found.most_active(9).tolist() == [0, 1, 2]  # the last one never fires


def test_shuffled_labels_find_nothing():
    sae, x, y = planted()
    wrong = np.random.default_rng(1).permutation(y)
    (probe,) = fitted(sae, x[:600], wrong[:600], (5,))
    assert (probe.scores(sae.encode(x[600:])).argmax(1).numpy() == wrong[600:]).mean() < 0.4
