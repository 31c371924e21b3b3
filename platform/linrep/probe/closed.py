"""Probes in closed form: ridge, linear discriminants, class means and few-coordinate probes, all from the same moments."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.linear import solve_damped
from linrep.probe.linear import Linear
from linrep.probe.moments import Moments


def ridge(moments: Moments, columns: Sequence[str], alphas: Sequence[float]) -> dict[str, list[Linear]]:
    """One-against-rest least squares with targets +1 and -1, for each label column and each penalty.

    All columns share one factorisation for a penalty.

    Args:
        moments: Of the training rows.
        columns: Label columns.
        alphas: Penalties on the squared weights, as scikit-learn's RidgeClassifier takes them.
    """
    targets = torch.cat([_centred_targets(moments, column) for column in columns], dim=1)
    sizes = [len(moments.counts[column]) for column in columns]
    fitted: dict[str, list[Linear]] = {column: [] for column in columns}
    for alpha in alphas:
        weights = solve_damped(moments.scatter, alpha, targets) if moments.scale else torch.zeros_like(targets)
        for column, own in zip(columns, weights.split(sizes, dim=1), strict=True):
            bias = 2 * moments.counts[column] / max(moments.n, 1) - 1
            fitted[column].append(Linear("ridge", moments.mean, own, bias, alpha))
    return fitted


def pattern(moments: Moments, probe: Linear) -> Float[Tensor, "c d"]:
    """What the rows look like where a probe's scores are high: their covariance times its weights, one vector a class.

    Weights also cancel what varies beside a class; the pattern is the part of the rows that goes with the score.

    Args:
        moments: Of the training rows.
        probe: Fitted to them.

    Source: Haufe et al., "On the interpretation of weight vectors of linear models in multivariate neuroimaging", 2014.
    """
    return (moments.scatter / max(moments.n, 1) @ probe.weights).T.contiguous()


def lda(moments: Moments, column: str, shrinkages: Sequence[float]) -> list[Linear]:
    """Linear discriminants with the pooled within-class covariance shrunk to a multiple of the identity.

    Equal to scikit-learn's LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s) in every posterior; the class directions are
    measured from the mean of all rows.

    Args:
        moments: Of the training rows.
        column: A label column without missing labels.
        shrinkages: 0 for the covariance as it is, 1 for its mean variance alone.
    """
    means, share, within = moments.between(column), moments.counts[column] / max(moments.n, 1), moments.within(column)
    mean_variance = float(within.diagonal().mean())
    log_share = torch.where(share > 0, share.clamp(min=1e-300).log(), -torch.inf)
    fitted = []
    for s in shrinkages:
        if moments.scale and mean_variance > 1e-13 * moments.scale:
            weights = solve_damped((1 - s) * within, s * mean_variance, means.T.contiguous())
        else:  # no spread within the classes: nothing to weigh dimensions by
            weights = means.T.contiguous()
        bias = log_share - 0.5 * (means.T * weights).sum(0)
        # A class that was never seen gets the lowest score, but a finite one: infinities would spoil products.
        fitted.append(Linear("lda", moments.mean, weights, bias.clamp(min=-1e30), s))
    return fitted


def class_means(moments: Moments, column: str) -> Linear:
    """The nearest class mean, as a linear classifier; its columns are the class means, measured from the mean of all rows.

    Source: Marks & Tegmark, "The Geometry of Truth", 2023 (mass-mean probe, without the covariance), for several classes.
    """
    means = moments.between(column)
    bias = -0.5 * (means**2).sum(1)
    bias = torch.where(moments.counts[column] > 0, bias, -1e30)
    return Linear("class_mean", moments.mean, means.T.contiguous(), bias)


def rank_coordinates(moments: Moments, column: str) -> Int64[Tensor, "c d"]:
    """For each class the dimensions by |mean of the class - mean of the rest| over the deviation within the classes.

    The largest come first, equal ones in their order. A dimension that is loud in all classes alike ranks low however far its
    means lie apart; language models have such dimensions (Sun et al., "Massive Activations in Large Language Models", 2024).

    Args:
        moments: Of the training rows.
        column: A label column.
    """
    counts = moments.counts[column][:, None]
    gap = moments.between(column) * (moments.n / (moments.n - counts).clamp(min=1))
    return (gap.abs() / moments.within_deviation(column)).argsort(dim=1, descending=True, stable=True)


def sparse(moments: Moments, column: str, k: int, order: Int64[Tensor, "c d"] | None = None, alpha: float = 1e-6) -> Linear:
    """A probe that sees k dimensions for each class: linear discriminants fitted jointly to all that were chosen.

    Every class is scored from the dimensions of all classes, so that scores of different classes compare. Weights of other
    dimensions are zero. Chosen dimensions are fitted in units of their deviation within the classes.

    Args:
        moments: Of the training rows.
        column: A label column.
        k: Dimensions chosen for each class; all of them where there are fewer.
        order: What `rank_coordinates` gives, if it was computed before.
        alpha: Penalty relative to a dimension's variance, for dimensions that depend on each other.
    """
    order = rank_coordinates(moments, column) if order is None else order
    chosen = order[:, :k].unique()
    deviation = moments.within_deviation(column)[chosen]
    (own,) = lda(moments.at(chosen, 1 / deviation), column, [alpha])
    weights = torch.zeros(moments.width, own.n_classes, dtype=own.weights.dtype)
    weights[chosen] = own.weights / deviation[:, None]
    return Linear("sparse", moments.mean, weights, own.bias, float(k), {"coordinates": float(len(chosen))})


def solve_few(
    scatter: Float[Tensor, "c k k"],
    between: Float[Tensor, "c k"],
    counts: Float[Tensor, " c"],
    n: float,
    alpha: float = 1e-6,
) -> tuple[Float[Tensor, "c k"], Float[Tensor, " c"]]:
    """Weights and biases of one-against-rest least squares, each class on k dimensions of its own.

    Args:
        scatter: Of those dimensions, about the mean of all rows.
        between: Mean of the class minus mean of all rows, in those dimensions.
        counts: Rows of each class.
        n: All rows.
        alpha: Penalty relative to the mean variance, for dimensions that depend on each other.
    """
    variance = scatter.diagonal(dim1=1, dim2=2).mean(1).clamp(min=torch.finfo(scatter.dtype).tiny)
    damped = scatter + alpha * variance[:, None, None] * torch.eye(scatter.shape[1], dtype=scatter.dtype)
    targets = (2 * counts[:, None] * between)[:, :, None]
    factor, failed = torch.linalg.cholesky_ex(damped)
    found = torch.cholesky_solve(targets, factor)[:, :, 0]
    singular = (failed != 0) | ~found.isfinite().all(1)
    if bool(singular.any()):
        found[singular] = torch.linalg.lstsq(damped[singular], targets[singular], driver="gelsd").solution[:, :, 0]
    inside = (between * found).sum(1)
    outside = -inside * counts / (n - counts).clamp(min=1)
    return found, -0.5 * (inside + outside)


def _centred_targets(moments: Moments, column: str) -> Float[Tensor, "d c"]:
    """Sum over rows of (x - mean) times the target +1 or -1."""
    return (2 * moments.counts[column][:, None] * moments.between(column)).T.contiguous()
