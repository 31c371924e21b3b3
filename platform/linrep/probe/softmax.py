"""Softmax regression to convergence: full batches, L-BFGS in coordinates where the problem is nearly round, a path of penalties.

The Hessian is close to a multiple of covariance + penalty (Böhning, 1992). Its Cholesky factor L, from the moments that are there
anyway, turns weights W into L^T W, in which tens of iterations do what takes thousands in the raw residual stream, whose
variances span many orders of magnitude.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.probe.lbfgs import descend
from linrep.probe.linear import Linear
from linrep.probe.moments import Moments

Rows = Callable[[], Iterator[tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]]]
"""The training rows, from the start at each call, in blocks: vectors and class numbers."""


@dataclass(frozen=True)
class Fit:
    """What one fit ended with.

    Attributes:
        penalty: On the squared weights, in mean variances of a dimension.
        loss: Mean cross-entropy in nats, without the penalty.
        gradient: Norm of the preconditioned gradient over its norm where all weights are zero.
        evaluations: Passes over the rows.
        converged: Whether the gradient came below the tolerance.
    """

    penalty: float
    loss: float
    gradient: float
    evaluations: int
    converged: bool


def fit_path(
    rows: Rows,
    moments: Moments,
    column: str,
    penalties: Sequence[float],
    tolerance: float,
    max_iterations: int,
    device: torch.device | None = None,
    centred: bool = False,
) -> Iterator[tuple[Linear, Fit]]:
    """Softmax regressions along a path of penalties, each begun where the one before ended; take as many as you need.

    The objective is mean cross-entropy + penalty * v / 2 * |W|^2 with v the mean variance of a dimension; the bias is free. For
    scikit-learn's LogisticRegression this is C = 1 / (penalty * v * n).

    Args:
        rows: The training rows, those that the moments are of.
        moments: Their moments.
        column: The label column that the rows' class numbers come from.
        penalties: From large to small.
        tolerance: Converged when the preconditioned gradient falls to this share of the gradient at zero.
        max_iterations: At one penalty, at most.
        device: Where to compute; blocks are moved there.
        centred: Whether the rows are given minus the mean of the moments already, which saves doing it in every evaluation.
    """
    device = device or torch.device("cpu")
    problem = _Problem(rows, moments, column, device, centred)
    weights = torch.zeros(moments.width, problem.c, dtype=torch.float64, device=device)
    bias = problem.log_share.clone()
    for penalty in penalties:
        weights, bias, fit = problem.minimise(weights, bias, penalty, tolerance, max_iterations)
        notes = {"loss": fit.loss, "gradient": fit.gradient, "evaluations": float(fit.evaluations)}
        notes["converged"] = float(fit.converged)
        yield Linear("softmax", moments.mean, weights.cpu(), bias.cpu(), penalty, notes), fit


class _Problem:
    """The objective and its gradient, in the coordinates L^T W."""

    def __init__(self, rows: Rows, moments: Moments, column: str, device: torch.device, centred: bool) -> None:
        self._rows, self._device, self._centred = rows, device, centred
        self._centre = moments.mean.float().to(device)
        self._covariance = (moments.scatter / max(moments.n, 1)).to(device)
        self._variance = moments.scale
        counts = moments.counts[column].to(device)
        self.c, self._n = len(counts), int(counts.sum())
        self.log_share = torch.log((counts + 0.5) / (counts + 0.5).sum())

    def minimise(
        self, weights: Float[Tensor, "d c"], bias: Float[Tensor, " c"], penalty: float, tolerance: float, max_iterations: int
    ) -> tuple[Float[Tensor, "d c"], Float[Tensor, " c"], Fit]:
        if not self._variance:  # rows that are all equal say nothing: the shares of the classes are the answer
            return weights, bias, Fit(penalty, self._value(weights, bias)[0], 0.0, 1, True)
        strength = penalty * self._variance
        curved = self._covariance / self.c
        curved.diagonal().add_(strength)
        factor = torch.linalg.cholesky(curved)
        # The bias is measured in its own natural unit as well: the Hessian's diagonal is near 1 / c.
        unit = self.c**-0.5
        first = self._gradient_at_zero(factor, unit)

        def objective(point: Float[Tensor, "m c"]) -> tuple[float, Float[Tensor, "m c"]]:
            w = torch.linalg.solve_triangular(factor.T, point[:-1], upper=True)
            loss, g_w, g_b = self._value(w, point[-1] / unit)
            g_u = torch.linalg.solve_triangular(factor, g_w + strength * w, upper=False)
            return loss + strength / 2 * float((w * w).sum()), torch.cat([g_u, g_b[None] / unit])

        start = torch.cat([factor.T @ weights, unit * bias[None]])
        states = descend(objective, start)
        state, iterations = next(states), 0
        while (relative := float(state.gradient.norm()) / first) > tolerance and iterations < max_iterations and not state.stuck:
            state, iterations = next(states), iterations + 1
        final = torch.linalg.solve_triangular(factor.T, state.point[:-1], upper=True)
        loss = state.value - strength / 2 * float((final * final).sum())
        return final, state.point[-1] / unit, Fit(penalty, loss, relative, state.evaluations, relative <= tolerance)

    def _gradient_at_zero(self, factor: Float[Tensor, "d d"], unit: float) -> float:
        zero = torch.zeros(len(factor), self.c, dtype=torch.float64, device=self._device)
        _, g_w, g_b = self._value(zero, self.log_share)
        g_u = torch.linalg.solve_triangular(factor, g_w, upper=False)
        return max(float(torch.cat([g_u, g_b[None] / unit]).norm()), 1e-300)

    def _value(
        self, weights: Float[Tensor, "d c"], bias: Float[Tensor, " c"]
    ) -> tuple[float, Float[Tensor, "d c"], Float[Tensor, " c"]]:
        """Mean cross-entropy and its gradient: products in float32, sums over blocks in float64."""
        w, b = weights.float(), bias.float()
        loss, g_w, g_b = 0.0, torch.zeros_like(weights), torch.zeros_like(bias)
        for x, y in self._rows():
            x, y = x.to(self._device, torch.float32), y.to(self._device)
            x = x if self._centred else x - self._centre
            log_p = torch.log_softmax(x @ w + b, dim=1)
            loss -= float(log_p.gather(1, y[:, None]).sum(dtype=torch.float64))
            p = log_p.exp_()
            p.scatter_add_(1, y[:, None], torch.full_like(y, -1, dtype=p.dtype)[:, None])
            g_w += (x.T @ p).double()
            g_b += p.sum(0, dtype=torch.float64)
        return loss / self._n, g_w / self._n, g_b / self._n
