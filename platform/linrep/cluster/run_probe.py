"""The probe job from recipe to complete artefact: planned, locked, resumed, watched, finished and tracked."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import polars as pl

from linrep import tracking
from linrep.cluster.dictionaries import Known, read_sae_for
from linrep.cluster.lock import sole_driver
from linrep.cluster.progress import Progress
from linrep.cluster.ready import check_services
from linrep.cluster.session import cluster
from linrep.corpora.names import unspoken
from linrep.errors import RecipeError
from linrep.explorer.probes import layer_figures, main_probes, summary_lines
from linrep.harvest.plan import DEMO, plan_harvest, write_demo
from linrep.places import Place, remove_unfinished
from linrep.probe.artefact import (
    ProbePlan,
    Probes,
    UnitCommit,
    committed,
    finish,
    plan_artefact,
    read_probe_manifest,
    write_probe_manifest,
)
from linrep.probe.encoded import check_latents
from linrep.probe.labels import read_attributes
from linrep.probe.study import Study, plan_study
from linrep.recipe import Recipe
from linrep.sae.origin import origin_lines
from linrep.store.layout import MANIFEST
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.store.summary import high_norm_lines


@dataclass(frozen=True)
class ProbeOutcome:
    """What a probe job did.

    Attributes:
        probes: The artefact, complete.
        n_new: Views and layers that this run probed.
        tracking_uri: Where its MLflow run is.
        summary: The main numbers, in lines.
    """

    probes: Probes
    n_new: int
    tracking_uri: str
    summary: str


def plan_probe(recipe: Recipe, workspace: Place) -> ProbePlan:
    """Work out a probe job; starts no cluster.

    Raises:
        LinrepError: The recipe's harvest is missing or not complete, or the probe section asks for what is not there.
    """
    harvest = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo, begun=True)
    attributes, named = None, None
    if recipe.probe.attributes is not None:
        attributes, named = read_attributes(recipe.probe.attributes, _located(recipe, workspace))
    study = plan_study(open_store(str(harvest.place)), recipe.probe, attributes)
    known = _dictionary(study)
    plan = plan_artefact(workspace, recipe.name, study, recipe.probe, named, None if known is None else known.sae.digest)
    return plan if known is None else replace(plan, manifest=replace(plan.manifest, saes=[known.origin]))


def _dictionary(study: Study) -> Known | None:
    """The SAE, if one is probed."""
    sae = study.config.sae
    if sae is None:
        return None
    if sae.layer not in study.layers:
        raise RecipeError(f"probe.sae.layer: layer {sae.layer} is not probed, only {', '.join(map(str, study.layers))}")
    known = read_sae_for(sae, study.store, "probe.sae")
    check_latents(study, known.sae)
    return known


def _located(recipe: Recipe, workspace: Place) -> str:
    assert recipe.probe.attributes is not None
    path = recipe.probe.attributes.path
    if not path.startswith(DEMO):
        return path
    if recipe.demo is None:
        raise RecipeError(f"probe.attributes.path begins with {DEMO}, but the recipe has no section demo")
    return f"{write_demo(workspace, recipe.demo)}/{path.removeprefix(DEMO)}"


def run_probe(recipe: Recipe, workspace: Place) -> ProbeOutcome:
    """Do what is missing of a recipe's probes; nothing, if they are complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    plan = plan_probe(recipe, workspace)
    check_services(workspace, plan.place)
    with sole_driver(plan.place):
        manifest = read_probe_manifest(plan.place)
        if manifest is not None and manifest.status == "complete":
            probes = Probes(plan.place, manifest)
            return ProbeOutcome(probes, 0, tracking.tracking_uri(workspace), _summary(probes, plan.study.store))
        if manifest is None:
            write_probe_manifest(plan.place, plan.manifest)
        else:
            plan = replace(plan, manifest=replace(plan.manifest, created=manifest.created))
        return _probe(recipe, workspace, plan)


def _probe(recipe: Recipe, workspace: Place, plan: ProbePlan) -> ProbeOutcome:
    remove_unfinished(plan.place)
    done = committed(plan.place)
    todo = [unit for unit in plan.study.units if unit.name not in done]
    name = f"probe {plan.manifest.name}-{plan.manifest.digest}"
    params = {"name": recipe.name, "probe": recipe.probe.model_dump(mode="json")}
    with tracking.run(workspace, "probe", name, tracking.key_of(workspace, plan.place), params, plan.manifest.parents) as run:
        run.tags({"linrep.probes": tracking.inside(workspace, plan.place), "linrep.digest": plan.manifest.digest})
        if todo:
            with cluster():
                # Ray is imported only where there is work: finished probes say so at once.
                import ray

                from linrep.cluster.probe import probe_units

                has_gpu = ray.cluster_resources().get("GPU", 0) > 0
                gpus = recipe.pool.gpus if recipe.pool.gpus is not None else float(has_gpu)
                _watch(probe_units(plan.study, todo, plan.place, gpus), len(done), len(plan.study.units))
        probes = Probes(plan.place, finish(plan))
        _track(run, probes, plan.study.store)
    # Last, after the run is closed: a driver killed before this line does the tracking again when it resumes.
    write_probe_manifest(plan.place, probes.manifest)
    return ProbeOutcome(probes, len(todo), run.uri, _summary(probes, plan.study.store))


def _watch(new: Iterable[UnitCommit], n_done: int, n_units: int) -> None:
    with Progress("probe", n_units, n_done, unit="layers", rate="rows") as progress:
        for commit in new:
            progress.add(1, commit.rows)


def _track(run: tracking.Run, probes: Probes, store: Store) -> None:
    run.metrics(metrics(probes))
    run.json(asdict(probes.manifest), MANIFEST)
    for name in ("probes", "classes", "confusions"):
        run.table(f"tables/{name}", probes.table(name))
    for name, figure in layer_figures(probes.table()).items():
        run.figure(f"figures/{name}.png", figure)
    run.text(_summary(probes, store), "summary.txt")


def _summary(probes: Probes, store: Store) -> str:
    table = probes.table()
    classes = {name for task in probes.manifest.tasks if task["attribute"] == "class" for name in task["names"]}
    odd = [f"  {line}" for line in unspoken(sorted(classes))]
    apart = high_norm_lines(store.manifest, table["layer"].unique().to_pylist())
    of_saes = origin_lines(probes.manifest.saes)
    return "\n".join([*summary_lines(table, probes.manifest.left_out), *odd, *apart, *of_saes])


def metrics(probes: Probes) -> dict[str, float]:
    """The main probes' numbers as MLflow metrics; view and layer are in the names, so that runs compare layer by layer."""
    named = {}
    for row in main_probes(pl.DataFrame(pl.from_arrow(probes.table()))).iter_rows(named=True):
        where = f"{row['attribute']}_{row['tested_on']}_{row['view']}_{row['kind']}_layer{row['layer']:02d}"
        for measure in ("top1", "control", "selectivity", "auroc"):
            if row[measure] is not None:
                named[f"{measure}_{where}"] = row[measure]
    return named
