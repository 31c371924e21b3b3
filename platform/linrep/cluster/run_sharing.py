"""The sharing job from recipe to complete artefact: planned, locked, resumed, watched, finished and tracked."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

import polars as pl

from linrep import tracking
from linrep.cluster.control import CONTROL, control_recipe
from linrep.cluster.dictionaries import read_dictionaries, with_control
from linrep.cluster.inputs import harvested
from linrep.cluster.lock import sole_driver
from linrep.cluster.progress import Progress
from linrep.cluster.ready import check_services
from linrep.cluster.sae_names import at_path
from linrep.cluster.session import cluster
from linrep.cluster.steered import read_steered
from linrep.errors import LinrepError, RecipeError, StoreError
from linrep.explorer.sharing import layer_figures, summary_lines
from linrep.explorer.sharing_words import plain_words
from linrep.harvest.plan import plan_harvest
from linrep.places import Place, place, remove_unfinished
from linrep.recipe import Recipe
from linrep.sae.artefact import read_manifest
from linrep.sae.layer import layer_name
from linrep.sae.origin import origin_lines
from linrep.sharing.artefact import (
    Sharing,
    SharingPlan,
    UnitCommit,
    committed,
    finish,
    plan_artefact,
    read_sharing_manifest,
    write_sharing_manifest,
)
from linrep.sharing.config import Model, ModelDictionary, SharingConfig
from linrep.sharing.study import TRAINED, UNTRAINED, plan_study
from linrep.store.layout import MANIFEST
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.store.summary import high_norm_lines

MADE_BY = {TRAINED: "train_sae", UNTRAINED: "control"}
"""Jobs that train SAEs of a model."""


@dataclass(frozen=True)
class SharingOutcome:
    """What a sharing job did.

    Attributes:
        sharing: The artefact, complete.
        n_new: Units that this run worked through.
        tracking_uri: Where its MLflow run is.
        summary: The main numbers, in lines.
        words: What the curves show, in plain words.
    """

    sharing: Sharing
    n_new: int
    tracking_uri: str
    summary: str
    words: str


def plan_sharing(recipe: Recipe, workspace: Place) -> SharingPlan:
    """Work out a sharing job; starts no cluster.

    Raises:
        LinrepError: The recipe's harvest is missing or not complete, or the sharing section asks for what is not there.
    """
    harvest = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo, begun=True)
    config, store = recipe.sharing, open_store(str(harvest.place))
    stores: dict[Model, tuple[Store, Place]] = {TRAINED: (store, workspace)}
    recipes = {TRAINED: recipe}
    if config.untrained == CONTROL:
        recipes[UNTRAINED] = control_recipe(recipe, workspace)
        stores[UNTRAINED] = (_control(recipes[UNTRAINED], workspace), workspace)
    elif config.untrained is not None:
        found = open_store(config.untrained)
        stores[UNTRAINED] = (found, place(str(found.place)).parent.parent)
    untrained = stores[UNTRAINED][0] if UNTRAINED in stores else None
    # Checked before the dictionaries are read, and their controls made, from rows of the store.
    plain = plan_study(store, config.model_copy(update={"dictionaries": ()}), untrained)
    steered = None if config.steering is None else read_steered(config.steering, workspace, store, plain.layers)
    config = with_own(config, stores)
    known, latents, named = [], [], []
    for i, given in enumerate(config.dictionaries):
        if given.model not in stores:
            raise RecipeError("sharing.dictionaries: one is of the untrained model, whose harvest sharing.untrained must name")
        seen = stores[given.model][0]
        dictionary = at_path(given, recipes.get(given.model, recipe), seen, workspace, f"sharing.dictionaries.{i}")
        named.append(dictionary)
        known += read_dictionaries([dictionary], seen, "sharing")
        latents.append(with_control(dictionary, known[-1].sae, seen, config.seed))
    config = config.model_copy(update={"dictionaries": tuple(named)})
    study = plan_study(store, config, untrained, tuple(latents))
    weights = tuple(one.sae.digest for one in known)
    if steered is None:
        plan = plan_artefact(workspace, recipe.name, study, weights)
    else:
        plan = plan_artefact(workspace, recipe.name, replace(study, steered=steered.measures), weights, steered.digest)
    return replace(plan, manifest=replace(plan.manifest, saes=[one.origin for one in known]))


def _control(control: Recipe, workspace: Place) -> Store:
    """The harvest of the recipe's control.

    Raises:
        StoreError: It is not made yet.
    """
    try:
        return harvested(control, workspace).store
    except LinrepError as error:
        raise StoreError(
            f"sharing.untrained: the recipe's control is not there yet ({error}): run jobs/control.py first, "
            "or leave it out with --sharing.untrained null"
        ) from None


def with_own(config: SharingConfig, stores: Mapping[Model, tuple[Store, Place]]) -> SharingConfig:
    """The config with the dictionaries named that `own` asks for.

    Args:
        config: As the recipe has it.
        stores: Each model's harvest, and the workspace that it lies in.

    Raises:
        RecipeError: A model has no such dictionary, or several artefacts have one.
    """
    if config.own is None:
        return config
    found = list(config.dictionaries)
    for model, (store, workspace) in stores.items():
        folders = []
        for name in (workspace / "saes").names():
            manifest = read_manifest(workspace / "saes" / name)
            if (
                manifest is not None
                and manifest.parents.get("harvest") == store.manifest.digest
                and config.own in manifest.coders
            ):
                folders.append((workspace / "saes" / name, manifest.layers))
        if len(folders) != 1:
            there = "there is none" if not folders else f"{len(folders)} artefacts have one"
            raise RecipeError(
                f"sharing.own: {there} called {config.own} of the {model} model in {workspace / 'saes'}: "
                + (f"jobs/{MADE_BY[model]}.py makes it" if not folders else "name them in sharing.dictionaries")
            )
        folder, layers = folders[0]
        layers = [k for k in layers if config.layers == "all" or k in config.layers]
        found += [ModelDictionary(path=str(folder / layer_name(k) / config.own), layer=k, model=model) for k in layers]
    return config.model_copy(update={"dictionaries": tuple(found)})


def run_sharing(recipe: Recipe, workspace: Place) -> SharingOutcome:
    """Do what is missing of a recipe's sharing results; nothing, if they are complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    plan = plan_sharing(recipe, workspace)
    check_services(workspace, plan.place)
    with sole_driver(plan.place):
        manifest = read_sharing_manifest(plan.place)
        if manifest is not None and manifest.status == "complete":
            return _outcome(plan, Sharing(plan.place, manifest), 0, tracking.tracking_uri(workspace))
        if manifest is None:
            write_sharing_manifest(plan.place, plan.manifest)
        else:
            plan = replace(plan, manifest=replace(plan.manifest, created=manifest.created))
        return _share(recipe, workspace, plan)


