"""How well each latent separates the values of attributes, from histograms of its largest activation on each sample.

Memory does not depend on the number of samples. A latent's bins hang from its own largest activation, eight to a factor of two,
and fall over eight such factors; what lies lower shares the lowest bin. When a larger activation comes, counts move down: the
final counts are those of the final bins, whatever the order, and parts merge exactly. A threshold lies at the lower edge of a
bin, so F1 is exact for the threshold that is named; of the area under the ROC curve, samples of one bin count as tied, and the
largest error that this can make goes with it.

A value and its threshold are chosen on one half of the samples and scored on the other: the best of many is good by luck.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int64, UInt32

from linrep.features.peaks import Peaks
from linrep.stats.auroc import of_histograms

BINS = 64
_SHIFT = np.uint32(20)
"""Of a float's bits: what stays is the exponent and three bits below it, eight steps to a factor of two."""
ROOM_BYTES = 2**23
"""Of the counts, as float64, of the latents that are scored at once; scoring holds a few arrays of this size."""


@dataclass(frozen=True)
class Attribute:
    """What is known of the samples.

    Attributes:
        name: class, or a column of the attributes' table.
        values: Its values in words.
        codes: Number of the value of each of the store's s samples, -1 where it has none.
    """

    name: str
    values: tuple[str, ...]
    codes: Int64[np.ndarray, " s"]


@dataclass(frozen=True)
class LabelScores:
    """How well f latents separate the values of one attribute; NaN and -1 where a latent or the attribute has too few samples.

    Attributes:
        value: Number of the value with the best F1 on the half that it is chosen on.
        threshold: Says so at and above this activation; 0 wherever the latent fires.
        f1_chosen: F1 on that half.
        f1: On the other.
        auroc: On the other, for that value.
        auroc_error: Largest error of it.
        entropy: Over the values, of mean activations; a share of the logarithm of their number.
        n: Samples of the value on the other half.
    """

    value: Int64[np.ndarray, " f"]
    threshold: Float64[np.ndarray, " f"]
    f1_chosen: Float64[np.ndarray, " f"]
    f1: Float64[np.ndarray, " f"]
    auroc: Float64[np.ndarray, " f"]
    auroc_error: Float64[np.ndarray, " f"]
    entropy: Float64[np.ndarray, " f"]
    n: Int64[np.ndarray, " f"]


