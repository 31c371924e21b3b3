"""Means with intervals over pairs of classes and samples within pairs, and efficacies read off at equal damage."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

N_DRAWS = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval.

    Attributes:
        value: The mean; NaN of nothing.
        low: Lower end; NaN where a single sample leaves nothing to draw from.
        high: Upper end.
        n_pairs: Pairs that count.
        n: Samples that count, a sample once for each pair.
    """

    value: float
    low: float
    high: float
    n_pairs: int
    n: int


def estimate(
    pair: Int[np.ndarray, " r"], sample: Int[np.ndarray, " r"], value: Float[np.ndarray, " r"], seed: int = 0
) -> Estimate:
    """The mean of all rows, and its interval by a bootstrap that draws pairs and, within each, samples.

    Rows of one sample stay together, and so do the samples of a pair: what a pair's direction does to one photograph says
    little about other pairs. Differences between two directions are estimated from their differences row by row, so that what
    both share cancels.

    Args:
        pair: Number of each row's pair.
        sample: Number of its sample within the pair; any numbers will do.
        value: What is averaged; rows that are not finite are left out.
        seed: Of the draws.

    Source: Davison & Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8 (hierarchical data).
    """
    finite = np.isfinite(value)
    pair, sample, value = pair[finite], sample[finite], value[finite]
    if not len(value):
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    sums, counts, sizes = _by_sample(pair, sample, value)
    n_pairs, n = len(sizes), int(sizes.sum())
    mean = float(value.mean())
    if n < 2:
        return Estimate(mean, float("nan"), float("nan"), n_pairs, n)
    if (value == value[0]).all():  # every draw gives the same
        return Estimate(mean, mean, mean, n_pairs, n)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(n_pairs, size=(N_DRAWS, n_pairs))
    width = sums.shape[1]
    inner = (rng.random((N_DRAWS, n_pairs, width)) * sizes[drawn][:, :, None]).astype(np.int64)
    used = np.arange(width) < sizes[drawn][:, :, None]
    total = np.where(used, sums[drawn[:, :, None], inner], 0).sum((1, 2))
    weight = np.where(used, counts[drawn[:, :, None], inner], 0).sum((1, 2))
    low, high = np.quantile(total / weight, [0.025, 0.975])
    return Estimate(mean, float(low), float(high), n_pairs, n)


def _by_sample(
    pair: Int[np.ndarray, " r"], sample: Int[np.ndarray, " r"], value: Float[np.ndarray, " r"]
) -> tuple[Float[np.ndarray, "p s"], Float[np.ndarray, "p s"], Int[np.ndarray, " p"]]:
    """Sum and count of every pair's samples, filled up with zeros, and how many samples each pair has."""
    both, row = np.unique(np.stack([pair, sample], axis=1), axis=0, return_inverse=True)
    row = row.reshape(-1)
    _, first, sizes = np.unique(both[:, 0], return_index=True, return_counts=True)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    column = np.arange(len(both)) - first[owner]
    sums, counts = np.zeros((len(sizes), sizes.max())), np.zeros((len(sizes), sizes.max()))
    sums[owner, column] = np.bincount(row, weights=value, minlength=len(both))
    counts[owner, column] = np.bincount(row, minlength=len(both))
    return sums, counts, sizes


@dataclass(frozen=True)
class Matched:
    """Efficacy where the damage has a given size.

    Attributes:
        reached: Whether the strengths reach that damage; else all values are those of the largest strength.
        strength: Strength there, interpolated.
        efficacy: Efficacy there, interpolated.
        low: Lower end of the 95% interval over pairs.
        high: Upper end.
        n_pairs: Pairs.
    """

    reached: bool
    strength: float
    efficacy: float
    low: float
    high: float
    n_pairs: int


def at_matched_damage(
    strengths: Float[np.ndarray, " s"],
    efficacy: Float[np.ndarray, "p s"],
    damage: Float[np.ndarray, "p s"],
    level: float,
    seed: int = 0,
) -> Matched:
    """Efficacy at the smallest strength whose mean damage reaches a level, with an interval over pairs.

    Args:
        strengths: Rising, the first one 0 (the unedited run).
        efficacy: Mean of each pair at each strength.
        damage: Likewise; 0 at strength 0.
        level: The damage asked for.
        seed: Of the draws.
    """

    def read(rows: Int[np.ndarray, " n"]) -> tuple[bool, float, float]:
        harm, good = damage[rows].mean(0), efficacy[rows].mean(0)
        over = np.flatnonzero(harm >= level)
        if not len(over) or over[0] == 0:
            at = len(strengths) - 1 if not len(over) else 0
            return bool(len(over)), float(strengths[at]), float(good[at])
        j = int(over[0])
        part = (level - harm[j - 1]) / (harm[j] - harm[j - 1])
        mix = lambda x: float(x[j - 1] + part * (x[j] - x[j - 1]))  # noqa: E731
        return True, mix(strengths), mix(good)

    n = len(efficacy)
    reached, strength, value = read(np.arange(n))
    rng = np.random.default_rng(seed)
    drawn = [read(rng.integers(n, size=n))[2] for _ in range(N_DRAWS)] if n > 1 else [float("nan")]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Matched(reached, strength, value, float(low), float(high), n)
