"""The features job from recipe to complete artefact: planned, locked, resumed, watched, finished and tracked."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from linrep import tracking
from linrep.cluster.dictionaries import read_dictionaries, with_control
from linrep.cluster.lock import sole_driver
from linrep.cluster.progress import Progress
from linrep.cluster.ready import check_services
from linrep.cluster.sae_names import at_paths
from linrep.cluster.session import cluster
from linrep.errors import RecipeError
from linrep.explorer.features import feature_figures, feature_metrics, flat, summary_lines
from linrep.features.artefact import Features, read_features_manifest, write_features_manifest
from linrep.features.embeddings import read_embedded
from linrep.features.plan import FeaturesPlan, plan_artefact, resumed
from linrep.features.study import plan_study
from linrep.features.units import committed, finish, has_codes
from linrep.harvest.plan import DEMO, located, plan_harvest, write_demo
from linrep.places import Place, remove_unfinished
from linrep.probe.labels import attribute_values, read_attributes
from linrep.recipe import Recipe
from linrep.sae.origin import origin_lines
from linrep.store.layout import MANIFEST
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.store.samples import read_samples
from linrep.store.summary import high_norm_lines


@dataclass(frozen=True)
class FeaturesOutcome:
    """What a features job did.

    Attributes:
        features: The artefact, complete.
        n_new: Runs of latents that this run worked through.
        tracking_uri: Where its MLflow run is.
        summary: The main numbers, in lines.
    """

    features: Features
    n_new: int
    tracking_uri: str
    summary: str


def plan_features(recipe: Recipe, workspace: Place) -> FeaturesPlan:
    """Work out a features job; starts no cluster.

    Raises:
        LinrepError: The recipe's harvest is missing or not complete, or the features section asks for what is not there.
    """
    harvest = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo, begun=True)
    config, store = recipe.features, open_store(str(harvest.place))
    named = at_paths(config.dictionaries, recipe, store, workspace, "features.dictionaries")
    config = config.model_copy(update={"dictionaries": named})
    # Checked before the dictionaries are read, and their controls made, from rows of the store.
    plan_study(store, config)
    values, parents = _values(recipe, workspace, store)
    embedded = None
    if config.embeddings is not None:
        embedded, parents["embeddings"] = read_embedded(config.embeddings, store.samples()["sample_id"].to_pylist())
    known = read_dictionaries(config.dictionaries, store, "features")
    coders = [one.sae for one in known]
    latents = tuple(with_control(d, coder, store, config.seed) for d, coder in zip(config.dictionaries, coders, strict=True))
    parents |= {f"dictionary-{i}": coder.digest for i, coder in enumerate(coders)}
    study = plan_study(store, config, values, embedded, latents, located(recipe.model))
    names = [f"{d.layer}/{own.name}" for d, (own, _) in zip(config.dictionaries, latents, strict=True)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"features.dictionaries: two of one layer have the same name, {', '.join(twice)}: rename a folder")
    plan = plan_artefact(workspace, recipe.name, study, parents)
    return replace(plan, manifest=replace(plan.manifest, saes=[one.origin for one in known]))


def _values(recipe: Recipe, workspace: Place, store: Store) -> tuple[dict[str, Sequence[str | None]], dict[str, str]]:
    """What is known of the samples beside their class: the attributes that the probes are also given."""
    asked = recipe.probe.attributes
    if asked is None:
        return {}, {}
    path = asked.path
    if path.startswith(DEMO):
        if recipe.demo is None:
            raise RecipeError(f"probe.attributes.path begins with {DEMO}, but the recipe has no section demo")
        path = f"{write_demo(workspace, recipe.demo)}/{path.removeprefix(DEMO)}"
    known, named = read_attributes(asked, path)
    table = store.samples()
    samples = read_samples(table)
    return {column: attribute_values(known, column, table, samples) for column in asked.columns}, {"attributes": named}


def run_features(recipe: Recipe, workspace: Place) -> FeaturesOutcome:
    """Do what is missing of a recipe's features; nothing, if they are complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    plan = plan_features(recipe, workspace)
    check_services(workspace, plan.place)
    with sole_driver(plan.place):
        manifest = read_features_manifest(plan.place)
        if manifest is not None and manifest.status == "complete":
            return _outcome(plan, Features(plan.place, manifest), 0, tracking.tracking_uri(workspace))
        if manifest is None:
            write_features_manifest(plan.place, plan.manifest)
        else:
            plan = resumed(plan, manifest)
        return _find(recipe, workspace, plan)


def _find(recipe: Recipe, workspace: Place, plan: FeaturesPlan) -> FeaturesOutcome:
    remove_unfinished(plan.place)
    done = committed(plan.place)
    todo = [unit for unit in plan.study.units if unit.name not in done]
    name = f"features {plan.manifest.name}-{plan.manifest.digest}"
    params = {"name": recipe.name, "features": recipe.features.model_dump(mode="json")}
    with tracking.run(workspace, "features", name, tracking.key_of(workspace, plan.place), params, plan.manifest.parents) as run:
        run.tags({"linrep.features": tracking.inside(workspace, plan.place), "linrep.digest": plan.manifest.digest})
        if todo or not has_codes(plan):
            with cluster():
                # Ray is imported only where there is work: finished results say so at once.
                from linrep.cluster.features import find_features, rows_of

                coders = {unit.coder: unit for unit in plan.study.units}
                rows = sum(rows_of(part) for unit in coders.values() for part in plan.study.parts(unit))
                with Progress("features", rows, unit="rows", rate="latents") as progress:
                    every = plan.study.units
                    for commit in find_features(plan.study, todo, plan.place, lambda n: progress.add(n, 0), every):
                        progress.add(0, commit.latents)
        features = Features(plan.place, finish(plan))
        outcome = _outcome(plan, features, len(todo), run.uri)
        _track(run, outcome)
    # Last, after the run is closed: a driver killed before this line does the tracking again when it resumes.
    write_features_manifest(plan.place, features.manifest)
    return outcome


def _outcome(plan: FeaturesPlan, features: Features, n_new: int, uri: str) -> FeaturesOutcome:
    lines = summary_lines(features.table(), features.manifest.chance)
    lines += high_norm_lines(plan.study.store.manifest, [one.layer for one in plan.study.config.dictionaries])
    lines += origin_lines(features.manifest.saes)
    return FeaturesOutcome(features, n_new, uri, "\n".join(lines))


def _track(run: tracking.Run, outcome: FeaturesOutcome) -> None:
    features = outcome.features
    run.metrics(feature_metrics(features.table()))
    run.json(asdict(features.manifest), MANIFEST)
    for name in ("features", "labels"):
        run.table(f"tables/{name}", flat(features.table(name)))
    for name, figure in feature_figures(features.table()).items():
        run.figure(f"figures/{name}.png", figure)
    run.text(f"{outcome.summary}\n", "summary.txt")
