"""Candidates of a search: a grid at once, random draws at once, Optuna's in rounds that know the results before them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import product
from typing import Any, Protocol, assert_never, runtime_checkable

import numpy as np

from linrep.errors import RecipeError
from linrep.sae.search import (
    Architecture,
    Candidate,
    Chosen,
    Dimension,
    Grid,
    Optuna,
    Penalised,
    Random,
    Range,
    Space,
    Thresholds,
    TuneConfig,
    Values,
    candidate,
)
from linrep.sae.study import SaeConfig
from linrep.shell import python_command

MOST_DRAWS = 1000
"""Draws in a row that only repeat what was drawn before; a small space has no more to give."""

Results = Mapping[str, Sequence[float] | None]
"""By name of candidate: what is to be small (FVU and L0 of each modality); None for one that failed."""


@runtime_checkable
class Proposer(Protocol):
    """Gives rounds of candidates; the same ones for the same results, so that a search can be continued."""

    def rounds(self) -> int:
        """How many there are."""
        ...

    def round(self, number: int, results: Results) -> list[Candidate]:
        """The candidates of a round, counted from 0; all before it are done, or failed."""
        ...


def proposer(config: TuneConfig, sae: SaeConfig, layers: Sequence[int], n_objectives: int = 2) -> Proposer:
    """The one that the recipe asks for.

    Args:
        config: The recipe's section.
        sae: For what does not vary.
        layers: Layers.
        n_objectives: How many values the result of a candidate has: two for each modality that it is compared on.

    Raises:
        RecipeError: The space and the way to search it do not fit, or a package is missing.
    """
    match config.search:
        case Grid():
            return ListProposer(_grid(config.space, sae, layers))
        case Random(trials=trials, seed=seed):
            return ListProposer(_random(config.space, sae, layers, trials, seed))
        case Optuna():
            return OptunaProposer(config.space, sae, layers, config.search, n_objectives)
        case _:
            assert_never(config.search)


class ListProposer:
    """All candidates in one round."""

    def __init__(self, candidates: list[Candidate]) -> None:
        self.candidates = candidates

    def rounds(self) -> int:
        """One."""
        return 1

    def round(self, number: int, results: Results) -> list[Candidate]:
        """All."""
        return self.candidates


def sparsity_range(architecture: Architecture) -> Dimension:
    """The dimension of an architecture's own measure of sparsity."""
    match architecture:
        case Chosen(k=dimension) | Thresholds(target_l0=dimension) | Penalised(l1=dimension):
            return dimension
        case _:
            assert_never(architecture)


def dimensions(space: Space) -> dict[str, Dimension]:
    """Every dimension by the name of its field."""
    found = {f"architectures.{i}": sparsity_range(a) for i, a in enumerate(space.architectures)}
    found |= {"expansion": space.expansion, "learning_rate": space.learning_rate}
    return found if space.text_share is None else {**found, "text_share": space.text_share}


def _grid(space: Space, sae: SaeConfig, layers: Sequence[int]) -> list[Candidate]:
    for name, dimension in dimensions(space).items():
        if not isinstance(dimension, Values):
            raise RecipeError(
                f"tune.space.{name} is a range, and a grid needs values: list them, or choose tune.search.kind random"
            )

    def listed(dimension: Dimension | None, otherwise: float | None = None) -> tuple[float | None, ...]:
        return dimension.values if isinstance(dimension, Values) else (otherwise,)

    found: dict[str, Candidate] = {}
    for layer, architecture in product(layers, space.architectures):
        for sparsity, expansion, rate, share in product(
            listed(sparsity_range(architecture)), listed(space.expansion), listed(space.learning_rate),
            listed(space.text_share, sae.data.text_share),
        ):  # fmt: skip
            one = candidate(
                sae, layer, architecture.kind, sparsity or 0.0, expansion=expansion, learning_rate=rate, text_share=share
            )
            found[one.name] = one
    return list(found.values())


