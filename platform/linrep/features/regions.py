"""How well the patches where a latent fires overlap those that a category of regions covers: intersection over union.

Category and threshold are chosen on one half of the images, from counts of patches by activation, and scored on the other: the
best of many is good by luck. A second look at the codes, once they are chosen, gives intervals over images and the control: the
same overlap with regions that were dealt from other images, at their places. A latent that fires where something often is, and
not on what is there, overlaps those as much.

Source: Bau et al., "Network Dissection: Quantifying Interpretability of Deep Visual Representations", 2017 (the overlap).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from linrep.features.columns import Columns, Firings
from linrep.features.labels import BINS, Attribute, Histograms, edge
from linrep.features.peaks import Peaks
from linrep.regions.patches import Covering, PatchLabels, Places

KEPT = 5
"""Categories of a latent that are scored: those that it overlaps most on the half that is chosen on."""
FOLDS = 20
"""The interval leaves out one of as many groups of images at a time."""
_PLACES = 2**32
"""More than there are positions."""


@dataclass(frozen=True)
class RegionFacts:
    """What is known of the patches.

    Attributes:
        labels: The categories that cover them.
        enough: Categories that enough images of either half show.
    """

    labels: PatchLabels
    enough: Bool[np.ndarray, " v"]

    @property
    def n(self) -> int:
        """Categories."""
        return len(self.enough)


@dataclass(frozen=True)
class ChosenRegions:
    """For each of f latents the k categories that it overlaps most where they are chosen, the best first.

    Attributes:
        category: Its number, -1 where there is none.
        threshold: The latent fires at and above this activation.
        iou_chosen: Intersection over union there.
        precision: Average precision on the other half.
    """

    category: Int64[np.ndarray, "f k"]
    threshold: Float64[np.ndarray, "f k"]
    iou_chosen: Float64[np.ndarray, "f k"]
    precision: Float64[np.ndarray, "f k"]


class Overlaps:
    """Counts of patches by latent, category, half and activation; the last category is any patch of which something is known.

    Args:
        f: Latents.
        v: Categories.
    """

    def __init__(self, f: int, v: int) -> None:
        self._v = v
        # A patch stands once for each of its categories, as a sample of that category and half.
        self._as_samples = Attribute("region", ("",) * (v + 1), np.arange(2 * (v + 1)) // 2)
        self._half = np.arange(2 * (v + 1)) % 2
        self.counts = Histograms(f, [self._as_samples])

    def add(self, one: Columns, fired: Firings, facts: RegionFacts, half: Int64[np.ndarray, " s"]) -> None:
        """Count the patches of a file.

        Args:
            one: The file.
            fired: Its entries.
            facts: What covers them.
            half: Half of each sample.
        """
        tokens = FileTokens.of(one, facts.labels)
        token, category = tokens.pairs()
        entry, of = tokens.of_entries(fired, token)
        stands = category * 2 + half[tokens.sample[token]]
        found = Peaks(stands[of], fired.latent[entry], fired.value[entry], fired.position[entry])
        self.counts.add(found, stands, [self._as_samples], self._half)

    def merge(self, other: "Overlaps") -> None:
        """Count what another one counted."""
        self.counts.merge(other.counts)

    def choose(self, facts: RegionFacts, k: int = KEPT) -> ChosenRegions:
        """The categories that each latent overlaps most, and from which activation on."""
        f, k = len(self.counts.top), min(k, max(self._v, 1))
        found = ChosenRegions(np.full((f, k), -1), *(np.full((f, k), np.nan) for _ in range(3)))
        sizes = self.counts.samples.astype(np.float64)
        for start in range(0, f, step := max(1, 2**20 // ((self._v + 1) * BINS))):
            rows = np.arange(start, min(start + step, f))
            # From the highest bin down: patches at and above, in the category and in all.
            above = self.counts.counts[rows, :, :, ::-1].cumsum(-1, dtype=np.float64)
            inside, fired = above[:, :-1], above[:, -1:]
            union = fired + sizes[None, :-1, :, None] - inside
            iou = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)[:, :, 0]
            iou[:, ~facts.enough] = 0
            # Of equal ones the lowest threshold: what lies between it and the others fires on nothing.
            place = BINS - 1 - iou[:, :, ::-1].argmax(-1)
            best = np.take_along_axis(iou, place[..., None], -1)[..., 0]
            order = np.argsort(-best, axis=1, kind="stable")[:, :k]
            value, at = (np.take_along_axis(some, order, 1) for some in (best, place))
            has = value > 0
            found.category[rows] = np.where(has, order, -1)
            found.iou_chosen[rows] = np.where(has, value, np.nan)
            lowest = at == BINS - 1
            found.threshold[rows] = np.where(
                has, np.where(lowest, 0.0, edge((self.counts.top[rows][:, None] - at).astype(np.int16))), np.nan
            )
            scored = _precision(inside[:, :, 1], fired[:, :, 1], sizes[:-1, 1], sizes[-1, 1])
            found.precision[rows] = np.where(has, np.take_along_axis(scored, order, 1), np.nan)
        return found


def _precision(
    inside: Float64[np.ndarray, "b v bins"], fired: Float64[np.ndarray, "b 1 bins"], size: Float64[np.ndarray, " v"], n: float
) -> Float64[np.ndarray, "b v"]:
    """Average precision: the mean over a category's patches of the precision at their activation; silent ones come last."""
    recall = np.divide(inside, size[:, None], out=np.zeros_like(inside), where=size[:, None] > 0)
    precision = np.divide(inside, fired, out=np.zeros_like(inside), where=fired > 0)
    steps = np.diff(recall, axis=-1, prepend=0.0)
    found = (steps * precision).sum(-1) + (1 - recall[..., -1]) * (size / max(n, 1.0))
    return np.where(size > 0, found, np.nan)