class Histograms:
    """Counts of samples by latent, value, half and bin. Bytes: f v (8 + 8 BINS), for v values of all attributes together."""

    def __init__(self, f: int, attributes: Sequence[Attribute]) -> None:
        sizes = [len(a.values) for a in attributes]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        v = int(self.starts[-1])
        self.counts: UInt32[np.ndarray, "f v 2 bins"] = np.zeros((f, v, 2, BINS), np.uint32)
        self.top: Int16[np.ndarray, " f"] = np.zeros(f, np.int16)
        self.sums: Float64[np.ndarray, "f v"] = np.zeros((f, v))
        self.samples: Int64[np.ndarray, "v 2"] = np.zeros((v, 2), np.int64)

    def add(
        self,
        found: Peaks,
        samples: Int64[np.ndarray, " m"],
        attributes: Sequence[Attribute],
        half: Int64[np.ndarray, " s"],
    ) -> None:
        """Count some samples.

        Args:
            found: What fires on them.
            samples: All of them, each once: on some nothing fires.
            attributes: What is known of all samples; the same at each call.
            half: Half of each sample, 0 or 1.
        """
        for start, attribute in zip(self.starts, attributes, strict=False):
            code = attribute.codes[samples]
            np.add.at(self.samples, (start + code[code >= 0], half[samples[code >= 0]]), 1)
        if not self.counts.size or not len(found.latent):
            return
        at = _bin(found.value)
        top = self.top.copy()
        np.maximum.at(top, found.latent, at)
        self._hang(top)
        place = np.maximum(BINS - 1 - (top[found.latent] - at), 0)
        flat, v = self.counts.reshape(-1), self.sums.shape[1]
        for start, attribute in zip(self.starts, attributes, strict=False):
            code = attribute.codes[found.sample]
            has = code >= 0
            cell = found.latent[has] * v + start + code[has]
            np.add.at(flat, (cell * 2 + half[found.sample[has]]) * BINS + place[has], np.uint32(1))
            np.add.at(self.sums.reshape(-1), cell, found.value[has].astype(np.float64))

    def merge(self, other: "Histograms") -> None:
        """Count what another one counted."""
        self._hang(np.maximum(self.top, other.top))
        for rows in self._blocks(np.arange(len(self.top))):
            _add(self.counts, rows, other.counts[rows], self.top[rows] - other.top[rows])
        self.sums += other.sums
        self.samples += other.samples

    def _hang(self, top: Int16[np.ndarray, " f"]) -> None:
        """Hang the bins from higher tops."""
        rise = top - self.top
        rise[self.top == 0] = 0  # nothing was counted there yet
        for rows in self._blocks(np.flatnonzero(rise)):
            counts = self.counts[rows]
            self.counts[rows] = 0
            _add(self.counts, rows, counts, rise[rows])
        self.top = top

    def _blocks(self, rows: Int64[np.ndarray, " r"]) -> Iterator[Int64[np.ndarray, " b"]]:
        """Some latents, as many at a time as there is room for."""
        step = max(1, ROOM_BYTES // (8 * 2 * BINS * max(self.sums.shape[1], 1)))
        for start in range(0, len(rows), step):
            yield rows[start : start + step]

    def scores(self, attribute: int, min_samples: int, present: Int64[np.ndarray, " f"]) -> LabelScores:
        """How well each latent separates the values of one attribute.

        Args:
            attribute: Its number.
            min_samples: Samples that a value must have, and on which a latent must fire.
            present: Samples on which each latent fires.
        """
        own = slice(int(self.starts[attribute]), int(self.starts[attribute + 1]))
        f = len(self.top)
        enough = (self.samples[own].sum(1) >= min_samples) & (self.samples[own] > 0).all(1)
        numbers = {name: np.full(f, np.nan) for name in LabelScores.__dataclass_fields__ if name not in ("value", "n")}
        none = LabelScores(value=np.full(f, -1), n=np.zeros(f, np.int64), **numbers)
        if enough.sum() < 2:
            return none
        at_once = max(1, ROOM_BYTES // (len(enough) * 2 * BINS * 8))
        for start in range(0, f, at_once):
            rows = np.arange(start, min(start + at_once, f))
            rows = rows[present[rows] >= min_samples]
            if len(rows):
                self._score(rows, own, enough, none)
        return none

    def _score(self, rows: Int64[np.ndarray, " r"], own: slice, enough: np.ndarray, out: LabelScores) -> None:
        n, each = self.samples[own].astype(np.float64), np.arange(len(rows))
        # From the highest bin down: samples of each value, and of all values, at and above.
        right = self.counts[rows, own, 0, ::-1].cumsum(-1, dtype=np.float64)
        f1 = 2 * right / np.maximum(right.sum(1, keepdims=True) + n[None, :, :1], 1)
        f1[:, ~enough] = -1
        # Of equal ones the lowest threshold: what lies between it and the others fires, and none of it was wrong.
        value, place = np.divmod(f1[:, :, ::-1].reshape(len(rows), -1).argmax(1), BINS)
        place = BINS - 1 - place
        out.value[rows], out.f1_chosen[rows] = value, f1[each, value, place]
        # On the other half, of this one value.
        other = self.counts[rows, own, 1]
        yes = other[each, value].astype(np.float64)
        no = other.sum(1, dtype=np.float64) - yes
        right, said = yes[:, ::-1].cumsum(1)[each, place], (yes + no)[:, ::-1].cumsum(1)[each, place]
        out.f1[rows] = 2 * right / np.maximum(said + n[value, 1], 1)
        lowest = place == BINS - 1
        out.threshold[rows] = np.where(lowest, 0.0, edge((self.top[rows] - place).astype(np.int16)))
        out.n[rows] = n[value, 1]
        p, q = n[value, 1], n[:, 1].sum() - n[value, 1]
        silent_yes, silent_no = p - yes.sum(1), q - no.sum(1)
        tied = (yes * no).sum(1)
        pairs = np.maximum(p * q, 1)
        # Silent samples share the lowest bin.
        out.auroc[rows] = of_histograms(*(np.c_[silent, some] for silent, some in ((silent_no, no), (silent_yes, yes))))
        out.auroc_error[rows] = np.where(q > 0, tied / 2 / pairs, np.nan)
        means = self.sums[rows, own][:, enough] / n[enough].sum(1)
        share = means / np.maximum(means.sum(1, keepdims=True), np.finfo(float).tiny)
        logs = np.log(share, out=np.zeros_like(share), where=share > 0)
        out.entropy[rows] = np.where(means.sum(1) > 0, np.abs((share * logs).sum(1)) / np.log(enough.sum()), np.nan)


def _bin(value: Float32[np.ndarray, " n"]) -> Int16[np.ndarray, " n"]:
    return (np.ascontiguousarray(value).view(np.uint32) >> _SHIFT).astype(np.int16)


def edge(number: Int16[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """The least activation of a bin."""
    return (number.astype(np.uint32) << _SHIFT).view(np.float32).astype(np.float64)


def _add(
    counts: UInt32[np.ndarray, "f v 2 bins"],
    rows: Int64[np.ndarray, " b"],
    more: UInt32[np.ndarray, "b v 2 bins"],
    down: Int16[np.ndarray, " b"],
) -> None:
    """Count more of some latents, some bins further down; what falls out at the bottom stays in the lowest one.

    Of many values most bins are empty: what is there is moved one by one.
    """
    cell = np.flatnonzero(more != 0)
    group, place = np.divmod(cell, BINS)
    size = 2 * max(more.shape[1], 1)
    nth, group = np.divmod(group, size)
    place = np.maximum(place - down[nth], 0)
    np.add.at(counts.reshape(-1), (rows[nth] * size + group) * BINS + place, more.reshape(-1)[cell])
