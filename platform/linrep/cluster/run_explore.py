"""The explorer of a workspace: its site is made in this process, for it takes a minute and no cluster."""

import sys
from collections.abc import Callable, Mapping

from linrep.contents.stored import Contents, open_contents
from linrep.errors import LinrepError, StoreError
from linrep.explorer.site.build import Built, build_site
from linrep.explorer.site.results import open_results
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.store.read import Store


def run_explore(recipe: Recipe, workspace: Place, command: Callable[[str], str]) -> Built:
    """Make the pages of all complete results in a workspace, unless they are there already.

    Args:
        recipe: The experiment of the command line, whose name the pages bear.
        workspace: Where everything lies.
        command: The shell command of a job, by the name of its script.

    Raises:
        StoreError: There is no complete harvest.
    """
    results = open_results(workspace)
    if not results.harvests:
        raise StoreError(f"there is nothing to show in {workspace} yet: run jobs/harvest.py with the same recipe first")
    return build_site(results, lambda: _contents(results.harvests), command, recipe.name, say=_say)


def _say(line: str) -> None:
    print(f"explore: {line}", file=sys.stderr, flush=True)


def _contents(harvests: Mapping[str, Store]) -> dict[str, Contents]:
    """Images and texts by digest of the harvest, where its corpora still lie where they lay."""
    found: dict[str, Contents] = {}
    for digest, store in harvests.items():
        try:
            found[digest] = open_contents(store)
        except LinrepError as error:
            print(f"explore: pages of {store.place.name} have no images and texts: {error}", file=sys.stderr)
    return found
