"""Every stage that is given an SAE holds what it says of itself against the store: one law, tried over all of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import linrep.cluster.run_sharing
import linrep.store
from linrep.cluster.given_saes import read_sae_for
from linrep.cluster.inputs import harvested
from linrep.cluster.run_evaluate import evaluate_other
from linrep.cluster.run_features import plan_features
from linrep.cluster.run_probe import plan_probe
from linrep.cluster.run_sharing import plan_sharing
from linrep.cluster.run_steer import plan_steering
from linrep.errors import LinrepError, RecipeError
from linrep.harvest.config import Pool
from linrep.harvest.plan import plan_harvest
from linrep.named_sae import NamedSae
from linrep.places import Place, place
from linrep.probe.config import Latents, ProbeConfig
from linrep.recipe import Recipe
from linrep.sae.controls import random_sae
from linrep.sae.formats import saelens
from linrep.sae.study import SaeConfig
from linrep.sharing.config import ModelSae
from linrep.steer.config import SteerSae
from linrep.vlm.sites import transformer_lens_name
from tests.steering import HARVEST, half_held_out, write_workspace

TOKENS = HARVEST.model_copy(update={"views": ("pooled", "tokens"), "tokens_per_sample": 16})


@pytest.fixture(scope="module")
def recipe(random_vlm: Any, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    corpora = half_held_out(tmp_path_factory.mktemp("corpora"))
    return Recipe(name="t", corpora=corpora, model=random_vlm, harvest=TOKENS, pool=Pool(threads=1))


@pytest.fixture(scope="module")
def workspace(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(write_workspace(tmp_path_factory.mktemp("workspace"), "t", recipe.corpora, recipe.model, TOKENS))


def model_of(recipe: Recipe, workspace: Place) -> dict[str, Any]:
    harvest = plan_harvest("t", recipe.corpora, recipe.model, recipe.harvest, workspace)
    return linrep.store.open(str(harvest.place)).manifest.model


def given_to_features(recipe: Recipe, workspace: Place, path: str, layer: int, insist: bool) -> list[dict[str, Any]]:
    one = NamedSae(path=path, layer=layer, insist=insist)
    section = recipe.features.model_copy(update={"saes": (one,)})
    return plan_features(recipe.model_copy(update={"features": section}), workspace).artefact.manifest.saes


def given_to_sharing(recipe: Recipe, workspace: Place, path: str, layer: int, insist: bool) -> list[dict[str, Any]]:
    one = ModelSae(path=path, layer=layer, insist=insist)
    section = recipe.sharing.model_copy(update={"saes": (one,), "groups": 4, "min_per_class": 1})
    return plan_sharing(recipe.model_copy(update={"sharing": section}), workspace).artefact.manifest.saes


def given_to_probes(recipe: Recipe, workspace: Place, path: str, layer: int, insist: bool) -> list[dict[str, Any]]:
    section = ProbeConfig(min_per_class=1, softmax=None, sae=Latents(path=path, layer=layer, insist=insist))
    return plan_probe(recipe.model_copy(update={"probe": section}), workspace).artefact.manifest.saes


def given_to_steering(recipe: Recipe, workspace: Place, path: str, layer: int, insist: bool) -> list[dict[str, Any]]:
    changes = {"sae": SteerSae(path=path, layer=layer, insist=insist), "directions": ("class_mean", "sae_sparse")}
    changes |= {"probes": str(workspace / "directions.safetensors"), "pairs": (("tench", "church"),), "images": 1}
    section = recipe.steer.model_copy(update=changes)
    return plan_steering(recipe.model_copy(update={"steer": section}), workspace).artefact.manifest.saes


def given_to_evaluate(recipe: Recipe, workspace: Place, path: str, layer: int, insist: bool) -> list[dict[str, Any]]:
    section = SaeConfig.model_validate({"layers": [layer], "evaluation": {"insist": insist}})
    recipe = recipe.model_copy(update={"sae": section})
    return evaluate_other(recipe, workspace, harvested(recipe, workspace), path).artefact.manifest.saes


STAGES: list[Callable[..., list[dict[str, Any]]]] = [
    given_to_features, given_to_sharing, given_to_probes, given_to_steering, given_to_evaluate
]  # fmt: skip
WRONG = {
    "layer": {"layer": 0},
    "hook": {"layer": None, "hook_name": transformer_lens_name(0)},
    "place": {"layer": None, "hook_name": "blocks.1.hook_mlp_out"},
    "model": {"model_name": "owner/other", "model_digest": None},
    "weights": {"model_digest": "0123456789"},
    "modality": {"modality": "image"},
}


@pytest.mark.parametrize("stage", STAGES, ids=[stage.__name__.removeprefix("given_to_") for stage in STAGES])
def test_every_stage_refuses_what_an_sae_says_against_it_and_keeps_what_is_insisted_on(
    stage: Callable[..., list[dict[str, Any]]], recipe: Recipe, workspace: Place, tmp_path: Path
) -> None:
    model = model_of(recipe, workspace)
    right = {"layer": 2, "hook_name": transformer_lens_name(2), "model_name": model["path"], "model_digest": model["digest"]}
    sae, path = random_sae(torch.randn(64, 32), 48, 4), tmp_path / "sae"

    def write(about: dict[str, Any]) -> None:
        saelens.write(place(path), replace(sae, about=about))

    for about in (right, {}, {"layer": 2}):
        write(about)
        (said,) = stage(recipe, workspace, str(path), 2, False)
        assert said["insisted"] == []
        assert (said["says_model"] == "unknown") == ("model_name" not in about)
    for what, change in WRONG.items():
        write({key: value for key, value in {**right, **change}.items() if value is not None})
        with pytest.raises(RecipeError, match=r"it says .*insist with [a-z_.0-9]*\.insist") as caught:
            stage(recipe, workspace, str(path), 2, False)
        assert "\n" not in str(caught.value)
        (said,) = stage(recipe, workspace, str(path), 2, True)
        assert len(said["insisted"]) == 1, what
    saelens.write(place(path), replace(random_sae(torch.randn(64, 16), 48, 4), about={}))
    for insist in (False, True):
        with pytest.raises(LinrepError, match="is for width 16, the store has 32"):
            stage(recipe, workspace, str(path), 2, insist)


def test_no_stage_reads_an_sae_by_another_way() -> None:
    """Whoever plans with an SAE reads it by `read_sae_for`; workers read again what the plan has checked, by its digest."""
    folder = Path(linrep.cluster.run_sharing.__file__).parent
    readers = {file.name for file in folder.glob("*.py") if "linrep.sae.formats import read" in file.read_text()}
    assert readers == {"given_saes.py", "run_evaluate.py", "steer.py", "probe.py"}
    assert "check_origin(" in (folder / "run_evaluate.py").read_text()
    assert read_sae_for.__module__ == "linrep.cluster.given_saes"
