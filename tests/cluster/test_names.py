"""What a stage reads of others goes by names: SAEs and the untrained control; what is missing is one line with a command."""

from pathlib import Path
from typing import Any

import pytest

import linrep.store
from linrep.cluster.control import control_recipe, make_control
from linrep.cluster.run_control import run_control
from linrep.cluster.run_features import plan_features
from linrep.cluster.run_sharing import plan_sharing
from linrep.cluster.sae_names import at_path, whole_name
from linrep.errors import RecipeError, StoreError
from linrep.harvest.config import Pool
from linrep.harvest.plan import plan_harvest
from linrep.named_sae import NamedSae
from linrep.places import Place, place
from linrep.recipe import Recipe
from linrep.sae.artefact import plan_saes
from linrep.sae.layer import train_layer
from linrep.sae.study import SaeConfig
from linrep.vlm.card import describe
from tests.steering import HARVEST, half_held_out, write_workspace

TOKENS = HARVEST.model_copy(update={"views": ("pooled", "tokens"), "tokens_per_sample": 16})
SAE = {"layers": [2], "rows": 64, "batch": 32, "design": {"expansion": 2, "activation": {"kind": "topk", "k": 4}}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("names") / "ws")


@pytest.fixture(scope="module")
def recipe(random_vlm: Any, workspace: Place) -> Recipe:
    """A recipe with a harvest, and with trained SAEs at layer 2."""
    corpora = half_held_out(Path(workspace.path).parent / "corpora")
    write_workspace(Path(workspace.path), "t", corpora, random_vlm, TOKENS)
    sae = SaeConfig.model_validate({**SAE, "grid": {"seed": [0, 1]}})
    recipe = Recipe(name="t", corpora=corpora, model=random_vlm, harvest=TOKENS, sae=sae, pool=Pool(threads=1))
    store = store_of(recipe, workspace)
    for job in plan_saes(store, "t", sae, workspace).jobs:
        list(train_layer(job))
    return recipe


def store_of(recipe: Recipe, workspace: Place) -> linrep.store.Store:
    plan = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace)
    return linrep.store.open(str(plan.place))


def test_a_name_is_one_saes_or_a_beginning_that_only_one_has():
    names = ["topk-16-x8-s0", "topk-16-x8-s1", "topk-32-x8-s0"]
    assert whole_name("topk-16-x8-s1", names, "f") == "topk-16-x8-s1"
    assert whole_name("topk-32", names, "f") == "topk-32-x8-s0"
    with pytest.raises(
        RecipeError, match=r"^f: several SAEs of this recipe are called topk-16-x8: name one of topk-16-x8-s0, topk-16-x8-s1$"
    ):
        whole_name("topk-16-x8", names, "f")
    for none in ("topk-1", "topk-16-x8-s", "jumprelu"):  # a beginning ends where a part of the name does
        with pytest.raises(RecipeError, match=rf"trains no SAE called {none}: name one of {', '.join(names)}"):
            whole_name(none, names, "f")


def test_an_sae_is_found_by_its_name(recipe: Recipe, workspace: Place):
    store = store_of(recipe, workspace)
    found = at_path(NamedSae(sae="topk-4-x2-s1", layer=2), recipe, store, workspace, "features.saes.0")
    assert found.path.endswith("/layer-002/topk-4-x2-s1")
    assert found.sae == ""
    named = recipe.features.model_copy(update={"saes": (NamedSae(sae="topk-4-x2-s1", layer=2),)})
    by_path = recipe.features.model_copy(update={"saes": (found,)})
    one, other = (plan_features(recipe.model_copy(update={"features": f}), workspace) for f in (named, by_path))
    assert one.artefact.place == other.artefact.place  # which SAE it is decides the digest, not how it was called
    with pytest.raises(RecipeError, match=r"^x\.sae: topk-4-x2-s0 of layer 1 is not trained yet: run jobs/train_sae\.py"):
        at_path(NamedSae(sae="topk-4-x2-s0", layer=1), recipe, store, workspace, "x")
    with pytest.raises(RecipeError, match=r"^x\.sae: best is what the search recommends: run jobs/tune_sae\.py"):
        at_path(NamedSae(sae="best", layer=2), recipe, store, workspace, "x")


@pytest.mark.parametrize(("given", "message"), [({}, "by either sae or path"), ({"sae": "a", "path": "b"}, "not by both")])
def test_an_sae_is_named_in_one_way(given: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message):
        NamedSae.model_validate({"layer": 0, **given})


@pytest.mark.usefixtures("local_ray")
def test_the_control_is_made_once_in_the_same_workspace_and_sharing_finds_it(recipe: Recipe, workspace: Place):
    section = recipe.sharing.model_copy(update={"untrained": "control", "groups": 4, "min_per_class": 1})
    asking = recipe.model_copy(update={"sharing": section})
    with pytest.raises(StoreError, match=r"the recipe's control is not there yet .*: run jobs/control\.py first"):
        plan_sharing(asking, workspace)
    first = run_control(asking, workspace)
    assert first.n_new > 0
    assert first.place.parent == workspace / "harvests"
    control = control_recipe(asking, workspace)
    trained, untrained = describe(recipe.model), describe(control.model)
    assert (trained.width, trained.n_layers) == (untrained.width, untrained.n_layers)
    assert trained.digest != untrained.digest
    stores = plan_sharing(asking, workspace).study.stores
    found = {model: store.place for model, store in stores.items()}
    assert found == {"trained": store_of(recipe, workspace).place, "untrained": first.place}
    before = (Path(make_control(asking, workspace)) / "model.safetensors").stat().st_mtime_ns
    assert run_control(asking, workspace).n_new == 0
    assert (Path(make_control(asking, workspace)) / "model.safetensors").stat().st_mtime_ns == before
