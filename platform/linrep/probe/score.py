"""Scores of classifiers on held-out rows, added up block by block, and their intervals over samples."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from linrep.stats import auroc, clusters
from linrep.stats.folded import folded
from linrep.stats.interval import Interval

BINS = 512
SPREAD = 6.0
"""AUROC comes from histograms of the scores: `BINS` bins over the mean of a class's scores plus or minus `SPREAD` deviations."""
FOLDS = 20
"""The interval of the AUROC leaves out one of `FOLDS` groups of samples at a time."""


class Tally:
    """Counts what one classifier does on held-out rows; memory grows with classes and samples, not with rows.

    Args:
        n_classes: Classes of the classifier.
        n_clusters: What the bootstrap will draw: samples of the split.
        range_of: Lowest and highest score that the histograms resolve, by class; None counts no AUROC.
        mixed: Whether a cluster has rows of several classes, as an image has patches.
    """

    def __init__(
        self, n_classes: int, n_clusters: int, range_of: Float[Tensor, "2 c"] | None = None, mixed: bool = False
    ) -> None:
        self.rows, self.top1, self.top5 = (np.zeros(n_clusters) for _ in range(3))
        self.confusion = np.zeros((n_classes, n_classes), np.int64)
        self._of_class = np.zeros(n_classes)
        self._class_of = np.full(n_clusters, -1)
        self._by_class = np.zeros((2, FOLDS, n_classes), np.int64)
        self._mixed = np.zeros((2, n_clusters, n_classes)) if mixed else None
        self._range = range_of
        self._c = n_classes
        self._bins = BINS if n_classes <= 100 else BINS // 4
        if range_of is not None:
            self._counts = np.zeros((FOLDS, n_classes, 2, self._bins), np.int64)

    def add(self, scores: Float[Tensor, "n c"], y: Int64[np.ndarray, " n"], cluster: Int64[np.ndarray, " n"]) -> None:
        """Count rows: their scores, their true classes, and the cluster that each belongs to."""
        truth = torch.from_numpy(y).to(scores.device)
        best = scores.argmax(dim=1)
        own = scores.gather(1, truth[:, None])
        # Ties stand in the order of the classes, as for argmax: constant scores must not count as right.
        ahead = (scores > own).sum(1) + ((scores == own) & (torch.arange(self._c, device=scores.device) < truth[:, None])).sum(1)
        n = len(self.rows)
        self.rows += np.bincount(cluster, minlength=n)
        self.top1 += np.bincount(cluster, (best == truth).cpu().numpy(), minlength=n)
        self.top5 += np.bincount(cluster, (ahead < 5).cpu().numpy(), minlength=n)
        self._class_of[cluster] = y
        if self._mixed is not None:
            np.add.at(self._mixed[0], (cluster, y), 1)
            np.add.at(self._mixed[1], (cluster, y), (best == truth).cpu().numpy())
        self._of_class += np.bincount(y, minlength=self._c)
        cell = (cluster % FOLDS) * self._c + y
        for part, weights in zip(self._by_class, (None, (best == truth).cpu().numpy()), strict=True):
            part += np.bincount(cell, weights, minlength=part.size).reshape(part.shape).astype(np.int64)
        self.confusion += np.bincount(y * self._c + best.cpu().numpy(), minlength=self._c**2).reshape(self._c, self._c)
        if self._range is not None:
            self._count_scores(scores.cpu(), y, cluster)

    def _count_scores(self, scores: Float[Tensor, "n c"], y: Int64[np.ndarray, " n"], cluster: Int64[np.ndarray, " n"]) -> None:
        assert self._range is not None
        low, high = self._range
        width = ((high - low) / self._bins).clamp(min=torch.finfo(scores.dtype).tiny)
        bins = ((scores - low) / width).clamp(0, self._bins - 1).long().numpy()
        inside = (y[:, None] == np.arange(self._c)).astype(np.int64)
        flat = (((cluster % FOLDS)[:, None] * self._c + np.arange(self._c)) * 2 + inside) * self._bins + bins
        self._counts += np.bincount(flat.ravel(), minlength=self._counts.size).reshape(self._counts.shape)

    @property
    def n_rows(self) -> int:
        """Rows counted."""
        return int(self.confusion.sum())

    @property
    def n_clusters(self) -> int:
        """Clusters with a row."""
        return int((self.rows > 0).sum())

    @property
    def chance(self) -> float:
        """Share of the most frequent class: what a constant answer gets."""
        return float(self._of_class.max() / max(self._of_class.sum(), 1))

    def level(self, group: Int64[np.ndarray, " n"]) -> None:
        """Make the rows of each group of clusters weigh the same together in the shares: those of the smallest count whole.

        What is counted class by class, as balanced accuracy and AUROC are, is left as it is.

        Args:
            group: Of each cluster; all rows of a cluster must be of one class.
        """
        totals = np.bincount(group, self.rows)
        share = totals[totals > 0].min() / np.where(totals > 0, totals, 1.0) if totals.any() else totals
        for counts in (self.rows, self.top1, self.top5):
            counts *= share[group]
        seen = self.rows > 0
        self._of_class = np.bincount(self._class_of[seen], self.rows[seen], minlength=self._c)

    def auroc(self) -> tuple[Interval, Float[np.ndarray, " c"]]:
        """Mean over classes of the area under the curve of class against rest, and that of each class (NaN where absent).

        The interval is a grouped jackknife over `FOLDS` groups of clusters.
        """
        whole = self._counts.sum(0)
        folds = self._by_class[0].any(1)
        by_class = areas(whole)
        without = [_mean(own) for own in areas(whole - self._counts[folds])]
        return folded(_mean(by_class), without, self.n_clusters, np.inf), by_class

    def balanced(self) -> Interval:
        """Mean over classes of the share of their rows that are right: one over c for a constant answer, however uneven c classes
        are. The interval is a grouped jackknife as for `auroc`.
        """
        rows, right = self._by_class
        folds = [f for f in range(FOLDS) if rows[f].any()]

        def recall(left_out: Int64[np.ndarray, "2 c"]) -> float:
            left = np.stack([rows, right]).sum(1) - left_out
            with np.errstate(invalid="ignore"):
                return _mean(left[1] / left[0])

        nothing = np.zeros((2, self._c), np.int64)
        without = [recall(np.stack([rows[f], right[f]])) for f in folds]
        return folded(recall(nothing), without, self.n_clusters, self.n_clusters)

    def of_class(self, c: int) -> Float[np.ndarray, "2 m"]:
        """Rows of a class, and those of them that are right, in each cluster that may have some."""
        if self._mixed is not None:
            return self._mixed[:, :, c]
        own = self._class_of == c
        return np.stack([self.rows[own], self.top1[own]])


