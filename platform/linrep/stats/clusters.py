"""Shares of rows that come in clusters: tokens of one sample, samples of one image."""

import numpy as np
from jaxtyping import Float

from linrep.stats.bootstrap import draws
from linrep.stats.interval import NOTHING, Interval, ends
from linrep.stats.wilson import of_clusters, unanimous


def share(rows: Float[np.ndarray, " n"], hits: Float[np.ndarray, " n"]) -> Interval:
    """The share of hits among all rows, with Wilson's interval of as many independent rows as say as much.

    Args:
        rows: Rows of each cluster, or their weight.
        hits: Hits among them.
    """
    rows, hits = rows[rows > 0].astype(float), hits[rows > 0].astype(float)
    if not len(rows):
        return NOTHING
    total, value = float(rows.sum()), float(hits.sum() / rows.sum())
    # Clusters of unequal weight say as much as fewer equal ones (Kish, 1965).
    clusters = total**2 / float((rows**2).sum())
    variance = float(((hits - value * rows) ** 2).sum()) / total**2 * (clusters / (clusters - 1) if clusters > 1 else 1.0)
    return Interval(value, *of_clusters(value, max(total, clusters), variance, clusters))


def differences(rows: Float[np.ndarray, " n"], hits: Float[np.ndarray, "n q"], resamples: int, seed: int) -> tuple[Interval, ...]:
    """Differences of two shares of the same rows, from -1 to 1, by drawing clusters; all see the same draws.

    Where every cluster has the same difference every draw has, too: the number of clusters then says how much is left open.

    Args:
        rows: Rows of each cluster.
        hits: Hits of the one less hits of the other, by cluster and quantity.
        resamples: Draws.
        seed: Of the draws.
    """
    rows, hits = rows[rows > 0].astype(float), hits[rows > 0].astype(float)
    if not len(rows):
        return (NOTHING,) * hits.shape[1]
    drawn = np.concatenate([some @ hits / (some @ rows)[:, None] for some in draws(len(rows), resamples, seed)])
    values, (low, high) = hits.sum(0) / rows.sum(), ends(drawn)
    alike = np.ptp(hits / rows[:, None], axis=0) == 0
    return tuple(
        Interval(float(v), *(unanimous(float(v), len(rows), -1.0) if same else (float(a), float(b))))
        for v, a, b, same in zip(values, low, high, alike, strict=True)
    )
