"""The date at which an artefact was begun: one law for all stages. A job that is stopped and begun again keeps it."""

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from linrep.cluster.run_features import run_features
from linrep.cluster.run_harvest import run_harvest
from linrep.cluster.run_interpret import InterpretStage, run_interpret
from linrep.cluster.run_probe import run_probe
from linrep.cluster.run_sharing import run_sharing
from linrep.cluster.run_steer import run_steer
from linrep.cluster.run_train_sae import run_train_sae
from linrep.cluster.run_tune_sae import run_tune_sae
from linrep.features.artefact import Features
from linrep.harvest.config import Pool
from linrep.harvest.plan import Plan
from linrep.interpret.artefact import InterpretAbout, plan_interpretations
from linrep.named_sae import NamedSae
from linrep.places import Place, place
from linrep.probe.config import ProbeConfig
from linrep.recipe import Recipe
from linrep.sae.controls import random_sae
from linrep.sae.formats import saelens
from linrep.sae.study import SaeConfig
from linrep.sharing.config import ModelSae
from linrep.store.read import Store
from tests.steering import HARVEST, half_held_out, write_workspace

TOKENS = HARVEST.model_copy(update={"views": ("pooled", "tokens"), "tokens_per_sample": 16})
BEGUN, LATER = datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 2, 2, tzinfo=UTC)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def recipe(random_vlm: Any, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe whose every stage can be planned."""
    folder = tmp_path_factory.mktemp("created")
    corpora = half_held_out(folder / "corpora")
    path = folder / "ws" / "given"
    saelens.write(place(path), random_sae(torch.randn(64, 32), 48, 4))
    recipe = Recipe(name="t", corpora=corpora, model=random_vlm, harvest=TOKENS, pool=Pool(threads=1))
    steer = {"directions": ("class_mean",), "probes": str(folder / "ws/directions.safetensors"), "images": 1}
    sharing = {"saes": (ModelSae(path=str(path), layer=2),), "groups": 4, "min_per_class": 1}
    sections = {
        "probe": ProbeConfig(min_per_class=1, softmax=None),
        "steer": recipe.steer.model_copy(update={**steer, "pairs": (("tench", "church"),), "insist": True}),
        "sae": SaeConfig.model_validate({"layers": [2], "rows": 64, "batch": 32, "design": {"expansion": 2}}),
        "features": recipe.features.model_copy(update={"saes": (NamedSae(path=str(path), layer=2),)}),
        "sharing": recipe.sharing.model_copy(update=sharing),
    }
    write_workspace(folder / "ws", "t", corpora, random_vlm, TOKENS)
    return recipe.model_copy(update=sections)


@pytest.fixture(scope="module")
def workspace(recipe: Recipe) -> Place:
    return place(Path(str(recipe.steer.probes)).parent)


def harvest_anew(recipe: Recipe, workspace: Place) -> None:
    run_harvest(recipe.model_copy(update={"harvest": TOKENS.model_copy(update={"seed": 9})}), workspace)


def evaluate_another(recipe: Recipe, workspace: Place) -> None:
    run_train_sae(recipe, workspace, evaluate=str(workspace / "given"))


def interpret(recipe: Recipe, workspace: Place) -> None:
    """The plan of an interpretation needs finished features: here it is only what the job's beginning looks at."""

    def plan(*_: object) -> InterpretStage:
        about = InterpretAbout("", {"2/sae": [1]}, {}, {})
        planned = plan_interpretations(workspace, "t", recipe.interpret, {}, about)
        return InterpretStage(planned, MagicMock(spec=Features), MagicMock(spec=Store), None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("linrep.cluster.run_interpret.plan_interpret", plan)
        run_interpret(recipe, workspace)


STAGES: dict[str, tuple[Callable[[Recipe, Place], object], str, str]] = {
    "harvest": (harvest_anew, "stage._run", "harvests/*/manifest.json"),
    "probe": (run_probe, "stage._run", "probes/*/manifest.json"),
    "steer": (run_steer, "stage._run", "steering/*/manifest.json"),
    "train_sae": (run_train_sae, "stage._run", "saes/*/manifest.json"),
    "evaluate": (evaluate_another, "stage._run", "evaluations/*/manifest.json"),
    "tune": (run_tune_sae, "stage._run", "tunes/*/manifest.json"),
    "features": (run_features, "stage._run", "features/*/manifest.json"),
    "sharing": (run_sharing, "stage._run", "sharing/*/manifest.json"),
    "interpret": (interpret, "stage._run", "interpretations/*/manifest.json"),
}
"""How a stage is begun, what works through it after that, and where it says since when."""


def dates(values: tuple[Any, ...]) -> Iterator[str]:
    """When what is worked through says that it was begun, in a plan or in a manifest; the harvest behind it has its own date."""
    for value in values:
        if isinstance(value, Store | Plan):
            continue
        own = getattr(getattr(value, "artefact", value), "manifest", value)
        created = own.get("created") if isinstance(own, dict) else getattr(own, "created", None)
        if isinstance(created, str):
            yield created


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_is_begun_again_keeps_the_date_of_its_beginning(
    stage: str, recipe: Recipe, workspace: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, work, pattern = STAGES[stage]
    given: list[str] = []

    def stop(*values: Any) -> None:
        given.extend(dates(values))
        raise Stopped

    monkeypatch.setattr(f"linrep.cluster.{work}", stop)
    monkeypatch.setattr("linrep.tracking.run", lambda *_: contextlib.nullcontext(MagicMock()))
    there = set(Path(str(workspace)).glob(pattern))
    for time in (BEGUN, LATER):
        monkeypatch.setattr("linrep.store.manifest.datetime", SimpleNamespace(now=lambda _, time=time: time))
        given.clear()
        with pytest.raises(Stopped):
            begin(recipe, workspace)
        (file,) = set(Path(str(workspace)).glob(pattern)) - there
        assert json.loads(file.read_bytes())["created"] == BEGUN.isoformat()
        if stage != "harvest":  # which reads the manifest on disk once more when it ends, see `complete_manifest`
            assert given
            assert set(given) == {BEGUN.isoformat()}
