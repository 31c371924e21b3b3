"""The probe stage: what it reads, what it computes and what it shows. `linrep.cluster.stage` runs it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from linrep import tracking
from linrep.artefact import Artefact
from linrep.cluster.commands import literal, python, read_parquet
from linrep.cluster.given_saes import read_sae_for
from linrep.cluster.inputs import attributes, harvested, regions
from linrep.cluster.sae_names import at_path
from linrep.cluster.stage import Counts, Outcome, Records, Shown, run_stage
from linrep.corpora.names import unspoken
from linrep.errors import RecipeError
from linrep.explorer.probes import layer_figures, main_probes, probe_headline, summary_lines
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.probe.artefact import ProbeAbout, finish, plan_probes
from linrep.probe.encoded import check_latents
from linrep.probe.patches import with_regions
from linrep.probe.study import Study, plan_study
from linrep.recipe import Recipe
from linrep.sae.origin import origin_lines
from linrep.store.layout import NO_LAYER, TOWER
from linrep.store.summary import apart_lines


@dataclass(frozen=True)
class ProbeStage:
    """Linear probes of each view and layer of a harvest.

    Attributes:
        artefact: The probes.
        study: Who is labelled what, and which probes are fitted.
        pool: GPUs of a task.
    """

    artefact: Artefact[ProbeAbout]
    study: Study
    pool: Pool
    counts = Counts("layers", "rows")
    on_ray = True

    def of(self, artefact: Artefact[ProbeAbout]) -> "ProbeStage":
        """The same stage of the artefact as it lies on disk."""
        return replace(self, artefact=artefact)

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit]:
        """Gather and solve, a view and layer at a time."""
        from linrep.cluster.probe import probe_units

        units = [unit for unit in self.study.units if unit.name in todo]
        return probe_units(self.study, units, self.artefact, self.pool)

    def finish(self) -> dict[str, object]:
        """Put tables and directions together."""
        finish(self.artefact, self.study)
        return {}

    def show(self) -> Shown:
        """Where each attribute can be read, beside its control."""
        table, about, manifest = self.artefact.table(), self.artefact.about, self.artefact.manifest
        classes = {name for task in about.tasks if task["attribute"] == "class" for name in task["names"]}
        apart = apart_lines(self.study.store.manifest, table["layer"].unique().to_pylist(), self.study.store.site)
        odd = [f"  {line}" for line in unspoken(sorted(classes))]
        where = literal(self.artefact.place)
        return Shown(
            headline=probe_headline(table),
            lines=[*summary_lines(table, about.left_out), *odd, *apart, *origin_lines(manifest.saes)],
            next=[
                ("table", read_parquet(self.artefact.place / "probes.parquet")),
                ("directions", python(f"from linrep.probe.artefact import open_probes as o; print(o({where}).directions)")),
            ],
        )

    def records(self) -> Records:
        """Curves over layers, tables and figures."""
        table = self.artefact.table()
        tables = {name: self.artefact.table(name) for name in self.artefact.kind.tables}
        figures = {} if self.study.config.site == TOWER else layer_figures(table)  # they are over layers
        return Records(metrics(self.artefact), tables, figures)


def plan_probe(recipe: Recipe, workspace: Place) -> ProbeStage:
    """Work out a probe job; starts no cluster.

    Raises:
        LinrepError: The recipe's harvest is missing or not complete, or the probe section asks for what is not there.
    """
    store, known, site = harvested(recipe, workspace).store, attributes(recipe, workspace), recipe.probe.site
    if site not in store.manifest.sites:
        raise RecipeError(
            f"probe.site: no {site} in {store.place}: it has {', '.join(store.manifest.sites)}; name it in harvest.sites and run "
            "jobs/harvest.py, which computes nothing else"
        )
    store, name = store.at(site), recipe.name if site == "residual" else f"{recipe.name}-{site}"
    labelled = regions(recipe, workspace) if site != TOWER else None  # regions cover tokens
    named, sae, config = None if known is None else known.digest, recipe.probe.sae, recipe.probe
    if sae is not None:
        sae = at_path(sae, recipe, store, workspace, "probe.sae")
        config = config.model_copy(update={"sae": sae})
    study = plan_study(store, config, None if known is None else known.table, labelled is not None)
    if labelled is not None:
        study = with_regions(study, labelled)
    parents = {"attributes": named, "regions": None if labelled is None else labelled.digest}
    if sae is None:
        return ProbeStage(plan_probes(workspace, name, study, parents), study, recipe.pool)
    if sae.layer not in study.layers:
        raise RecipeError(f"probe.sae.layer: layer {sae.layer} is not probed, only {', '.join(map(str, study.layers))}")
    given = read_sae_for(sae, study.store, "probe.sae")
    check_latents(study, given.sae)
    planned = plan_probes(workspace, recipe.name, study, parents | {"sae": given.sae.digest}, (given.origin,))
    return ProbeStage(planned, study, recipe.pool)


def run_probe(recipe: Recipe, workspace: Place) -> Outcome:
    """Do what is missing of a recipe's probes; nothing, if they are complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    return run_stage(plan_probe(recipe, workspace), workspace)


def metrics(probes: Artefact[ProbeAbout]) -> dict[str, float | dict[int, float]]:
    """The main probes' numbers: curves over layers, accuracies first, then those on shuffled labels; numbers of the tower."""
    curves: dict[str, dict[int, float]] = {}
    single: dict[str, float | dict[int, float]] = {}
    rows = main_probes(probes.frame()).to_dicts()
    for measure in ("top1", "control_task", "shuffled", "auroc", "selectivity"):
        for row in rows:
            if row[measure] is not None:
                name = f"{measure}/{row['attribute']}_{row['tested_on']}_{row['view']}_{row['kind']}"
                if row["layer"] == NO_LAYER:
                    single[name] = row[measure]
                else:
                    curves.setdefault(name, {})[row["layer"]] = row[measure]
    return single | curves
