"""Intervals of shares that have a width also where all cases are alike, which no resampling can see."""

import math
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)


def wilson(share: float, n: float, noise: float = 0.0) -> tuple[float, float]:
    """The 95% interval of a share of n cases; it has a width where all cases are alike, too. NaN without cases.

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
