"""A search: what it searches on what, and the artefact that it makes. See `linrep.artefact`.

tunes/<name>-<digest>/
  saes/, trials/, waiting/         candidates, see `linrep.sae.trials`
  commits/<unit>.json                written last: the search is done as far as its budget lets it
  trials.parquet, front.parquet      all candidates, and the fronts, see `schemas.tuning`
  recommended.yaml                   the recipe that trains the recommended SAE in full
  recommendation.json                the recommended SAE of each layer
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from linrep import artefact
from linrep.artefact import Artefact
from linrep.errors import RecipeError, StoreError
from linrep.kind import Kind
from linrep.places import Place
from linrep.sae.artefact import check_layers
from linrep.sae.config import SaeDesign
from linrep.sae.halving import rungs
from linrep.sae.layer import LayerJob
from linrep.sae.pack import Pack, Trial, choice
from linrep.sae.propose import Proposer, proposer, sparsity_range, whole
from linrep.sae.search import Candidate, Chosen, Dimension, Halving, TuneConfig, Values, candidate
from linrep.sae.study import SaeConfig
from linrep.sae.trials import read_trials
from linrep.store.layout import MODALITIES, Modality
from linrep.store.mixture import Source, find_sources, proportion
from linrep.store.read import Store
from linrep.vlm.sites import transformer_lens_name
from schemas.tuning import FRONT, TRIALS, VERSION

REPORT = "recommendation.json"
"""What is recommended, by layer."""


@dataclass(frozen=True)
class TuneAbout:
    """What is searched.

    Attributes:
        store: Where the activations lay: their path in the workspace, or the address of what lies elsewhere.
        layers: Layers.
        sae: The recipe's section `sae`, for what does not vary.
        full_rows: Rows of a candidate that is trained to its end.
    """

    store: str
    layers: list[int]
    sae: dict[str, Any]
    full_rows: int


TUNES = Kind(
    "tune", "tunes", "search", VERSION, TuneAbout, {}, whole={"trials": TRIALS, "front": FRONT}, job="tune_sae", single=True,
    grows=True,
)  # fmt: skip
Tune = Artefact[TuneAbout]


@dataclass(frozen=True)
class TunePlan:
    """A search before it runs.

    Attributes:
        artefact: What is made.
        store: The activations.
        tune: The recipe's section.
        sae: The section `sae`, for what does not vary.
        layers: Layers.
        proposer: Gives the candidates.
        train: Training rows by layer.
        test: Held-out rows by layer.
    """

    artefact: Tune
    store: Store
    tune: TuneConfig
    sae: SaeConfig
    layers: tuple[int, ...]
    proposer: Proposer = field(repr=False)
    train: Mapping[int, dict[Modality, Source]] = field(repr=False)
    test: Mapping[int, dict[Modality, Source]] = field(repr=False)

    @property
    def place(self) -> Place:
        """The artefact."""
        return self.artefact.place

    @property
    def within(self) -> str:
        """What the candidates of a bracket have in common."""
        return self.tune.stop.within if isinstance(self.tune.stop, Halving) else "sparsity"

    @property
    def full_rows(self) -> int:
        """Rows of a candidate that is trained to its end."""
        return full_rows(self.tune, self.sae)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those that every layer has held-out rows of."""
        return _common(self.test)

    def n_affordable(self, spent: int) -> int | None:
        """Candidates that can be trained to their end with what is left of the budget; None: as many as there are."""
        return None if self.tune.budget is None else max(0, self.tune.budget - spent) // self.full_rows

    def pack(self, number: int, members: Sequence[Candidate], begin: int = 0) -> Pack:
        """Everything that a worker must know to train some candidates of one layer and mixture, from a rung they have come to."""
        first = members[0]
        config = first.config(self.sae, self.tune.rows)
        sources, where = self.train[first.layer], f"layer {first.layer} of {self.store.place}"
        parts = proportion(sources, config.batch, first.text_share, config.data.normalise == "modality", where)
        job = LayerJob(self.place, first.layer, config, sources, parts, _about(self.store, first.layer))
        # All of a layer are compared on the same rows, whatever they are trained on.
        test = self.test[first.layer]
        return Pack(number, tuple(members), job, test, self.tune.held_out, rungs(self.tune.stop, config.steps), begin)


