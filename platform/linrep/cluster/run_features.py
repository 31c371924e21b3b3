"""The features stage: what it reads, what it computes and what it shows. `linrep.cluster.stage` runs it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from linrep import tracking
from linrep.artefact import Artefact
from linrep.cluster.commands import literal, python, read_parquet
from linrep.cluster.given_saes import read_saes, with_control
from linrep.cluster.inputs import attributes, harvested, regions
from linrep.cluster.sae_names import at_paths
from linrep.cluster.stage import Counts, Outcome, Records, Shown, Step, run_stage
from linrep.contents.sources import located
from linrep.errors import RecipeError
from linrep.explorer.features import feature_figures, feature_metrics, features_headline, flat, summary_lines
from linrep.features.artefact import FeaturesAbout, as_begun, codes_unit, finish, plan_artefact
from linrep.features.embeddings import read_embedded
from linrep.features.study import Study, Unit, plan_study
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.sae.origin import origin_lines
from linrep.shell import python_command
from linrep.store.summary import apart_lines


@dataclass(frozen=True)
class FeaturesStage:
    """What each latent of some SAEs does, random directions beside.

    Attributes:
        artefact: The features.
        study: What is looked into.
        pool: Says which share of a GPU a task holds that encodes.
    """

    artefact: Artefact[FeaturesAbout]
    study: Study
    pool: Pool
    on_ray = True

    @property
    def counts(self) -> Counts:
        """Rows that are encoded, each SAE's and each control's."""
        todo = self.artefact.todo()
        left = {unit.folder for unit in self.study.units if unit.name in todo or codes_unit(unit) in todo}
        rows = {unit.folder: self._rows(unit) for unit in self.study.coded}
        return Counts("rows", "latents", sum(rows.values()), sum(n for sae, n in rows.items() if sae not in left))

    def of(self, artefact: Artefact[FeaturesAbout]) -> "FeaturesStage":
        """The same stage of the artefact as it lies on disk, in the runs of latents that it was begun with."""
        return replace(self, artefact=artefact, study=as_begun(self.study, artefact.about))

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit | Step]:
        """Encode, then work through runs of latents."""
        from linrep.cluster.features import find_features

        return find_features(self.study, todo, self.artefact, self.pool)

    def finish(self) -> dict[str, object]:
        """Put the tables together."""
        return finish(self.artefact)

    def show(self) -> Shown:
        """What the latents separate, beside random directions."""
        table, about, where = self.artefact.table(), self.artefact.about, literal(self.artefact.place)
        apart = apart_lines(self.study.store.manifest, [one.layer for one in self.study.config.saes])
        first = about.saes[0]
        examples = f"o({where}).examples({literal(first.name)}, first=0, last=8, layer={first.layer})"
        read = f"import polars as p; from linrep.features.artefact import open_features as o; print(p.from_arrow({examples}))"
        exports = ("-m", "linrep.features.exports", "neuronpedia", str(self.artefact.place), "neuronpedia")
        return Shown(
            headline=features_headline(table),
            lines=[*summary_lines(table, about.chance), *apart, *origin_lines(self.artefact.manifest.saes)],
            next=[
                ("latents", read_parquet(self.artefact.place / "features.parquet")),
                ("examples", python(read)),
                ("export", python_command(*exports)),
            ],
        )

    def records(self) -> Records:
        """Curves over layers, tables and figures."""
        tables = {name: self.artefact.table(name) for name in self.artefact.kind.tables}
        metrics, figures = feature_metrics(tables["features"]), feature_figures(tables["features"])
        return Records(metrics, {name: flat(table) for name, table in tables.items()}, figures)

    def _rows(self, unit: Unit) -> int:
        return sum(file.rows for part in self.study.parts(unit) for _, file in part)


def plan_features(recipe: Recipe, workspace: Place) -> FeaturesStage:
    """Work out a features job; starts no cluster.

    Raises:
        LinrepError: The recipe's harvest is missing or not complete, or the features section asks for what is not there.
    """
    config, store = recipe.features, harvested(recipe, workspace).store
    named = at_paths(config.saes, recipe, store, workspace, "features.saes")
    config = config.model_copy(update={"saes": named})
    # Checked before the SAEs are read, and their controls made, from rows of the store.
    plan_study(store, config)
    known, embedded, parents = attributes(recipe, workspace), None, {}
    labelled = regions(recipe, workspace)
    if labelled is not None:
        parents["regions"] = labelled.digest
    if known is not None:
        parents["attributes"] = known.digest
    if config.embeddings is not None:
        embedded, parents["embeddings"] = read_embedded(config.embeddings, store.samples()["sample_id"].to_pylist())
    given = read_saes(config.saes, store, "features")
    latents = tuple(with_control(d, one.sae, store, config.seed) for d, one in zip(config.saes, given, strict=True))
    parents |= {f"sae-{i}": one.sae.digest for i, one in enumerate(given)}
    values = None if known is None else known.values(store)
    study = plan_study(store, config, values, embedded, latents, located(recipe.model), labelled)
    names = [f"{d.layer}/{own.name}" for d, (own, _) in zip(config.saes, latents, strict=True)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"features.saes: two of one layer have the same name, {', '.join(twice)}: rename a folder")
    return FeaturesStage(plan_artefact(workspace, recipe.name, study, parents, [one.origin for one in given]), study, recipe.pool)


def run_features(recipe: Recipe, workspace: Place) -> Outcome:
    """Do what is missing of a recipe's features; nothing, if they are complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    return run_stage(plan_features(recipe, workspace), workspace)
