"""The area under the ROC curve: the share of pairs, one with and one without, in which the one with has the higher score."""

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.stats import rankdata


def of_histograms(rest: Shaped[np.ndarray, "*many bins"], own: Shaped[np.ndarray, "*many bins"]) -> Float[np.ndarray, "*many"]:
    """From counts by bins that rise; pairs within one bin count half. NaN where one of the two has no rows.

    >>> of_histograms(np.array([2, 1, 0]), np.array([0, 1, 1])).tolist()
    0.9166666666666666
    """
    rest, own = rest.astype(float), own.astype(float)
    below = np.cumsum(rest, axis=-1) - rest
    pairs = own.sum(-1) * rest.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (own * (below + rest / 2)).sum(-1) / pairs, np.nan)


def of_scores(score: Shaped[np.ndarray, " n"], true: Bool[np.ndarray, " n"]) -> float:
    """From scores, ties for one half. NaN where only one of the two is there.

    >>> of_scores(np.array([0.0, 0.0, 1.0, 1.0, 2.0]), np.array([False, False, False, True, True]))
    0.9166666666666666
    """
    n_true, n = int(true.sum()), len(true)
    pairs = n_true * (n - n_true)
    return (float(rankdata(score)[true].sum()) - n_true * (n_true + 1) / 2) / pairs if pairs else float("nan")
