"""Scores from answers: balanced accuracy with its interval, and the overlap of firing patches with an object."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from linrep.stats.wilson import of_bounded, of_sum, unanimous, wilson

FEWEST = 4
"""Answered positives, and negatives, without which there is no score."""


@dataclass(frozen=True)
class Score:
    """How well an explanation predicts when a latent fires.

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


def score_answers(truth: Sequence[bool], said: Sequence[bool | None], hard: Sequence[bool]) -> Score:
    """The balanced accuracy of some answers: the mean of sensitivity and specificity, so that one half is chance.

    Its interval is put together from Wilson's of both: where all answers are right it has a width, too.

    Args:
        truth: The right answers.
        said: The given ones; None for none, which counts neither as right nor as wrong.
        hard: Which negatives are hard.

    Source: Brodersen et al., "The balanced accuracy and its posterior distribution", 2010.
    """
    right, answers = np.array(truth, bool), np.array([s is not None for s in said], bool)
    yes = np.array([bool(s) for s in said], bool)
    found, refused = yes[answers & right], ~yes[answers & ~right]
    refused_hard = ~yes[answers & ~right & np.array(hard, bool)]
    value = low = high = None
    if min(len(found), len(refused)) >= FEWEST:
        value = float(found.mean() + refused.mean()) / 2
        parts = [(0.5, float(own.mean()), *wilson(float(own.mean()), len(own))) for own in (found, refused)]
        low, high = of_sum(parts)
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


@dataclass(frozen=True)
class Overlap:
    """Mean intersection over union, with its 95% interval over images; None where too few images can be compared."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def mean_overlap(values: Sequence[float]) -> Overlap:
    """The mean over images."""
    x = np.array(values, float)
    n, mean = len(x), float(x.mean()) if len(x) else float("nan")
    if n < FEWEST:
        return Overlap(None, None, None, n)
    alike = np.ptp(x) == 0
    return Overlap(mean, *(unanimous(mean, n) if alike else of_bounded(mean, float(x.var(ddof=1)) / n, n)), n)


def overlap(fires: Bool[np.ndarray, " n"], on_object: Bool[np.ndarray, " n"]) -> float | None:
    """Intersection over union of two sets of patches; None where both are empty.

    >>> overlap(np.array([True, True, False]), np.array([False, True, True]))
    0.3333333333333333
    """
    union = int((fires | on_object).sum())
    return float((fires & on_object).sum() / union) if union else None