@dataclass(frozen=True)
class FileTokens:
    """The tokens of a file of image codes, and what covers them.

    Attributes:
        sample: Sample of each token.
        place: Sample within the file and position, as one rising number.
        samples: The file's samples.
        covering: The categories.
        v: How many there are.
    """

    sample: Int64[np.ndarray, " t"]
    place: Int64[np.ndarray, " t"]
    samples: Int64[np.ndarray, " m"]
    covering: Covering
    v: int

    @classmethod
    def of(cls, one: Columns, labels: PatchLabels, shuffled: bool = False) -> "FileTokens":
        """The tokens of a file."""
        held = one.token_rows()
        which = np.repeat(np.arange(len(held.samples)), np.diff(held.ends))
        sample = held.samples[which]
        covering = labels.several(Places(sample, held.tile, held.row, held.col), shuffled)
        return cls(sample, which * _PLACES + held.position, held.samples, covering, len(labels.categories))

    def pairs(self) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
        """Tokens with their categories, by token; each of which something is known also with the number of all."""
        known = self.covering.known
        own = known[self.covering.token]
        every = np.flatnonzero(known)
        token = np.concatenate([self.covering.token[own], every])
        category = np.concatenate([self.covering.category[own], np.full(len(every), self.v)])
        order = np.argsort(token, kind="stable")
        return token[order], category[order]

    def tokens_of(self, fired: Firings) -> Int64[np.ndarray, " s"]:
        """The token of each entry."""
        return np.searchsorted(self.place, np.searchsorted(self.samples, fired.sample) * _PLACES + fired.position)

    def of_entries(self, fired: Firings, token: Int64[np.ndarray, " p"]) -> tuple[np.ndarray, np.ndarray]:
        """Each entry with each pair of its token: numbers of both."""
        at = self.tokens_of(fired)
        left = np.searchsorted(token, at)
        counts = np.searchsorted(token, at, side="right") - left
        entry = np.repeat(np.arange(len(at)), counts)
        return entry, np.arange(len(entry)) - np.repeat(counts.cumsum() - counts, counts) + left[entry]


class Folds:
    """Patches of latents and categories that were chosen, on the half that they were not chosen on, by group of images.

    Args:
        chosen: The categories and thresholds.
        v: Categories.
    """

    def __init__(self, chosen: ChosenRegions, v: int) -> None:
        f, k = chosen.category.shape
        # Own regions first, dealt ones second.
        self.fired, self.inside = (np.zeros((2, f, k, FOLDS), np.int64) for _ in range(2))
        self.size = np.zeros((2, v, FOLDS), np.int64)
        self.patches, self.images = (np.zeros(2, np.int64) for _ in range(2))
        self._chosen = chosen

    def add(self, one: Columns, fired: Firings, facts: RegionFacts, rank: Int64[np.ndarray, " s"]) -> None:
        """Count the patches of a file.

        Args:
            one: The file.
            fired: Its entries.
            facts: What covers them.
            rank: Place of each sample by the hash of its name: odd ones are scored on.
        """
        chosen = self._chosen
        for which, shuffled in enumerate((False, True)):
            tokens = FileTokens.of(one, facts.labels, shuffled)
            own = rank[tokens.sample]
            scored, fold = tokens.covering.known & (own % 2 == 1), own // 2 % FOLDS
            covered = np.zeros((len(tokens.sample), facts.n), bool)
            covered[tokens.covering.token, tokens.covering.category] = True
            self.patches[which] += scored.sum()
            self.images[which] += len(np.unique(tokens.sample[scored]))
            token, category = np.nonzero(covered & scored[:, None])
            np.add.at(self.size[which], (category, fold[token]), 1)
            at = tokens.tokens_of(fired)
            entry = np.flatnonzero(scored[at])
            at, latent, value = at[entry], fired.latent[entry], fired.value[entry]
            for k in range(chosen.category.shape[1]):
                category = chosen.category[latent, k]
                fires = (category >= 0) & (value >= chosen.threshold[latent, k])
                cell = latent[fires] * FOLDS + fold[at[fires]]
                cells = self.fired.shape[1] * FOLDS
                self.fired[which, :, k] += np.bincount(cell, minlength=cells).reshape(-1, FOLDS)
                hit = covered[at[fires], category[fires]]
                self.inside[which, :, k] += np.bincount(cell[hit], minlength=cells).reshape(-1, FOLDS)

    def merge(self, other: "Folds") -> None:
        """Count what another one counted."""
        self.fired += other.fired
        self.inside += other.inside
        self.size += other.size
        self.patches += other.patches
        self.images += other.images

    def rows(self) -> Iterator[tuple[int, int, int, np.ndarray, np.ndarray, float]]:
        """Latent, place among its categories, category, intersections and unions by group, and the overlap with dealt regions."""
        for latent, k in np.argwhere(self._chosen.category >= 0).tolist():
            category = int(self._chosen.category[latent, k])
            inside = self.inside[:, latent, k]
            union = self.fired[:, latent, k] + self.size[:, category] - inside
            dealt = float(inside[1].sum()) / max(float(union[1].sum()), 1.0) if self.size[1, category].any() else float("nan")
            yield latent, k, category, inside[0], union[0], dealt


def overlap_folds(
    columns: Sequence[Columns], run: tuple[int, int], chosen: ChosenRegions, facts: RegionFacts, rank: Int64[np.ndarray, " s"]
) -> Folds:
    """What some files say of latents and categories that were chosen."""
    found = Folds(chosen, facts.n)
    for one in columns:
        if one.shape.modality == "image":
            found.add(one, one.fired(run), facts, rank)
    return found
