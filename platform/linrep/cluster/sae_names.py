"""SAEs by the names that people know: of this recipe, or what its search recommends; sections then hold where they lie."""

from collections.abc import Sequence
from typing import TypeVar

from linrep.errors import RecipeError
from linrep.named_sae import NamedSae
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.records import read_object
from linrep.repository.address import is_address
from linrep.repository.files import pinned
from linrep.sae.artefact import place_of
from linrep.sae.formats import saelens
from linrep.sae.layer import layer_name, read_commit
from linrep.sae.study import SaeConfig
from linrep.sae.tuning import REPORT, plan_tune, recommended
from linrep.store.read import Store

BEST = "best"
"""Stands for the SAE that the search recommends."""

Named = TypeVar("Named", bound=NamedSae)


def at_paths(given: Sequence[Named], recipe: Recipe, store: Store, workspace: Place, field: str) -> tuple[Named, ...]:
    """SAEs with the paths of those that are named.

    Args:
        given: As a section of the recipe has them.
        recipe: The experiment.
        store: The harvest whose activations they are of.
        workspace: Where everything lies.
        field: Field of the recipe that names them, for errors.

    Raises:
        RecipeError: There is no such SAE, the name begins several, or it is not trained yet.
        HubError: There is no such repository on the hub, or it cannot be reached.
    """
    return tuple(at_path(one, recipe, store, workspace, f"{field}.{i}") for i, one in enumerate(given))


def at_path(given: Named, recipe: Recipe, store: Store, workspace: Place, field: str) -> Named:
    """As `at_paths`, of a single SAE. An address of the hub gets the commit that it means now: all nodes read the same."""
    if is_address(given.path):
        return given.model_copy(update={"path": pinned(given.path)})
    if given.path:
        return given
    return given.model_copy(update={"path": str(_find(given, recipe, store, workspace, field)), "sae": ""})


def _find(given: NamedSae, recipe: Recipe, store: Store, workspace: Place, field: str) -> Place:
    if given.sae == BEST:
        config, name, made_by = _best(given.layer, recipe, store, workspace, field)
    else:
        config, made_by = recipe.sae, "jobs/train_sae.py with the same recipe"
        name = whole_name(given.sae, list(config.designs()), f"{field}.sae")
    artefact = place_of(store, recipe.name, config, workspace)
    folder = artefact / layer_name(given.layer) / name
    if read_commit(artefact, given.layer) is None:
        raise RecipeError(f"{field}.sae: {name} of layer {given.layer} is not trained yet: run {made_by} first")
    if not (folder / saelens.CONFIG).is_file():
        raise RecipeError(
            f"{field}.sae: {name} of layer {given.layer} is two SAEs, one for each modality: name one by {field}.path, "
            f"{folder}-image or {folder}-text"
        )
    return folder


def whole_name(beginning: str, names: Sequence[str], field: str) -> str:
    """The name that begins so, where it is one name's beginning alone.

    >>> whole_name("topk-16-x8", ["topk-16-x8-s0", "topk-32-x8-s0"], "probe.sae.sae")
    'topk-16-x8-s0'

    Raises:
        RecipeError: None begins so, or several do.
    """
    found = [name for name in names if name == beginning] or [name for name in names if name.startswith(f"{beginning}-")]
    if len(found) == 1:
        return found[0]
    what = f"several SAEs of this recipe are called {beginning}" if found else f"this recipe trains no SAE called {beginning}"
    raise RecipeError(f"{field}: {what}: name one of {', '.join(found or names)}")


def _best(layer: int, recipe: Recipe, store: Store, workspace: Place, field: str) -> tuple[SaeConfig, str, str]:
    """The section that trains what the search recommends, the SAE's name, and how it is made.

    Where the recipe's own grid holds an SAE of the same architecture, sparsity and width, it is that one.
    """
    plan = plan_tune(store, recipe.name, recipe.tune, recipe.sae, workspace)
    report = plan.place / REPORT
    if not report.is_file():
        raise RecipeError(f"{field}.sae: best is what the search recommends: run jobs/tune_sae.py with the same recipe first")
    again = "delete it and run jobs/tune_sae.py with the same recipe again"
    recommendation = read_object(report, again).get(str(layer))
    if not isinstance(recommendation, dict):
        raise RecipeError(f"{field}.sae: the search recommends nothing for layer {layer}: name an SAE, or search there")
    config = recommended(plan, str(recommendation["name"]))
    ((name, wanted),) = config.designs().items()
    for own, design in recipe.sae.designs().items():
        if (design.activation, design.expansion) == (wanted.activation, wanted.expansion):
            return recipe.sae, own, "jobs/train_sae.py with the same recipe"
    return config, name, f"jobs/train_sae.py with --config {plan.place}/recommended.yaml"
