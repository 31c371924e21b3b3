"""Few-latent probes find the planted latent of each class, and equal the coordinate probes where latents are coordinates."""

import numpy as np
import pytest
import torch

from linrep.probe.closed import sparse
from linrep.probe.latents import fit_latents
from linrep.probe.moments import gather


class Dictionary:
    """Latents are the positive parts of projections on given directions."""

    def __init__(self, directions: torch.Tensor) -> None:
        self.directions = directions
        self.n_latents, self.d_model = directions.shape

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(self.directions.dtype) @ self.directions.T).clamp(min=0)


def planted(n: int = 900, d: int = 16, f: int = 64, c: int = 4) -> tuple[Dictionary, torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(0)
    directions = torch.from_numpy(rng.standard_normal((f, d)))
    directions /= directions.norm(dim=1, keepdim=True)
    y = rng.integers(0, c, n)
    x = torch.from_numpy(0.4 * rng.standard_normal((n, d))) + 3 * directions[10 * (1 + torch.from_numpy(y))]
    return Dictionary(directions), x, y


def blocks(x, y, size=256):
    return lambda: ((x[i : i + size], y[i : i + size]) for i in range(0, len(x), size))


def test_the_latent_of_each_class_is_found_and_one_is_enough():
    coder, x, y = planted()
    one, five = fit_latents(blocks(x, y), coder, 4, (1, 5))
    assert [one.of(c).tolist() for c in range(4)] == [[10], [20], [30], [40]]
    assert [len(five.of(c)) for c in range(4)] == [5] * 4
    right = [(probe.scores(coder, x).argmax(1).numpy() == y).mean() for probe in (one, five)]
    assert right[0] > 0.9
    assert right[1] >= right[0] - 0.01


def test_where_latents_are_coordinates_it_is_the_coordinate_probe():
    _, x, y = planted()
    x = x.abs()
    (probe,) = fit_latents(blocks(x, y), Dictionary(torch.eye(16, dtype=torch.float64)), 4, (3,))
    same = sparse(gather(x, {"y": y}), "y", 3)
    assert torch.allclose(probe.scores(Dictionary(torch.eye(16, dtype=torch.float64)), x), same.scores(x), rtol=1e-6, atol=1e-8)


def test_shuffled_labels_find_nothing():
    coder, x, y = planted()
    wrong = np.random.default_rng(1).permutation(y)
    (probe,) = fit_latents(blocks(x[:600], wrong[:600]), coder, 4, (5,))
    assert (probe.scores(coder, x[600:]).argmax(1).numpy() == wrong[600:]).mean() < 0.4


def test_another_width_and_too_many_latents_are_one_clear_line(monkeypatch):
    coder, x, y = planted()
    with pytest.raises(ValueError, match="rows of width 8 for an autoencoder of width 16"):
        fit_latents(blocks(x[:, :8], y), coder, 4, (1,))
    monkeypatch.setattr("linrep.probe.latents.MOST_TOGETHER", 3)
    with pytest.raises(ValueError, match="4 classes choose 4 latents together, at most 3 fit: lower k"):
        fit_latents(blocks(x, y), coder, 4, (1,))
