"""The explorer of a workspace: its site is made in this process, for it takes a minute and no cluster."""

import sys
from collections.abc import Callable, Mapping

from linrep.cluster.inputs import planned_harvest
from linrep.errors import LinrepError, StoreError
from linrep.explorer.site.build import Built, build_site
from linrep.explorer.site.results import open_results
from linrep.harvest.plan import located
from linrep.interpret.contents import Contents, StoredContents
from linrep.interpret.fetch import EncodedImages
from linrep.places import Place
from linrep.recipe import RECIPES, Recipe, load_yaml, validate
from linrep.store.read import Store
from linrep.vlm.card import describe
from linrep.vlm.prepare import Preparer

AROUND = 12
"""Tokens of a text on either side of the strongest one."""


def run_explore(recipe: Recipe, workspace: Place, command: Callable[[str], str]) -> Built:
    """Make the pages of all complete results in a workspace, unless they are there already.

    Args:
        recipe: The experiment of the command line; those that the workspace remembers are known as well.
        workspace: Where everything lies.
        command: The shell command of a job, by the name of its script.

    Raises:
        StoreError: There is no complete harvest.
    """
    results = open_results(workspace)
    if not results.harvests:
        raise StoreError(f"there is nothing to show in {workspace} yet: run jobs/harvest.py with the same recipe first")
    return build_site(results, lambda: _contents(recipe, workspace, results.harvests), command, recipe.name)


def _contents(recipe: Recipe, workspace: Place, harvests: Mapping[str, Store]) -> dict[str, Contents]:
    """Images and texts by digest of the harvest, where the corpora of a recipe still lie where it says."""
    found: dict[str, Contents] = {}
    for own in [recipe, *_remembered(workspace)]:
        try:
            plan = planned_harvest(own, workspace, indexed=True)
            store = harvests.get(plan.manifest.digest)
            if store is None or plan.manifest.digest in found:
                continue
            model, config = located(own.model), own.harvest
            preparer = Preparer.from_path(model, **config.prompts, max_text_tokens=config.max_text_tokens)
            fetch = EncodedImages(store, plan.chunks, plan.job.corpora)
            found[plan.manifest.digest] = StoredContents(store.samples(), describe(model), preparer, fetch, AROUND)
        except LinrepError as error:
            print(f"explore: pages of {own.name} have no pictures and texts: {error}", file=sys.stderr)
    return found


def _remembered(workspace: Place) -> list[Recipe]:
    folder = workspace / RECIPES
    files = [str(folder / name) for name in folder.names() if name.endswith(".yaml")]
    return [validate(load_yaml(file), file, {}, []) for file in files]
