"""Means with intervals over classes and samples, and efficacies read off at equal damage."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, Shaped

from linrep.stats import crossed

Kind = Literal["share", "difference", "bounded", "any"]
"""What is averaged: yes or no; differences of two of these; values between 0 and 1; any numbers."""
INTERVAL = {"share": crossed.share, "difference": crossed.difference, "bounded": crossed.bounded, "any": crossed.mean}
Pair = tuple[str, str]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval.

    Attributes:
        value: The mean; NaN of nothing.
        low: Lower end; NaN where a single sample leaves nothing to compare.
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
    source: Int[np.ndarray, " r"],
    target: Int[np.ndarray, " r"],
    sample: Int[np.ndarray, " r"],
    value: Float[np.ndarray, " r"],
    kind: Kind = "any",
) -> Estimate:
    """The mean of all rows, with an interval over source classes, target classes and samples.

    Pairs that share a class vary together: what is easily left, or easily reached, is so in all of its pairs. So do the runs of
    one image, whichever pair they are for. Differences between two directions are estimated from their differences row by row,
    so that what both share cancels.

    Args:
        source: Number of the class that each row's direction leads away from.
        target: Number of the class that it leads to.
        sample: Number of its sample, the same in all pairs.
        value: What is averaged; rows that are not finite are left out.
        kind: What the values are.

    Source: Cameron, Gelbach & Miller, "Robust inference with multiway clustering", 2011, see `linrep.stats.crossed`.
    """
    finite = np.isfinite(value)
    source, target, sample = (x[finite].astype(np.int64) for x in (source, target, sample))
    value = value[finite].astype(float)
    if not len(value):
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    n_pairs = int(crossed.numbered(source, target).max()) + 1
    n = int(crossed.numbered(source, target, sample).max()) + 1
    return Estimate(float(value.mean()), *INTERVAL[kind](value, (source, target, sample)), n_pairs, n)


@dataclass(frozen=True)
class Matched:
    """Efficacy where the damage has a given size.

    Attributes:
        reached: Whether the strengths reach that damage; else all values are those of the largest strength.
        strength: Strength there, interpolated.
        efficacy: Efficacy there, interpolated.
        low: Lower end of the 95% interval; NaN where a single sample leaves nothing to compare.
        high: Upper end.
        n_pairs: Pairs.
    """

    reached: bool
    strength: float
    efficacy: float
    low: float
    high: float
    n_pairs: int


Curves = Mapping[Pair, Mapping[str, Sequence[float]]]
"""By pair and sample, a value at each strength."""


def at_matched_damage(strengths: Float[np.ndarray, " s"], efficacy: Curves, damage: Curves, level: float) -> Matched:
    """Efficacy at the smallest strength whose mean damage reaches a level, with an interval over classes, images and texts.

    All pairs weigh the same, whatever their samples. The interval is a jackknife: each source, target, image or text is left
    out in turn, from both curves.

    Args:
        strengths: Rising, the first one 0 (the unedited run).
        efficacy: What each pair's images give at each strength.
        damage: What each pair's texts lose, likewise; 0 at strength 0. The same pairs.
        level: The damage asked for.
    """
    good, bad = _Rows.of(efficacy, "image"), _Rows.of(damage, "text")

    def read(kept_good: Bool[np.ndarray, "b n"], kept_bad: Bool[np.ndarray, "b m"]) -> tuple[np.ndarray, ...]:
        return _read_off(strengths, good.means(kept_good), bad.means(kept_bad), level)

    reached, strength, found = (x[0] for x in read(*(np.ones((1, len(own.value)), bool) for own in (good, bad))))
    ids = [
        np.unique(np.concatenate([one, other]), return_inverse=True)[1].astype(np.int64)
        for one, other in zip(good.ids, bad.ids, strict=True)
    ]

    def without(cluster: Int64[np.ndarray, " n"]) -> Float[np.ndarray, " g"]:
        kept = cluster != np.arange(cluster.max() + 1)[:, None]
        return read(kept[:, : len(good.value)], kept[:, len(good.value) :])[2]

    # Of a single image under a single pair nothing says how much efficacy varies, however many texts there are.
    alone = len(good.value) < 2
    low, high = (math.nan, math.nan) if alone else crossed.by_leaving_out(ids, float(found), without)
    return Matched(bool(reached), float(strength), float(found), low, high, len(efficacy))


@dataclass(frozen=True)
class _Rows:
    """Curves as rows: one for each pair and sample."""

    ids: tuple[Shaped[np.ndarray, " n"], Shaped[np.ndarray, " n"], Shaped[np.ndarray, " n"]]
    pair: Int64[np.ndarray, " n"]
    value: Float[np.ndarray, "n s"]

    @classmethod
    def of(cls, curves: Curves, of: str) -> "_Rows":
        rows = [(*pair, f"{of} {name}", i, own) for i, pair in enumerate(curves) for name, own in curves[pair].items()]
        source, target, sample, pair, value = zip(*rows, strict=True)
        return cls((np.array(source), np.array(target), np.array(sample)), np.array(pair), np.array(value, float))

    def means(self, kept: Bool[np.ndarray, "b n"]) -> Float[np.ndarray, "b s"]:
        """Mean over pairs of the mean over their samples that are kept; pairs that are left without one do not count."""
        out = []
        for chosen in kept:  # one at a time: of thousands of rows all at once would take much room
            n = np.bincount(self.pair[chosen], minlength=int(self.pair.max()) + 1)
            weight = chosen / np.maximum(n, 1)[self.pair]
            out.append(weight @ self.value / max((n > 0).sum(), 1) if chosen.any() else np.full(self.value.shape[1], math.nan))
        return np.stack(out)


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
