"""Intervals of shares that have a width also where all cases are alike, which no resampling can see."""

import math
from statistics import NormalDist

from scipy.optimize import root_scalar

from linrep.stats.interval import student

Z = NormalDist().inv_cdf(0.975)


def wilson(share: float, n: float, noise: float = 0.0) -> tuple[float, float]:
    """The 95% interval of a share of n cases. It has a width where all cases are alike, too. NaN without cases.

    Args:
        share: The estimate.
        n: Independent cases; of weighted ones, as many equal ones as say as much.
        noise: Variance of the estimate beside that of drawing n cases: it is as if there were fewer.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if not n > 0 or not math.isfinite(share):
        return float("nan"), float("nan")
    spread = share * (1 - share)
    n = spread / (spread / n + noise) if spread > 0 else n
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    reach = Z / (1 + Z * Z / n) * math.sqrt(spread / n + Z * Z / (4 * n * n))
    return max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach))


def of_clusters(share: float, n: float, variance: float, clusters: float) -> tuple[float, float]:
    """The 95% interval of a share of cases that come in clusters, whose cases stand or fall together more or less.

    Wilson's interval of as many independent cases as have this variance. The variance comes from few clusters: the number is
    lowered as Student's t is wider than the normal distribution. It lies between the number of clusters, which is what is left
    where all cases of a cluster are alike, and the number of cases.

    Args:
        share: The estimate.
        n: Cases.
        variance: Of the estimate, from how the clusters differ.
        clusters: How many there are.

    Source: Korn & Graubard, "Confidence intervals for proportions with small expected number of positive counts", 1998.
    """
    spread = share * (1 - share)
    if not spread > 0 or not variance > 0:
        return wilson(share, clusters if spread <= 0 else n)
    return wilson(share, min(max(spread / variance * (Z / student(clusters)) ** 2, clusters), n))


def of_bounded(mean: float, variance: float, clusters: int) -> tuple[float, float]:
    """The 95% interval of a mean of values between 0 and 1 that are no yes or no: Wilson's, whose ends stay between 0 and 1.

    Args:
        mean: The estimate.
        variance: Of the estimate.
        clusters: Independent clusters that the variance comes from.
    """
    spread = mean * (1 - mean)
    if not spread > 0 or not variance > 0:
        return (mean, mean) if clusters > 1 else (float("nan"), float("nan"))
    return wilson(mean, spread / variance * (Z / student(clusters)) ** 2)


def of_varying(mean: float, variance: float, clusters: int, cases: float = math.inf) -> tuple[float, float]:
    """The 95% interval of a share or a mean probability where each cluster has a probability of its own.

    It holds all p with (mean - p)^2 <= Z^2 V(p), as Wilson's does: V(p) is the variance that the mean would have if p were the
    truth. With r = p (1 - p) / (mean (1 - mean)),

        V(p) = drawing * r + between * r^2 / (1 - c + c * r)

    `drawing` is the part of the variance that independent yes-or-no cases have; it goes as p (1 - p). `between` is the rest, from
    the clusters. A small effect on the logit moves a probability by p (1 - p) times the effect: its variance goes as the square,
    r^2. Effects so large that each cluster is all yes or all no vary as shares do: r. c, the intraclass correlation at the mean,
    lies between both: its odds c / (1 - c) are taken to go as p (1 - p). Without a part of the clusters, and where c is 1, the
    interval is Wilson's.

    Few clusters widen both parts as Student's t is wider than the normal distribution. Of shares the variance lies between that
    of as many cases and that of as many clusters, see `of_clusters`.

    Args:
        mean: The estimate, more than 0 and less than 1.
        variance: Of the estimate, more than 0.
        clusters: Clusters that the variance comes from, 2 or more.
        cases: Answers that are yes or no; infinite for probabilities, which no drawing blurs.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927; for r and r^2 models II and III
        of Williams, "Extra-binomial variation in logistic linear models", 1982. What lies between them is of this project.
    """
    spread = mean * (1 - mean)
    of_drawing = min(1.0, spread / (cases - 1) / variance)  # both without bias
    c = min(1.0, variance * (1 - of_drawing) * clusters / spread)
    wide = variance * (student(clusters) / Z) ** 2
    if math.isfinite(cases):
        wide = min(max(wide, spread / cases), spread / clusters)

    def reach(p: float) -> float:
        r = p * (1 - p) / spread
        between = (1 - of_drawing) * r**2 / (1 - c + c * r) if r > 0 else 0.0
        return Z * math.sqrt(wide * (of_drawing * r + between))

    low, high = (root_scalar(lambda p: abs(p - mean) - reach(p), bracket=(mean, end)).root for end in (0.0, 1.0))
    return float(low), float(high)


def unanimous(value: float, n: float, lowest: float = 0.0, highest: float = 1.0) -> tuple[float, float]:
    """The 95% interval of a mean over n cases that all gave the same value, of values between two ends.

    As many cases may be otherwise as Wilson's interval of n out of n leaves open, and those may lie at either end: of n right
    answers the interval is Wilson's.

    Args:
        value: What every case gave.
        n: Independent cases.
        lowest: The least that a case can give.
        highest: The most.
    """
    open_to_doubt = 1.0 - wilson(1.0, n)[0]
    return value - open_to_doubt * (value - lowest), value + open_to_doubt * (highest - value)


def of_sum(parts: list[tuple[float, float, float, float]]) -> tuple[float, float]:
    """The 95% interval of a weighted sum of independent estimates, from their own intervals.

    Args:
        parts: Weight, value, lower and upper end of each.

    Source: Zou & Donner, "Construction of confidence limits about effect measures: a general approach", 2008.
    """
    total, down, up = 0.0, 0.0, 0.0
    for weight, value, low, high in parts:
        low, high = (low, high) if weight > 0 else (2 * value - high, 2 * value - low)
        total += weight * value
        down += (weight * (value - low)) ** 2
        up += (weight * (high - value)) ** 2
    return total - math.sqrt(down), total + math.sqrt(up)
