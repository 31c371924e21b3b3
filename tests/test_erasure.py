"""Erasing classes: linear probes are left nothing, LEACE moves rows least, ranks are nested, random subspaces are as drawn."""

import pytest
import torch

from linrep.erasure import Eraser, inlp, isotropic, leace, like_data, of_means, principal_axes, projection, ranks_up_to

D, C, N = 12, 4, 600


def rows(seed: int = 0, width: int = D, flat: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated rows of four classes, uneven in size, far from the origin; the last dimensions never vary if asked for."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.multinomial(torch.tensor([0.4, 0.3, 0.2, 0.1]), N, replacement=True, generator=draw)
    mixing = torch.randn(width, width, generator=draw, dtype=torch.float64)
    x = torch.randn(N, width, generator=draw, dtype=torch.float64) @ mixing
    x += 2 * torch.randn(C, width, generator=draw, dtype=torch.float64)[y] + 30
    if flat:
        x[:, -flat:] = 5.0
    return x, y


def moments(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mean = x.mean(0)
    return (x - mean).T @ (x - mean) / len(x), torch.stack([x[y == c].mean(0) for c in range(C)]), mean


def cross(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    z = torch.nn.functional.one_hot(y, C).double()
    return (x - x.mean(0)).T @ (z - z.mean(0)) / len(x)


def distance(eraser: Eraser, x: torch.Tensor) -> float:
    return float((eraser(x, x.mean(0)) - x).square().sum(1).mean())


@pytest.mark.parametrize("flat", [0, 3])
def test_what_erases_classes_leaves_linear_probes_nothing(flat):
    x, y = rows(flat=flat)
    covariance, means, mean = moments(x, y)
    for eraser in (leace(covariance, means), of_means(means), inlp(covariance, means, 1e-9, D)):
        after = eraser(x, mean)
        assert cross(after, y).abs().max() < 1e-10
        assert (moments(after, y)[1] - mean).abs().max() < 1e-10
        # Least squares with an intercept answers the same for all rows: the most frequent class is all that it gets right.
        one = torch.cat([after, torch.ones(N, 1, dtype=torch.float64)], dim=1)
        fitted = one @ torch.linalg.pinv(one, rtol=1e-8) @ torch.nn.functional.one_hot(y, C).double()
        assert (fitted.argmax(1) == y).double().mean() == (y == y.mode().values).double().mean()
    assert of_means(means).rank == leace(covariance, means).rank == C - 1


def test_leace_equals_the_constrained_least_squares_of_every_row_of_the_map():
    """Row i of P minimises (p - e_i)' S (p - e_i) with p' m = 0 for every class's deviation m: one linear system a row."""
    x, y = rows()
    covariance, means, _ = moments(x, y)
    deviations = (means - means.mean(0))[: C - 1].T
    system = torch.zeros(D + C - 1, D + C - 1, dtype=torch.float64)
    system[:D, :D], system[:D, D:], system[D:, :D] = 2 * covariance, deviations, deviations.T
    right = torch.cat([2 * covariance, torch.zeros(C - 1, D, dtype=torch.float64)])
    slow = torch.linalg.solve(system, right)[:D].T
    found = leace(covariance, means)
    assert torch.allclose(torch.eye(D, dtype=torch.float64) - found.write.T @ found.read, slow, atol=1e-9)


def test_leace_moves_rows_less_than_any_other_map_that_erases_as_much():
    x, y = rows()
    covariance, means, mean = moments(x, y)
    best = leace(covariance, means)
    assert distance(best, x) < distance(of_means(means), x) < distance(isotropic(D, D, torch.Generator().manual_seed(0)), x)
    assert distance(best, x) < distance(inlp(covariance, means, 1e-9, D), x)
    erased, draw = best(x, mean), torch.Generator().manual_seed(3)
    outside = torch.eye(D, dtype=torch.float64) - of_means(means).read.T @ of_means(means).read
    for size in (1e-3, 1e-1, 1.0):  # maps that differ in what they do beside the classes' differences
        other = size * torch.randn(D, D, generator=draw, dtype=torch.float64) @ outside
        moved = erased + (x - mean) @ other.T
        assert cross(moved, y).abs().max() < 1e-10
        assert (moved - x).square().sum(1).mean() > distance(best, x)


def test_ranks_are_nested_and_erasing_twice_is_erasing_once():
    x, y = rows()
    covariance, means, mean = moments(x, y)
    axes, draw = principal_axes(covariance, D), torch.Generator().manual_seed(5)
    for eraser in (leace(covariance, means), of_means(means), inlp(covariance, means, 1e-9, 6), like_data(axes, 3, draw)):
        assert torch.allclose(eraser.read @ eraser.write.T, torch.eye(eraser.rank, dtype=torch.float64), atol=1e-9)
        distances = [distance(eraser.first(r), x) for r in range(eraser.rank + 1)]
        assert distances[0] == 0
        assert distances == sorted(distances)
        once = eraser.first(2)(x, mean)
        assert torch.allclose(eraser(once, mean), eraser(x, mean), atol=1e-9)
        assert torch.allclose(eraser(x, mean).mean(0), mean)


def test_the_first_dimension_is_the_one_that_separates_best():
    """Classes 9 apart along a loud dimension and 3 apart along a quiet one: means go by length, LEACE by spread."""
    covariance = torch.diag(torch.tensor([100.0, 1.0, 1.0], dtype=torch.float64))
    means = torch.tensor([[9.0, 0, 0], [0, 3.0, 0], [-9.0, 0, 0], [0, -3.0, 0]], dtype=torch.float64)
    along = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(of_means(means).first(1).read, along[:1])
    assert torch.allclose(leace(covariance, means).first(1).read, along[1:2])


def test_moments_of_erased_rows_are_those_that_the_eraser_says():
    x, y = rows()
    covariance, means, mean = moments(x, y)
    eraser = leace(covariance, means).first(2)
    after, after_means, _ = moments(eraser(x, mean), y)
    assert torch.allclose(eraser.of_covariance(covariance), after, atol=1e-9)
    assert torch.allclose(eraser.of_deviations(means - mean) + mean, after_means)
    assert eraser.removed(covariance) == pytest.approx(distance(eraser, x) / float(covariance.trace()))
    assert eraser.removed(torch.zeros(D, D, dtype=torch.float64)) == 0


def test_inlp_needs_more_rounds_than_one_and_the_means_need_none():
    x, y = rows()
    covariance, means, mean = moments(x, y)
    one = inlp(covariance, means, 1e-9, C - 1)
    weights = torch.linalg.solve(covariance, (means - means.mean(0)).T)
    assert (weights - one.read.T @ (one.read @ weights)).abs().max() < 1e-9  # the first round is the span of the weights
    assert cross(one(x, mean), y).abs().max() > 1e-3
    assert C - 1 < inlp(covariance, means, 1e-9, D).rank <= D


def test_random_directions_have_the_covariance_of_the_data_and_isotropic_ones_none():
    covariance = torch.diag(torch.tensor([100.0] + [1.0] * 99, dtype=torch.float64))
    axes = principal_axes(covariance, 100)
    assert torch.allclose(axes.T @ axes, covariance)
    draw = torch.Generator().manual_seed(0)
    # The share of a unit vector along the loud dimension: about E[100 g^2 / (100 g^2 + 99)], against 1/100.
    loud = [float(like_data(axes, 1, draw).read[0, 0] ** 2) for _ in range(4000)]
    even = [float(isotropic(1, 100, draw).read[0, 0] ** 2) for _ in range(4000)]
    g = torch.linspace(-8, 8, 100_001, dtype=torch.float64)
    density = (-g.square() / 2).exp()
    expected = float((density * 100 * g**2 / (100 * g**2 + 99)).sum() / density.sum())
    assert sum(loud) / 4000 == pytest.approx(expected, abs=0.02)
    assert sum(even) / 4000 == pytest.approx(0.01, abs=0.002)
    few = principal_axes(covariance, 7)
    assert len(few) == like_data(few, 30, draw).rank == 7


def test_classes_that_coincide_have_nothing_to_erase():
    x, y = rows()
    covariance, means, mean = moments(x, y)
    same = mean.expand(C, D)
    for eraser in (of_means(same), leace(covariance, same), leace(torch.zeros(D, D, dtype=torch.float64), means)):
        assert eraser.rank == 0
        assert torch.equal(eraser(x, mean), x)
    assert inlp(covariance, same, 1.0, 3).rank == 0
    assert projection(torch.zeros(0, D)).rank == 0


def test_ranks_of_a_curve_double_up_to_the_most():
    assert [list(ranks_up_to(n)) for n in (0, 1, 2, 5, 8, 15)] == [[], [1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8], [1, 2, 4, 8, 15]]
