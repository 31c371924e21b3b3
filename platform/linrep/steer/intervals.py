"""Means with intervals over pairs of classes and samples within pairs, and efficacies read off at equal damage."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from linrep.stats.wilson import unanimous

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
    pair: Int[np.ndarray, " r"],
    sample: Int[np.ndarray, " r"],
    value: Float[np.ndarray, " r"],
    seed: int = 0,
    span: tuple[float, float] | None = None,
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
        span: Least and largest value there can be, of shares: where all rows are alike every draw is, too, and the interval is
            what as many pairs (of one pair: samples) leave room for. None for measures that are alike only by their nature.

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
        ends = (mean, mean) if span is None else unanimous(mean, n_pairs if n_pairs > 1 else n, *span)
        return Estimate(mean, *ends, n_pairs, n)
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
        low: Lower end of the 95% interval; NaN where a single sample leaves nothing to draw from.
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
    efficacy: Sequence[Float[np.ndarray, "_ s"]],
    damage: Sequence[Float[np.ndarray, "_ s"]],
    level: float,
    seed: int = 0,
) -> Matched:
    """Efficacy at the smallest strength whose mean damage reaches a level, with an interval over pairs, photographs and texts.

    Args:
        strengths: Rising, the first one 0 (the unedited run).
        efficacy: For each pair its photographs at each strength, one row a photograph.
        damage: For each pair its texts, likewise; 0 at strength 0.
        level: The damage asked for.
        seed: Of the draws.
    """
    n = len(efficacy)
    good, harm = (np.stack([x.mean(0) for x in part]).mean(0)[None] for part in (efficacy, damage))
    value = _read_off(strengths, good, harm, level)
    rng = np.random.default_rng(seed)
    low = high = float("nan")
    if n > 1 or len(efficacy[0]) > 1:
        pairs = rng.integers(n, size=(N_DRAWS, n))
        good, harm = (_drawn_means(part, pairs, rng) for part in (efficacy, damage))
        low, high = np.quantile(_read_off(strengths, good, harm, level)[2], [0.025, 0.975])
    reached, strength, found = (x[0] for x in value)
    return Matched(bool(reached), float(strength), float(found), float(low), float(high), n)


def _drawn_means(
    part: Sequence[Float[np.ndarray, "_ s"]], pairs: Int[np.ndarray, "b p"], rng: np.random.Generator
) -> Float[np.ndarray, "b s"]:
    """Mean over drawn pairs of the mean over samples drawn within each."""
    sizes = np.array([len(x) for x in part])
    filled = np.zeros((len(part), sizes.max(), part[0].shape[1]))
    for i, x in enumerate(part):
        filled[i, : len(x)] = x
    inner = (rng.random((*pairs.shape, sizes.max())) * sizes[pairs][:, :, None]).astype(np.int64)
    used = np.arange(sizes.max()) < sizes[pairs][:, :, None]
    weight = used / sizes[pairs][:, :, None] / pairs.shape[1]
    return np.stack([np.einsum("pi,pis->s", w, filled[p[:, None], i]) for p, i, w in zip(pairs, inner, weight, strict=True)])


def _read_off(
    strengths: Float[np.ndarray, " s"], efficacy: Float[np.ndarray, "b s"], damage: Float[np.ndarray, "b s"], level: float
) -> tuple[Bool[np.ndarray, " b"], Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Where each curve of damages first reaches a level: whether it does, and strength and efficacy there, between the points."""
    over = damage >= level
    reached = np.asarray(over.any(1))
    right = np.where(reached, over.argmax(1), len(strengths) - 1)
    left = np.where(reached, np.maximum(right - 1, 0), right)
    row = np.arange(len(damage))
    step = damage[row, right] - damage[row, left]
    part = np.where(step > 0, (level - damage[row, left]) / np.where(step > 0, step, 1.0), 0.0)
    mix = lambda x: x[row, left] + part * (x[row, right] - x[row, left])  # noqa: E731
    return reached, mix(np.broadcast_to(strengths, damage.shape)), mix(efficacy)