def plan_tune(store: Store, name: str, tune: TuneConfig, sae: SaeConfig, workspace: Place) -> TunePlan:
    """Work out what is searched, and refuse what cannot be. Opens the store's footers; starts no cluster.

    Raises:
        RecipeError: The space holds something impossible; the message names it.
        StoreError: The store is not complete, or lacks rows.
    """
    if not store.complete or store.manifest.status != "complete":
        raise StoreError(f"the harvest {store.place} is not complete: run jobs/harvest.py with the same recipe first")
    there = store.manifest.layers
    layers = tune.space.layers or (there[len(there) // 2],)
    try:
        check_layers(store, sae.model_copy(update={"layers": layers}))
    except RecipeError as error:
        raise RecipeError(str(error).replace("sae.layers", "tune.space.layers")) from None
    check_space(tune, sae, store.manifest.width)
    train = {layer: find_sources(store, layer, "train", sae.data.special, sae.data.high_norm) for layer in layers}
    test = {layer: find_sources(store, layer, "val") for layer in layers}
    found = proposer(tune, sae, layers, 2 * len(_common(test)))
    plain = {key: value for key, value in sae.decisive().items() if key not in ("layers", "grid", "rows", "workers")}
    planned = artefact.plan(
        TUNES,
        workspace,
        name,
        # Who shares a pack changes nothing, and a larger budget goes on with the same search.
        decisive=[tune.model_dump(mode="json", exclude={"pack", "budget"}), plain, list(layers)],
        parents={"harvest": store.manifest.digest},
        config=tune.model_dump(mode="json"),
        units=[unit_of(tune.budget)],
        about=TuneAbout(store.place.within(workspace), list(layers), sae.model_dump(mode="json"), full_rows(tune, sae)),
    )
    plan = TunePlan(planned, store, tune, sae, tuple(layers), found, train, test)
    for layer in layers:
        for share in _ends(tune.space.text_share) if tune.space.text_share else [sae.data.text_share]:
            one = candidate(sae, layer, sae.design.activation.kind, 1, expansion=1, learning_rate=1e-3, text_share=share)
            asked = plan.pack(0, [one]).job.parts
            for modality, n in (("image", asked.n_image), ("text", asked.n_text)):
                if n and modality not in test[layer]:
                    raise StoreError(f"layer {layer} of {store.place} holds no {modality} rows of the val split to compare on")
    if plan.n_affordable(0) == 0:
        raise RecipeError(
            f"tune.budget ({tune.budget:,} rows) does not train a single candidate to its end: raise it to {plan.full_rows:,}, "
            f"or lower tune.rows"
        )
    return plan


def unit_of(budget: int | None) -> str:
    """The search up to a budget of rows; a search grows by one where its budget is changed."""
    return "all" if budget is None else f"budget-{budget}"


def full_rows(tune: TuneConfig, sae: SaeConfig) -> int:
    """Rows of a candidate that is trained to its end: whole batches."""
    return max(1, tune.rows // sae.batch) * sae.batch


def _common(test: Mapping[int, Mapping[Modality, Source]]) -> tuple[Modality, ...]:
    return tuple(m for m in MODALITIES if all(m in sources for sources in test.values()))


def check_space(tune: TuneConfig, sae: SaeConfig, width: int) -> None:
    """Make sure that every combination of the space is an SAE.

    Raises:
        RecipeError: One is not.
    """
    for i, architecture in enumerate(tune.space.architectures):
        sparsity = sparsity_range(architecture)
        # What is drawn is rounded; what is listed is meant.
        drawn = isinstance(architecture, Chosen) and not isinstance(sparsity, Values)
        levels = [float(whole(level)) for level in _ends(sparsity)] if drawn else _ends(sparsity)
        for expansion in _ends(tune.space.expansion):
            for level in levels:
                try:
                    values = {"expansion": expansion, "learning_rate": max(_ends(tune.space.learning_rate)), "text_share": None}
                    made = candidate(sae, 0, architecture.kind, level, **values).design
                    candidate(
                        sae, 0, architecture.kind, level, **{**values, "learning_rate": min(_ends(tune.space.learning_rate))}
                    )
                except ValidationError as error:
                    what = error.errors()[0]
                    where, said = ".".join(str(part) for part in what["loc"]), what["msg"].lower()
                    raise RecipeError(
                        f"tune.space: no SAE of {architecture.kind} has sparsity {level:g} and expansion {expansion:g}: "
                        f"{where}: {said}, got {what.get('input')!r}"
                    ) from None
                _check_active(i, architecture, level, made, width)
    for share in _ends(tune.space.text_share) if tune.space.text_share else []:
        if not 0 <= share <= 1:
            raise RecipeError(f"tune.space.text_share must lie between 0 and 1, got {share:g}")
    if tune.rows < sae.batch:
        raise RecipeError(f"tune.rows ({tune.rows:,}) is less than one batch of sae.batch ({sae.batch:,})")


def _check_active(i: int, architecture: Any, level: float, made: SaeDesign, width: int) -> None:
    most = made.n_latents(width)
    if architecture.kind not in ("relu", "gated") and level > most:
        name = "k" if isinstance(architecture, Chosen) else "target_l0"
        raise RecipeError(
            f"tune.space.architectures.{i}: {name} {level:g} of {architecture.kind} is above the width that expansion "
            f"{made.expansion:g} of {width} dimensions gives, {most} latents: lower {name} or raise expansion"
        )


def _ends(dimension: Dimension) -> list[float]:
    return list(dimension.values) if isinstance(dimension, Values) else [dimension.low, dimension.high]


def largest_cost(plan: TunePlan) -> int | None:
    """Rows of a search that trains all candidates that its budget lets it begin to their end; None where they are not known."""
    if plan.proposer.rounds() > 1:
        return None
    return len(plan.proposer.round(0, {})[: plan.n_affordable(0)]) * plan.full_rows


def objectives(trial: Trial, modalities: Sequence[Modality]) -> tuple[float, ...] | None:
    """What Optuna gets: FVU and L0 of each modality; None of a candidate that has failed."""
    if trial.status == "failed":
        return None
    return tuple(value for m in modalities for value in (choice(trial.last, f"_{m}"), trial.last[f"l0_{m}"]))


def recommended(plan: TunePlan, name: str) -> SaeConfig:
    """The section `sae` that trains a candidate in full: as many rows as the recipe's own section says."""
    number, one = 0, None
    results = {trial.name: objectives(trial, plan.modalities) for trial in read_trials(plan.place).values()}
    while one is None and number < plan.proposer.rounds():
        one = next((c for c in plan.proposer.round(number, results) if c.name == name), None)
        number += 1
    if one is None:
        raise StoreError(f"{plan.place} has no candidate {name}")
    return one.config(plan.sae, plan.sae.rows)


def _about(store: Store, layer: int) -> dict[str, Any]:
    model = store.manifest.model
    where = {"hook_name": transformer_lens_name(layer), "layer": layer, "harvest": store.manifest.digest}
    return {"model_name": model.get("path"), "model_digest": model.get("digest"), **where}
