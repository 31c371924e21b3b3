"""Intervals that hold over images and over seeds, of a measure and of its difference between two SAEs."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from linrep.sae.panel.causal import Cases
from linrep.stats import crossed
from linrep.stats.interval import Interval, ends, student


@dataclass(frozen=True)
class Resampled:
    """A measure of an SAE from several seeds, on all images and on images drawn anew.

    Attributes:
        values: Of each seed, on all images.
        draws: Of each seed, on each draw of images; the same draws for all seeds and SAEs.
    """

    values: Float[np.ndarray, " k"]
    draws: Float[np.ndarray, "k r"]

    def interval(self) -> Interval:
        """The mean over seeds, with an interval over images and seeds."""
        return with_seeds(float(self.values.mean()), *_ends(self.draws.mean(0)), seed_reach(self.values))

    def less(self, other: "Resampled") -> Interval:
        """This one minus another, on the same draws of images; what seeds add comes from both."""
        value = float(self.values.mean() - other.values.mean())
        reach = math.hypot(seed_reach(self.values), seed_reach(other.values))
        return with_seeds(value, *_ends(self.draws.mean(0) - other.draws.mean(0)), reach)


@dataclass(frozen=True)
class Successes:
    """Successes of an SAE from several seeds, case by case.

    Attributes:
        cases: Images under edits.
        values: Whether each succeeded, a row for each seed.
    """

    cases: Cases
    values: Float[np.ndarray, "k n"]

    def interval(self) -> Interval:
        """The share, with an interval over source classes, target classes and images, and over seeds."""
        share = self.values.mean(0)
        return with_seeds(
            float(share.mean()), *crossed.share(share, self.cases.ids), seed_reach(self.values.mean(1)), lowest=0.0, highest=1.0
        )

    def less(self, other: "Successes") -> Interval:
        """This one minus another, case by case."""
        apart = self.values.mean(0) - other.values.mean(0)
        reach = math.hypot(seed_reach(self.values.mean(1)), seed_reach(other.values.mean(1)))
        return with_seeds(float(apart.mean()), *crossed.difference(apart, self.cases.ids), reach, lowest=-1.0, highest=1.0)


Measured = Resampled | Successes


def seed_reach(values: Float[np.ndarray, " k"]) -> float:
    """How far seeds widen an interval of their mean: Student's, of their standard error; 0 of one seed, which says nothing."""
    k = len(values)
    return student(k) * float(values.std(ddof=1)) / math.sqrt(k) if k > 1 else 0.0


def with_seeds(
    value: float, low: float, high: float, reach: float, lowest: float = -math.inf, highest: float = math.inf
) -> Interval:
    """An interval over images, widened by what seeds add, as if both were independent.

    Args:
        value: The estimate.
        low: Lower end over images.
        high: Upper end.
        reach: Of `seed_reach`.
        lowest: Least value that there can be.
        highest: Largest.
    """
    down, up = math.hypot(value - min(low, value), reach), math.hypot(max(high, value) - value, reach)
    return Interval(value, max(lowest, value - down), min(highest, value + up))


def _ends(draws: Float[np.ndarray, " r"]) -> tuple[float, float]:
    low, high = ends(draws)
    return float(low), float(high)
