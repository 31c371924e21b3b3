"""All measures of SAEs and their controls on the same images, and what they come to beside each other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.sae.panel.causal import LATENTS, Cases, latent_direction, latent_means
from linrep.sae.panel.data import PanelData
from linrep.sae.panel.detection import detection, halves
from linrep.sae.panel.explained import explained
from linrep.sae.panel.intervals import Measured, Resampled, Successes
from linrep.sae.panel.variance import GRID, area, squared_errors
from linrep.sae.panel.vectors import class_differences, class_means, covariance_vectors, needed, shuffled_differences
from linrep.sae.sae import Sae
from linrep.stats.bootstrap import draws
from linrep.stats.interval import Interval

RESAMPLES = 500
CLASS_MEAN = "class mean"
"""The difference of class means itself, beside what SAEs make of it."""

Trial = Callable[[Float[Tensor, "k p d"]], tuple[Cases, Float[np.ndarray, "k n"]]]
"""What adds directions to a model: k kinds for p pairs -> the cases, and for each kind whether each succeeds."""


def curve_name(t: float) -> str:
    """The measure at a point of the curve.

    >>> curve_name(0.7)
    'interpretable_0.70'
    """
    return f"interpretable_{t:.2f}"


@dataclass(frozen=True)
class JudgedSae:
    """An SAE of one seed.

    Attributes:
        measures: By name, first on all images (or vectors) and then on each draw of them.
        means: Mean of each latent over the single tokens of each class.
        decoder: What a unit of each latent writes.
    """

    measures: dict[str, Float[np.ndarray, " r"]]
    means: Float[Tensor, "c f"]
    decoder: Float[Tensor, "f d"]


@dataclass(frozen=True)
class Bench:
    """What every SAE is held against.

    Attributes:
        data: The tokens and the values.
        of_class: Class of each training image, -1 where it has none.
        seed: Of halves, draws and vectors.
        resamples: Draws of images.
    """

    data: PanelData
    of_class: Int64[np.ndarray, " s"]
    seed: int = 0
    resamples: int = RESAMPLES

    def judge(self, sae: Sae) -> JudgedSae:
        """Every measure that needs no model."""
        n = self.data.held.n_images
        weights = self._weights(n, 5)
        found = explained(sae, sae.decoder, self.data)
        errors = squared_errors(found, self.data, halves(n, self.seed))
        whole, curve = errors.explained(weights)
        seen = detection(found, self.data, weights)
        measures = {"explained_variance": whole, "interpretable": area(curve)}
        measures |= {curve_name(t): curve[:, i] for i, t in enumerate(GRID)}
        measures |= {"agreement": seen.agreement, "retrieval": seen.retrieval, "one_to_one": seen.one_to_one}
        for i, (name, vectors) in enumerate(self._vectors().items()):
            count = needed(found.decoder, vectors)
            own = self._weights(len(count), 7 + i)
            measures[f"latents_needed_{name}"] = own @ count / own.sum(1)
        means = latent_means(found.train_codes, self.data.train, self.of_class, sae.n_latents)
        return JudgedSae(measures, means, found.decoder)

    def differences(self) -> Float[Tensor, "c c d"]:
        """Differences of class means over single training tokens: from the first class to the second."""
        means = class_means(self.data.train.x.double(), self.data.train, self.of_class)
        return means[None] - means[:, None]

    def _weights(self, n: int, use: int) -> Float[np.ndarray, "r n"]:
        """All of n once, then how often each is drawn; the same for every SAE."""
        return np.concatenate([np.ones((1, n)), *draws(n, self.resamples, self.seed * 1000 + use)])

    def _vectors(self) -> dict[str, Float[Tensor, "v d"]]:
        rows = self.data.train
        return {
            "class": class_differences(rows, self.of_class),
            "shuffled": shuffled_differences(rows, self.of_class, self.seed),
            "covariance": covariance_vectors(rows, self.seed),
        }


def judge_all(bench: Bench, saes: Mapping[str, Sequence[Sae]]) -> Iterator[tuple[str, tuple[JudgedSae, ...]]]:
    """Every SAE, each with its seeds, one after the other."""
    for name, seeds in saes.items():
        yield name, tuple(bench.judge(sae) for sae in seeds)


def resampled(judged: Mapping[str, Sequence[JudgedSae]]) -> dict[str, dict[str, Measured]]:
    """Measures by name, and by SAE what its seeds gave."""
    found: dict[str, dict[str, Measured]] = {}
    for name, seeds in judged.items():
        for measure in seeds[0].measures:
            values = np.stack([seed.measures[measure] for seed in seeds])
            found.setdefault(measure, {})[name] = Resampled(values[:, 0], values[:, 1:])
    return found


def successes(
    bench: Bench, judged: Mapping[str, Sequence[JudgedSae]], pairs: Sequence[tuple[int, int]], trial: Trial
) -> dict[str, dict[str, Measured]]:
    """Success with few latents, by measure and SAE: directions of one norm, that of the difference of class means, on trial.

    Args:
        bench: What the SAEs were judged on.
        judged: The SAEs.
        pairs: Numbers of the classes to leave and to reach.
        trial: Adds the directions to a model, all kinds in one go.
    """
    apart = bench.differences()
    wanted = torch.stack([apart[pair].float() for pair in pairs])
    kinds, made = [(CLASS_MEAN, 0, 0)], [wanted]
    for name, seeds in judged.items():
        for seed, one in enumerate(seeds):
            for m in LATENTS:
                few = torch.stack([latent_direction(one.means, one.decoder, *pair, m) for pair in pairs])
                kinds.append((name, seed, m))
                made.append(of_norm(few, wanted.norm(dim=1)))
    cases, outcomes = trial(torch.stack(made))
    found: dict[str, dict[str, Measured]] = {}
    for m in LATENTS:
        own = found.setdefault(f"success_{m}", {})
        own[CLASS_MEAN] = Successes(cases, outcomes[:1])
        for name in judged:
            rows = [i for i, kind in enumerate(kinds) if kind[0] == name and kind[2] == m]
            own[name] = Successes(cases, outcomes[rows])
    return found


def of_norm(v: Float[Tensor, "p d"], norms: Float[Tensor, " p"]) -> Float[Tensor, "p d"]:
    """Vectors brought to some norms; zero stays zero, an edit that changes nothing."""
    return torch.nn.functional.normalize(v, dim=1) * norms[:, None]


@dataclass(frozen=True)
class PanelRow:
    """A measure of an SAE, with 95% intervals.

    Attributes:
        measure: Its name.
        sae: The SAE, or the control.
        found: The mean over seeds.
        seeds: How many.
        lowest: The lowest seed.
        highest: The highest.
        apart: The SAE that is judged minus this one, on the same images; None of itself.
    """

    measure: str
    sae: str
    found: Interval
    seeds: int
    lowest: float
    highest: float
    apart: Interval | None


def rows_of(measures: Mapping[str, Mapping[str, Measured]], judged: str) -> list[PanelRow]:
    """The table.

    Args:
        measures: By measure and SAE.
        judged: The SAE that is judged; the others are its controls.
    """
    rows = []
    for measure, by_sae in measures.items():
        own = by_sae[judged]
        for name, other in by_sae.items():
            each = other.values if isinstance(other, Resampled) else other.values.mean(1)
            apart = None if name == judged else own.less(other)  # pyright: ignore[reportArgumentType]
            rows.append(PanelRow(measure, name, other.interval(), len(each), float(each.min()), float(each.max()), apart))
    return rows


def separates(rows: Sequence[PanelRow], measure: str, fewer: bool = False) -> dict[str, bool]:
    """For each control whether the judged SAE is better by more than the interval of the difference leaves open.

    Args:
        rows: The table.
        measure: Which.
        fewer: Whether less is better.
    """
    return {
        row.sae: row.apart.high < 0 if fewer else row.apart.low > 0
        for row in rows
        if row.measure == measure and row.apart is not None and row.sae != CLASS_MEAN
    }
