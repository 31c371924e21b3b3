"""Sums over vectors that merge: moments per dimension and a histogram of norms. A fixed order gives the same bits every time."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int64

from linrep.store.layout import HIGH_NORM
from schemas import STATISTICS

BINS_PER_OCTAVE = 32
LOWEST_OCTAVE, HIGHEST_OCTAVE = -20, 30
N_BINS = (HIGHEST_OCTAVE - LOWEST_OCTAVE) * BINS_PER_OCTAVE
"""Bin i holds norms from 2**(LOWEST_OCTAVE + i / 32) to the next: 2.2% wide; the first and last also hold what lies beyond."""


def norm_bin(norms: Float[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The histogram bin of each norm; what is not finite stands in the last one."""
    norms = np.where(np.isfinite(norms), norms, np.inf)
    with np.errstate(divide="ignore"):
        octaves = np.log2(norms.astype(np.float64)) - LOWEST_OCTAVE
    return np.clip(np.floor(octaves * BINS_PER_OCTAVE), 0, N_BINS - 1).astype(np.int64)


@dataclass(frozen=True)
class Sums:
    """Sums over n vectors of d dimensions, and a count of those of high norm that were kept apart.

    Attributes:
        n: Vectors that are not of high norm.
        n_nonfinite: Of these, how many the stored number format cannot hold; the sums are over the others.
        total: Sum per dimension.
        squares: Sum of squares per dimension.
        norm_counts: Vectors per norm bin.
        high_counts: Vectors kept apart per norm bin; None where none were looked for.
        high_positions: Vectors kept apart by their place in the sequence, as far as there are any.
    """

    n: int
    n_nonfinite: int
    total: Float[np.ndarray, " d"]
    squares: Float[np.ndarray, " d"]
    norm_counts: Int64[np.ndarray, " bins"]
    high_counts: Int64[np.ndarray, " bins"] | None = None
    high_positions: Int64[np.ndarray, " p"] | None = None

    @classmethod
    def zero(cls, width: int) -> "Sums":
        """The sums over no vectors."""
        return cls(0, 0, np.zeros(width), np.zeros(width), np.zeros(N_BINS, np.int64))

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.n + other.n,
            self.n_nonfinite + other.n_nonfinite,
            self.total + other.total,
            self.squares + other.squares,
            self.norm_counts + other.norm_counts,
            _padded_sum(self.high_counts, other.high_counts),
            _padded_sum(self.high_positions, other.high_positions),
        )

    @property
    def mean(self) -> Float[np.ndarray, " d"]:
        """Mean per dimension of the vectors that are finite; NaN over none."""
        n = self.n - self.n_nonfinite
        return self.total / n if n else np.full_like(self.total, np.nan)

    @property
    def variance(self) -> Float[np.ndarray, " d"]:
        """Population variance per dimension of the vectors that are finite; NaN over none."""
        n = self.n - self.n_nonfinite
        return np.maximum(self.squares / n - self.mean**2, 0) if n else np.full_like(self.total, np.nan)

    def norm_quantile(self, q: float) -> float:
        """The norm below which a share q of the finite norms lies, to within a bin (2.2%); NaN over none."""
        counts = np.cumsum(self.norm_counts[:-1])  # what is not finite stands in the last bin
        if not counts[-1]:
            return float("nan")
        i = int(np.searchsorted(counts, q * counts[-1], side="left"))
        return float(2.0 ** (LOWEST_OCTAVE + (min(i, N_BINS - 1) + 0.5) / BINS_PER_OCTAVE))

    @property
    def n_high_norm(self) -> int:
        """Vectors that were kept apart; where none were looked for, those above `HIGH_NORM` times the median, to within a bin."""
        if self.high_counts is not None:
            return int(self.high_counts.sum())
        if not self.norm_counts[:-1].any():
            return 0
        first = int(norm_bin(np.array([HIGH_NORM * self.norm_quantile(0.5)]))[0]) + 1
        return int(self.norm_counts[first:-1].sum())


def _padded_sum(one: Int64[np.ndarray, " _"] | None, other: Int64[np.ndarray, " _"] | None) -> Int64[np.ndarray, " _"] | None:
    if one is None or other is None:
        return other if one is None else one
    short, long = sorted((one, other), key=len)
    total = long.copy()
    total[: len(short)] += short
    return total


def to_table(sums: dict[tuple[int, str], Sums]) -> pa.Table:
    """Sums by layer and group as a table of the statistics contract."""
    rows = [
        {
            "layer": layer,
            "group": group,
            "n": s.n,
            "n_nonfinite": s.n_nonfinite,
            "sum": s.total.astype("<f8").tobytes(),
            "sum_squares": s.squares.astype("<f8").tobytes(),
            "norm_counts": s.norm_counts.astype("<i8").tobytes(),
            "n_high_norm": s.n_high_norm,
            "high_norm_counts": _bytes(s.high_counts),
            "high_norm_positions": _bytes(s.high_positions),
        }
        for (layer, group), s in sorted(sums.items())
    ]
    return pa.Table.from_pylist(rows, schema=STATISTICS)


def from_table(table: pa.Table) -> dict[tuple[int, str], Sums]:
    """The sums that `to_table` wrote."""
    return {
        (row["layer"], row["group"]): Sums(
            row["n"],
            row["n_nonfinite"],
            np.frombuffer(row["sum"], "<f8"),
            np.frombuffer(row["sum_squares"], "<f8"),
            np.frombuffer(row["norm_counts"], "<i8"),
            _counts(row["high_norm_counts"]),
            _counts(row["high_norm_positions"]),
        )
        for row in table.to_pylist()
    }


def _bytes(counts: Int64[np.ndarray, " _"] | None) -> bytes | None:
    return None if counts is None else counts.astype("<i8").tobytes()


def _counts(data: bytes | None) -> Int64[np.ndarray, " _"] | None:
    return None if data is None else np.frombuffer(data, "<i8")


def merge(parts: Iterable[dict[tuple[int, str], Sums]]) -> dict[tuple[int, str], Sums]:
    """The sums over all parts together, added in their order; only one part is held at a time."""
    merged: dict[tuple[int, str], Sums] = {}
    for part in parts:
        for key, sums in part.items():
            merged[key] = merged[key] + sums if key in merged else sums
    return merged