def by_class(tallies: Sequence[Tally], n_resamples: int, seed: int) -> list[list[Interval]]:
    """Top-1 accuracy of each class for classifiers of the same rows and labels; NaN where the split has none of a class."""
    out = []
    for c in range(len(tallies[0].confusion)):
        rows, right = zip(*(tally.of_class(c) for tally in tallies), strict=True)
        assert all(np.array_equal(own, rows[0]) for own in rows), "labels differ: the classes are not the same"
        out.append(bootstrap(rows[0], right, n_resamples, seed))
    return [list(intervals) for intervals in zip(*out, strict=True)]


def bootstrap(
    rows: Float[np.ndarray, " n"],
    hits: Sequence[Shaped[np.ndarray, " n"]],
    n: int,
    seed: int,
    lowest: Sequence[float] | None = None,
) -> list[Interval]:
    """Shares of hits among rows, with Wilson's intervals over clusters; differences of shares by resampling clusters.

    Args:
        rows: Rows of each cluster.
        hits: For each quantity the hits of each cluster; a difference of hits gives the interval of a difference.
        n: Resamples.
        seed: Seed of the draws.
        lowest: The least that each quantity can be: 0 if None, -1 for a difference.
    """
    moved = [i for i in range(len(hits)) if lowest is not None and lowest[i] < 0]
    apart = clusters.differences(rows, np.stack([hits[i] for i in moved], axis=1).astype(float), n, seed) if moved else ()
    found = dict(zip(moved, apart, strict=True))
    return [found[i] if i in found else clusters.share(rows, own.astype(float)) for i, own in enumerate(hits)]


def areas(counts: Int64[np.ndarray, "*many c 2 bins"]) -> Float[np.ndarray, "*many c"]:
    """Area under the curve from histograms of the rest (0) and the class (1)."""
    return auroc.of_histograms(counts[..., 0, :], counts[..., 1, :])


def _mean(values: Float[np.ndarray, " c"]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