def _random(space: Space, sae: SaeConfig, layers: Sequence[int], trials: int, seed: int) -> list[Candidate]:
    draws, found, repeated = np.random.default_rng(seed), {}, 0

    def draw(dimension: Dimension) -> float:
        if isinstance(dimension, Values):
            return dimension.values[int(draws.integers(len(dimension.values)))]
        if dimension.log:
            return float(np.exp(draws.uniform(np.log(dimension.low), np.log(dimension.high))))
        return float(draws.uniform(dimension.low, dimension.high))

    while len(found) < trials and repeated < MOST_DRAWS:
        layer = layers[int(draws.integers(len(layers)))]
        architecture = space.architectures[int(draws.integers(len(space.architectures)))]
        one = _made(space, sae, layer, architecture, draw(sparsity_range(architecture)), {
            "expansion": draw(space.expansion),
            "learning_rate": draw(space.learning_rate),
            "text_share": sae.data.text_share if space.text_share is None else draw(space.text_share),
        })  # fmt: skip
        repeated = repeated + 1 if one.name in found else 0
        found.setdefault(one.name, one)
    return list(found.values())


def _made(
    space: Space, sae: SaeConfig, layer: int, architecture: Architecture, sparsity: float, rest: dict[str, Any]
) -> Candidate:
    """A drawn candidate; values are rounded to what its name shows, so that the name is the truth."""
    sparsity = whole(sparsity) if isinstance(architecture, Chosen) else float(f"{sparsity:.3g}")
    rounded = {name: None if value is None else float(f"{value:.3g}") for name, value in rest.items()}
    made = candidate(sae, layer, architecture.kind, sparsity, **rounded)
    drawn = {"sparsity": sparsity_range(architecture), "width": space.expansion}
    return replace(made, in_octaves=tuple(name for name, dimension in drawn.items() if isinstance(dimension, Range)))


def whole(k: float) -> int:
    """A drawn number of active latents: rounded, at least one."""
    return max(1, round(k))


class OptunaProposer:
    """Optuna's multi-objective TPE, asked round by round and given the results.

    All earlier rounds are asked for and reported again before a new one, in a fresh study: so the proposals of a search that was
    killed are those of one that was not, and no database is kept. A candidate that halving stopped is reported with the values
    it had: its FVU could only have become smaller.

    Source: Ozaki et al., "Multiobjective tree-structured Parzen estimator", 2022.
    """

    def __init__(self, space: Space, sae: SaeConfig, layers: Sequence[int], search: Optuna, n_objectives: int) -> None:
        try:
            self._optuna = import_module("optuna")
        except ImportError:
            install = python_command("-m", "pip", "install", "optuna>=4.0")
            raise RecipeError(f"tune.search.kind optuna needs the package optuna: {install}, or choose grid or random") from None
        self._space, self._sae, self._layers, self._search = space, sae, tuple(layers), search
        self._n_objectives = n_objectives

    def rounds(self) -> int:
        """As many as the trials take."""
        return -(-self._search.trials // self._search.per_round)

    def round(self, number: int, results: Results) -> list[Candidate]:
        """The candidates of a round; those that an earlier one had already are left out."""
        optuna = self._optuna
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(seed=self._search.seed, n_startup_trials=max(4, self._search.per_round))
        study = optuna.create_study(directions=["minimize"] * self._n_objectives, sampler=sampler)
        known: dict[str, Candidate] = {}
        for past in range(number + 1):
            left = self._search.trials - past * self._search.per_round
            asked = [study.ask() for _ in range(min(self._search.per_round, left))]
            made = [(trial, self._draw(trial)) for trial in asked]
            if past == number:
                return list({one.name: one for _, one in made if one.name not in known}.values())
            for trial, one in made:
                known[one.name] = one
                values = results.get(one.name)
                if values is None:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                else:
                    study.tell(trial, list(values))
        return []

    def _draw(self, trial: Any) -> Candidate:
        def draw(name: str, dimension: Dimension) -> float:
            if isinstance(dimension, Values):
                return trial.suggest_categorical(name, list(dimension.values))
            return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)

        space = self._space
        layer = trial.suggest_categorical("layer", list(self._layers))
        number = trial.suggest_categorical("architecture", list(range(len(space.architectures))))
        architecture = space.architectures[number]
        return _made(space, self._sae, layer, architecture, draw(f"sparsity.{number}", sparsity_range(architecture)), {
            "expansion": draw("expansion", space.expansion),
            "learning_rate": draw("learning_rate", space.learning_rate),
            "text_share": self._sae.data.text_share if space.text_share is None else draw("text_share", space.text_share),
        })  # fmt: skip
