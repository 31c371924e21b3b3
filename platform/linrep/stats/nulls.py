"""Nulls by permutation: where a value would lie if what was dealt out anew meant nothing."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from linrep.stats.interval import ends


@dataclass(frozen=True)
class Null:
    """What a value is if there is nothing.

    Attributes:
        value: Its mean.
        low: Lower end of the range that holds 95% of it.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def of_draws(draws: Float[np.ndarray, " r"]) -> Null:
    """The null that permutations have drawn; draws that are not finite are left out."""
    kept = draws[np.isfinite(draws)]
    if not len(kept):
        return Null(float("nan"), float("nan"), float("nan"))
    low, high = ends(kept)
    return Null(float(kept.mean()), float(low), float(high))


def permutations(n: int, draws: int, seed: int) -> Int64[np.ndarray, "r n"]:
    """Orders of n things, one a row."""
    return np.random.default_rng(seed).permuted(np.tile(np.arange(n), (draws, 1)), axis=1)
