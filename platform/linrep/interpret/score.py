"""Scores from answers: balanced accuracy with a bootstrap interval, and the overlap of firing patches with an object."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

FEWEST = 4
"""Answered positives, and negatives, without which there is no score."""


@dataclass(frozen=True)
class Score:
    """How well an explanation tells when a latent fires.

    Attributes:
        value: Balanced accuracy; None where there are too few answers.
        low: Lower end of its 95% interval.
        high: Upper end.
        sensitivity: Share of the positives that were found.
        specificity: Share of the negatives that were refused.
        specificity_hard: Of the hard ones.
        n_positive: Answered positives.
        n_negative: Answered negatives.
        n_hard: Of these, hard ones.
        n_unanswered: Questions without an answer.
    """

    value: float | None
    low: float | None
    high: float | None
    sensitivity: float | None
    specificity: float | None
    specificity_hard: float | None
    n_positive: int
    n_negative: int
    n_hard: int
    n_unanswered: int


def score_answers(
    truth: Sequence[bool], said: Sequence[bool | None], hard: Sequence[bool], resamples: int = 1000, seed: int = 0
) -> Score:
    """The balanced accuracy of some answers: the mean of sensitivity and specificity, so that one half is chance.

    Args:
        truth: The right answers.
        said: The given ones; None for none, which counts neither as right nor as wrong.
        hard: Which negatives are hard.
        resamples: Bootstrap resamples; positives and negatives are drawn apart, so that their numbers stay.
        seed: Of the draws.

    Source: Brodersen et al., "The balanced accuracy and its posterior distribution", 2010.
    """
    right, answers = np.array(truth, bool), np.array([s is not None for s in said], bool)
    yes = np.array([bool(s) for s in said], bool)
    found, refused = yes[answers & right], ~yes[answers & ~right]
    refused_hard = ~yes[answers & ~right & np.array(hard, bool)]
    value = low = high = None
    if min(len(found), len(refused)) >= FEWEST:
        value = float(found.mean() + refused.mean()) / 2
        drawn = (_draws(found, resamples, seed) + _draws(refused, resamples, seed + 1)) / 2
        low, high = map(float, np.quantile(drawn, [0.025, 0.975]))
    return Score(
        value=value,
        low=low,
        high=high,
        sensitivity=_mean(found),
        specificity=_mean(refused),
        specificity_hard=_mean(refused_hard),
        n_positive=len(found),
        n_negative=len(refused),
        n_hard=len(refused_hard),
        n_unanswered=int((~answers).sum()),
    )


def _mean(x: Bool[np.ndarray, " n"]) -> float | None:
    return float(x.mean()) if len(x) else None


def _draws(x: Bool[np.ndarray, " n"], resamples: int, seed: int) -> Float[np.ndarray, " r"]:
    """The mean of each resample: how many of n draws are right is binomial."""
    return np.random.default_rng(seed).binomial(len(x), x.mean(), resamples) / len(x)


@dataclass(frozen=True)
class Overlap:
    """Mean intersection over union, with its 95% interval over pictures; None where too few pictures can be compared."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def mean_overlap(values: Sequence[float], resamples: int = 1000, seed: int = 0) -> Overlap:
    """The mean over pictures."""
    x = np.array(values, float)
    if len(x) < FEWEST:
        return Overlap(None, None, None, len(x))
    drawn = x[np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Overlap(float(x.mean()), float(low), float(high), len(x))


def overlap(fires: Bool[np.ndarray, " n"], on_object: Bool[np.ndarray, " n"]) -> float | None:
    """Intersection over union of two sets of patches; None where both are empty.

    >>> overlap(np.array([True, True, False]), np.array([False, True, True]))
    0.3333333333333333
    """
    union = int((fires | on_object).sum())
    return float((fires & on_object).sum() / union) if union else None