def _share(recipe: Recipe, workspace: Place, plan: SharingPlan) -> SharingOutcome:
    remove_unfinished(plan.place)
    done = committed(plan.place)
    todo = [unit for unit in plan.study.units if unit.name not in done]
    name = f"sharing {plan.manifest.name}-{plan.manifest.digest}"
    params = {"name": recipe.name, "sharing": recipe.sharing.model_dump(mode="json")}
    with tracking.run(workspace, "sharing", name, tracking.key_of(workspace, plan.place), params, plan.manifest.parents) as run:
        run.tags({"linrep.sharing": tracking.inside(workspace, plan.place), "linrep.digest": plan.manifest.digest})
        if todo:
            with cluster():
                # Ray is imported only where there is work: finished results say so at once.
                from linrep.cluster.sharing import share_units

                new = share_units(plan.study, todo, plan.place, plan.manifest.parents)
                _watch(new, len(done), len(plan.study.units))
        sharing = Sharing(plan.place, finish(plan))
        outcome = _outcome(plan, sharing, len(todo), run.uri)
        _track(run, outcome)
    # Last, after the run is closed: a driver killed before this line does the tracking again when it resumes.
    write_sharing_manifest(plan.place, sharing.manifest)
    return outcome


def _watch(new: Iterable[UnitCommit], n_done: int, n_units: int) -> None:
    with Progress("sharing", n_units, n_done, unit="layers", rate="pairs") as progress:
        for commit in new:
            progress.add(1, commit.pairs)


def _outcome(plan: SharingPlan, sharing: Sharing, n_new: int, uri: str) -> SharingOutcome:
    table = sharing.table()
    notes = [f"  note: {note}" for note in sharing.manifest.notes]
    lines = [*notes, *summary_lines(table), *high_norm_lines(plan.study.stores[TRAINED].manifest, plan.study.layers)]
    lines += origin_lines(sharing.manifest.saes)
    return SharingOutcome(sharing, n_new, uri, "\n".join(lines), plain_words(table))


def _track(run: tracking.Run, outcome: SharingOutcome) -> None:
    sharing = outcome.sharing
    run.metrics(metrics(sharing))
    run.json(asdict(sharing.manifest), MANIFEST)
    for name in ("sharing", "latents"):
        run.table(f"tables/{name}", sharing.table(name))
    for name, figure in layer_figures(sharing.table()).items():
        run.figure(f"figures/{name}.png", figure)
    run.text(f"{outcome.summary}\n\n{outcome.words}\n", "summary.txt")


def metrics(sharing: Sharing) -> dict[str, float]:
    """The numbers as MLflow metrics; model, dictionary and layer are in the names, so that runs compare layer by layer."""
    frame = pl.DataFrame(pl.from_arrow(sharing.table())).filter(pl.col("value").is_not_null())
    named = {}
    for row in frame.iter_rows(named=True):
        where = "_".join(filter(None, [row["model"] if row["model"] != "trained" else "", row["dictionary"]]))
        where = f"_{where}" if where else ""
        named[f"{row['metric']}{where}_layer{row['layer']:02d}"] = row["value"]
    return named
