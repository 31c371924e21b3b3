"""Damped solutions: those of the normal equations, and the smallest where there are many."""

import torch

from linrep.linear import solve_damped


def test_it_solves_and_is_the_smallest_solution_where_the_matrix_is_singular():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=draw, dtype=torch.float64)
    matrix, right = x.T @ x, torch.randn(6, 2, generator=draw, dtype=torch.float64)
    damped = matrix + 0.5 * torch.eye(6, dtype=torch.float64)
    assert torch.allclose(solve_damped(matrix, 0.5, right), torch.linalg.solve(damped, right))
    assert torch.equal(matrix, x.T @ x)

    x[:, 4:] = 0  # two dimensions never vary
    matrix = x.T @ x
    right = matrix @ right
    found = solve_damped(matrix, 0.0, right)
    assert torch.allclose(found, torch.linalg.pinv(matrix) @ right)
    assert not solve_damped(torch.zeros_like(matrix), 0.0, right).any()
