"""Intervals by resampling whole texts or values: what would have come out with others of the same kind."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

RESAMPLES = 1000
TAIL = 0.025
"""Share of the resamples beyond each end: intervals of 95%."""


def interval(
    sums: Float[Tensor, "n m"], statistic: Callable[[Float[Tensor, "r m"]], Float[Tensor, " r"]], seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap of a statistic of column sums; NaN where there are fewer than two rows, or a resample has no value.

    Args:
        sums: A row for each independent unit.
        statistic: From column sums, a row a resample.
        seed: Of the draws.

    Source: Efron & Tibshirani, "An introduction to the bootstrap", 1993.
    """
    n = len(sums)
    if n < 2:
        return float("nan"), float("nan")
    drawn = torch.randint(n, (RESAMPLES, n), generator=torch.Generator().manual_seed(seed))
    weights = torch.zeros(RESAMPLES, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(RESAMPLES, n, dtype=torch.float64))
    values = statistic(weights @ sums.double().cpu())
    ends = torch.quantile(values, values.new_tensor([TAIL, 1 - TAIL]))
    return float(ends[0]), float(ends[1])
