"""Linear systems that probes and measures of sharing solve alike."""

import torch
from jaxtyping import Float
from torch import Tensor


def solve_damped(matrix: Float[Tensor, "d d"], damping: float, right: Float[Tensor, "d c"]) -> Float[Tensor, "d c"]:
    """The solution of (matrix + damping I) w = right; the smallest one where that is singular.

    Args:
        matrix: Symmetric, and positive up to rounding: a scatter or a covariance.
        damping: Penalty on the squared weights.
        right: Right-hand sides.
    """
    damped = matrix.clone()
    damped.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if not int(failed):
        return torch.cholesky_solve(right, factor)
    # Singular to rounding, as without damping on dimensions that never vary.
    values, basis = torch.linalg.eigh(damped)
    inverse = torch.where(values > 1e-12 * values.abs().max(), 1 / values, 0.0)
    return basis @ (inverse[:, None] * (basis.T @ right))
