"""Directions on trial in the model of a recipe: added at its image tokens, its answers read by the recipe's judge."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.cluster.inputs import HarvestInput
from linrep.contents.sources import located
from linrep.errors import RecipeError
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.sae.panel.causal import Cases
from linrep.sae.panel.judge import Trial
from linrep.steer.artefact import STEERING
from linrep.steer.chunk import fetch
from linrep.steer.config import Dose, ImageTokens, SteerConfig
from linrep.steer.edits import Add, Edit
from linrep.steer.effects import WHO, frame_of, judge_answers, measured
from linrep.steer.judges.choose import make_judge
from linrep.steer.plan import choose_pairs, held_out, item_of
from linrep.steer.sinks import norm_limits
from linrep.steer.steerer import Steerer
from linrep.steer.vectors import NoDirection
from linrep.store.tables import table_of
from linrep.vlm.load import load
from linrep.vlm.precision import number_format


@dataclass(frozen=True)
class GivenDirections:
    """Edits that add directions that are given, by kind and pair."""

    directions: Mapping[tuple[str, str, str], Float[Tensor, " d"]]

    def edit(self, name: str, kind: str | None, strength: float | None, site: str, layer: int, source: str, target: str) -> Edit:
        """See `linrep.steer.edits.EditMaker`."""
        assert kind is not None
        assert strength is not None
        return Add(self.directions[kind, source, target], strength, relative=False)

    def given(self, kind: str, layer: int, source: str, target: str, sample: str) -> Edit:
        """Nothing: no stream of another run is at hand.

        Raises:
            NoDirection: Always.
        """
        raise NoDirection(f"no stream of another run of {kind} at hand")


@dataclass(frozen=True)
class Plan:
    """Which images are led from which class to which.

    Attributes:
        pairs: Classes to leave and to reach.
        images: Test images of each source.
        strength: In units of the difference of class means.
    """

    pairs: tuple[tuple[str, str], ...]
    images: int
    strength: float


def plan_pairs(recipe: Recipe, harvest: HarvestInput, names: Sequence[str], pairs: int, images: int, strength: float) -> Plan:
    """Pairs as a steering job draws them: every class is once a source and once a target before any is again."""
    there, _, _ = held_out(harvest.store)
    sources = sum(name in there for name in names)
    most = min(pairs, sources * (len(names) - 1))
    config = recipe.steer.model_copy(update={"pairs": most})
    return Plan(choose_pairs(config, names, there), images, strength)


def make_trial(
    recipe: Recipe, workspace: Place, harvest: HarvestInput, plan: Plan, layer: int, say: Callable[[str], None]
) -> Trial:
    """What adds directions to the recipe's model at image tokens of a layer and reads its answers.

    A case succeeds where the answer about the class names the target, and every other attribute is answered as without the edit;
    of images whose class is named rightly without one. Where the recipe asks for no other attribute the class alone counts.

    Raises:
        RecipeError: The recipe's judge does not read answers, or the model names no image's class.
    """
    judge_config = recipe.steer.judge
    if judge_config.kind not in ("exact", "words"):
        raise RecipeError(f"steer.judge: the panel's answers are read by exact or words, not by {judge_config.kind}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vlm = load(located(recipe.model), None, device, number_format(recipe.pool.precision, device))
    judge = make_judge(judge_config, workspace / "replies", ())
    images, _, _ = held_out(harvest.store)
    config = harvest.plan.job.config
    corpora, chunks = harvest.plan.job.corpora, harvest.plan.chunks
    limits = {} if recipe.steer.edit_high_norm else norm_limits(harvest.store, [layer])

    def run(directions: Float[Tensor, "k p d"]) -> tuple[Cases, Float[np.ndarray, "k n"]]:
        kinds = [f"kind{i}" for i in range(len(directions))]
        own = {(kind, *pair): directions[i, p] for i, kind in enumerate(kinds) for p, pair in enumerate(plan.pairs)}
        steer = SteerConfig(
            pairs=plan.pairs, images=plan.images, sites=(ImageTokens(),), layers=(layer,), directions=tuple(kinds), edits=(),
            dose=Dose(strengths=(plan.strength,), relative=False), ask=recipe.steer.ask, judge=judge_config,
            edit_high_norm=recipe.steer.edit_high_norm,
        )  # fmt: skip
        steerer = Steerer(
            vlm,
            steer,
            [layer],
            GivenDirections(own),
            recipe.pool.tokens_per_batch,
            config.image_size,
            config.max_text_tokens,
            limits,
        )
        tables: dict[str, list[dict]] = {"cells": [], "answers": []}
        begun = time.monotonic()
        for number, (source, target) in enumerate(plan.pairs):
            samples = [fetch(item_of(held, chunks), corpora) for held in images[source][: plan.images]]
            produced = steerer.answers(samples, source, target)
            for name, rows in tables.items():
                rows += produced.tables.get(name, [])
            if produced.failed:
                print(f"panel: {len(produced.failed)} runs failed, as {produced.failed[0]}", file=sys.stderr, flush=True)
            gone = time.monotonic() - begun
            say(f"{number + 1} of {len(plan.pairs)} pairs, {len(tables['cells']):,} edited runs, {gone:.0f} s")
        cells, answers = (table_of(tables[name], STEERING.tables[name]) for name in ("cells", "answers"))
        verdicts = frame_of(judge_answers(answers, cells, steer, judge))
        return outcomes(measured(frame_of(cells), verdicts, frame_of(STEERING.tables["damage"].empty_table())), kinds)

    return run


def outcomes(rows: pl.DataFrame, kinds: Sequence[str]) -> tuple[Cases, Float[np.ndarray, "k n"]]:
    """The cases that every kind has an outcome of, and whether each succeeds.

    Args:
        rows: Of `linrep.steer.effects.measured`.
        kinds: Directions in their order.

    Raises:
        RecipeError: There is no such case.
    """
    measure = "success" if "success" in rows["measure"] else "turned"
    own = rows.filter((pl.col("measure") == measure) & (pl.col("edit") == "add") & pl.col("value").is_not_null())
    wide = own.pivot(on="direction", index=WHO, values="value").drop_nulls() if len(own) else own
    if not len(wide) or not set(kinds) <= set(wide.columns):
        raise RecipeError("the model names no image's class rightly without an edit: there is no answer that could be turned")
    wide = wide.sort(WHO)
    names = sorted({*wide["source"], *wide["target"]})
    source, target = (np.array([names.index(name) for name in wide[column]]) for column in ("source", "target"))
    image = np.unique(wide["sample_id"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    return Cases(source, target, image), wide.select(kinds).to_numpy().T.astype(float)
