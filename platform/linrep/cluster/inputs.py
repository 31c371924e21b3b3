"""What a stage reads of the recipe and of other stages: found in one way, with one message for each thing that is missing."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from linrep.artefact import Artefact, find
from linrep.contents.sources import DEMO, write_demo
from linrep.errors import RecipeError, StoreError
from linrep.harvest.plan import Plan, plan_harvest
from linrep.places import Place, place
from linrep.probe.labels import attribute_values, read_attributes
from linrep.recipe import Recipe
from linrep.regions.artefact import Regions, RegionsAbout, plan_regions, readable
from linrep.regions.study import RegionsStudy
from linrep.regions.study import plan_study as plan_regions_study
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.store.samples import read_samples


@dataclass(frozen=True)
class HarvestInput:
    """The complete harvest of a recipe.

    Attributes:
        plan: How its samples are found again.
        store: What it holds.
    """

    plan: Plan
    store: Store


@dataclass(frozen=True)
class KnownAttributes:
    """What is known of the samples beside their class.

    Attributes:
        table: The user's table.
        digest: Of what it says.
        columns: The attributes among its columns.
    """

    table: pa.Table
    digest: str
    columns: tuple[str, ...]

    def values(self, store: Store) -> dict[str, Sequence[str | None]]:
        """The value of each attribute for each sample of a store, None where it has none."""
        table = store.samples()
        samples = read_samples(table)
        return {column: attribute_values(self.table, column, table, samples) for column in self.columns}


def planned_harvest(recipe: Recipe, workspace: Place, indexed: bool = False) -> Plan:
    """The harvest of a recipe, begun before.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        indexed: It is enough that its corpora were indexed.

    Raises:
        RecipeError: It was not begun.
    """
    return plan_harvest(
        recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo, begun=not indexed, indexed=indexed
    )


def harvested(recipe: Recipe, workspace: Place) -> HarvestInput:
    """The complete harvest of a recipe.

    Raises:
        RecipeError: It was not begun.
        StoreError: It is not complete.
    """
    plan = planned_harvest(recipe, workspace)
    return HarvestInput(plan, open_store(str(plan.place)))


def attributes(recipe: Recipe, workspace: Place) -> KnownAttributes | None:
    """The attributes that the recipe's probes are given, and with them every stage; None where it names none.

    Raises:
        RecipeError: They lie in the embedded world, and the recipe has none.
        StoreError: There is no such table.
    """
    asked = recipe.probe.attributes
    if asked is None:
        return None
    table, named = read_attributes(asked, path_in(recipe, workspace, asked.path, "probe.attributes.path"))
    return KnownAttributes(table, named, asked.columns)


def plan_regions_of(recipe: Recipe, workspace: Place) -> tuple[Artefact[RegionsAbout], RegionsStudy]:
    """The regions of a recipe as their stage plans them.

    Raises:
        RecipeError: The recipe has none, or they lie in the embedded world and it has no section demo.
        CorpusError: There are no annotations where it says.
    """
    if recipe.regions is None:
        raise RecipeError("this recipe has no section regions: it says where boxes or masks of the images lie")
    source = place(path_in(recipe, workspace, recipe.regions.source.path, "regions.source.path"))
    study = plan_regions_study(harvested(recipe, workspace).store, recipe.regions, source)
    return plan_regions(workspace, recipe.name, study), study


def regions(recipe: Recipe, workspace: Place) -> Regions | None:
    """The complete regions of a recipe; None where it has none.

    Raises:
        StoreError: They are not there, or not complete.
    """
    if recipe.regions is None:
        return None
    planned, _ = plan_regions_of(recipe, workspace)
    return readable(complete(planned))


def path_in(recipe: Recipe, workspace: Place, path: str, field: str) -> str:
    """A path of the recipe as it can be opened: one in the embedded world lies in the workspace.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        path: The path.
        field: Field that says it, for the error.

    Raises:
        RecipeError: It lies in the embedded world, and the recipe has none.
    """
    if not path.startswith(DEMO):
        return path
    if recipe.demo is None:
        raise RecipeError(f"{field} begins with {DEMO}, but the recipe has no section demo")
    return f"{write_demo(workspace, recipe.demo)}/{path.removeprefix(DEMO)}"


def complete(planned: Artefact) -> Artefact:
    """An artefact of this recipe that another stage has made.

    Args:
        planned: As its stage plans it.

    Raises:
        StoreError: It is not there, or not complete.
    """
    there = find(planned.kind, planned.place)
    if there is None or not there.complete:
        state = "there are no" if there is None else "not complete yet are the"
        raise StoreError(f"{state} {planned.kind.what} of this recipe at {planned.place}: {planned.kind.again} first")
    return there
