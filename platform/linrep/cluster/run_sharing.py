"""The sharing stage: what it reads, what it computes and what it shows. `linrep.cluster.stage` runs it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from linrep import tracking
from linrep.artefact import Artefact, all_in
from linrep.cluster.commands import read_parquet
from linrep.cluster.control import CONTROL, control_recipe
from linrep.cluster.given_saes import GivenSae, read_saes, undrawn, with_control
from linrep.cluster.inputs import attributes, harvested
from linrep.cluster.lens_words import lens_words
from linrep.cluster.object_tokens import object_tokens
from linrep.cluster.sae_names import at_path
from linrep.cluster.stage import Counts, Outcome, Records, Shown, run_stage
from linrep.cluster.steered import read_steered
from linrep.errors import LinrepError, RecipeError, StoreError
from linrep.explorer.sharing import layer_figures, summary_lines
from linrep.explorer.sharing_across import across_figure, across_headline, across_lines
from linrep.explorer.sharing_lens import lens_curves, lens_figure, lens_headline, lens_lines
from linrep.explorer.sharing_words import plain_words, sharing_headline
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.named_sae import NamedSae
from linrep.places import Place, place
from linrep.recipe import Recipe
from linrep.sae.artefact import SAES
from linrep.sae.layer import layer_name
from linrep.sae.origin import origin_lines
from linrep.sae.sae import Sae
from linrep.sharing.artefact import ACROSS, LENS, TRENDS, SharingAbout, finish, plan_results
from linrep.sharing.config import Model, ModelSae, SharingConfig
from linrep.sharing.study import TRAINED, UNTRAINED, Study, plan_study
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.store.samples import CLASS
from linrep.store.summary import apart_lines

OF_LATENTS = ("bimodal_mass", "overlap_0.01", "cofire", "bridge_cosine", "cross_modal_weight_centred", "cross_modal_weight_rest")
"""Metrics of latents that MLflow keeps; the tables have all."""
MADE_BY = {TRAINED: "train_sae", UNTRAINED: "control"}
"""Jobs that train SAEs of a model."""


@dataclass(frozen=True)
class SharingStage:
    """What images and texts share, layer by layer, beside nulls and an untrained model.

    Attributes:
        artefact: The results.
        study: What is compared; controls of SAEs are drawn where something is computed.
        pool: Says which share of a GPU a task holds that encodes.
        given: The SAEs, each with its name and the store that it sees.
    """

    artefact: Artefact[SharingAbout]
    study: Study
    pool: Pool
    given: tuple[tuple[NamedSae, Sae, Store], ...] = ()
    counts = Counts("layers", "pairs")
    on_ray = True

    def of(self, artefact: Artefact[SharingAbout]) -> "SharingStage":
        """The same stage of the artefact as it lies on disk."""
        return replace(self, artefact=artefact)

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit]:
        """Draw random directions for the SAEs; sum up and measure, a unit at a time.

        Raises:
            StoreError: A store has no rows for an SAE.
        """
        from linrep.cluster.sharing import share_units

        seed = self.study.config.seed
        study = replace(self.study, latents=tuple(with_control(named, sae, store, seed) for named, sae, store in self.given))
        return share_units(study, [unit for unit in study.units if unit.name in todo], self.artefact, self.pool)

    def finish(self) -> dict[str, object]:
        """Put the tables together, trends among them."""
        finish(self.artefact, self.study.config.base)
        return {}

    def show(self) -> Shown:
        """How much is shared at which layer, and what speaks against the claim."""
        table, trends, manifest = self.artefact.table(), self.artefact.table(TRENDS), self.artefact.manifest
        between, lenses = self.artefact.table(ACROSS), self.artefact.table(LENS)
        notes = [f"  note: {note}" for note in manifest.notes]
        apart = apart_lines(self.study.stores[TRAINED].manifest, self.study.layers)
        lines = [
            *notes,
            *summary_lines(table, trends),
            *across_lines(between),
            *lens_lines(lenses),
            *apart,
            *origin_lines(manifest.saes),
            "",
            plain_words(table, trends),
        ]
        headline = [*sharing_headline(table, trends), *across_headline(between), *lens_headline(lenses)]
        return Shown(headline, lines, [("table", read_parquet(self.artefact.place / "sharing.parquet"))])

    def records(self) -> Records:
        """Curves over layers, tables and figures."""
        tables = {name: self.artefact.table(name) for name in (*self.artefact.kind.tables, TRENDS)}
        more = {"sharing_across": across_figure(tables[ACROSS]), "sharing_lens": lens_figure(tables[LENS])}
        figures = layer_figures(tables["sharing"], tables[TRENDS]) | {name: one for name, one in more.items() if one is not None}
        return Records(metrics(self.artefact), tables, figures)


def plan_sharing(recipe: Recipe, workspace: Place) -> SharingStage:
    """Work out a sharing job; starts no cluster.

    Raises:
        LinrepError: The recipe's harvest is missing or not complete, or the sharing section asks for what is not there.
    """
    config, store = recipe.sharing, harvested(recipe, workspace).store
    stores: dict[Model, tuple[Store, Place]] = {TRAINED: (store, workspace)}
    recipes = {TRAINED: recipe}
    if config.untrained == CONTROL:
        recipes[UNTRAINED] = control_recipe(recipe, workspace)
        stores[UNTRAINED] = (_control(recipes[UNTRAINED], workspace), workspace)
    elif config.untrained is not None:
        found = open_store(config.untrained)
        stores[UNTRAINED] = (found, place(str(found.place)).parent.parent)
    untrained = stores[UNTRAINED][0] if UNTRAINED in stores else None
    # Checked before the SAEs are read.
    plain = plan_study(store, config.model_copy(update={"saes": (), "poolings": None}), untrained)
    steered = None if config.steering is None else read_steered(config.steering, workspace, store, plain.layers)
    config = with_own(config, stores)
    known: list[GivenSae] = []
    seen_by: list[tuple[NamedSae, Sae, Store]] = []
    named = []
    for i, given in enumerate(config.saes):
        if given.model not in stores:
            raise RecipeError("sharing.saes: one is of the untrained model, whose harvest sharing.untrained must name")
        seen = stores[given.model][0]
        sae = at_path(given, recipes.get(given.model, recipe), seen, workspace, f"sharing.saes.{i}")
        named.append(sae)
        known += read_saes([sae], seen, "sharing")
        seen_by.append((sae, known[-1].sae, seen))
    config = config.model_copy(update={"saes": tuple(named)})
    known_values = attributes(recipe, workspace)
    values = None if known_values is None else {model: known_values.values(own) for model, (own, _) in stores.items()}
    undrawn_saes = tuple(undrawn(own, sae) for own, sae, _ in seen_by)
    study = plan_study(store, config, untrained, undrawn_saes, values, object_tokens(recipe, workspace))
    lenses, why = lens_words(study, recipes)
    study = replace(study, lenses=lenses, notes=(*study.notes, *why))
    if steered is not None:
        study = replace(study, steered=steered.measures)
    weights, origins = tuple(one.sae.digest for one in known), tuple(one.origin for one in known)
    digest = None if steered is None else steered.digest
    of_values = None if known_values is None else known_values.digest
    results = plan_results(workspace, recipe.name, study, weights, digest, origins, of_values)
    return SharingStage(results, study, recipe.pool, tuple(seen_by))


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
    """The config with the SAEs named that `own` asks for.

    Args:
        config: As the recipe has it.
        stores: Each model's harvest, and the workspace that it lies in.

    Raises:
        RecipeError: A model has no such SAE, or several artefacts have one.
    """
    if config.own is None:
        return config
    found = list(config.saes)
    for model, (store, workspace) in stores.items():
        folders = [
            (saes.place, saes.about.layers)
            for saes in all_in(SAES, workspace)
            if saes.manifest.parents.get("harvest") == store.manifest.digest and config.own in saes.about.names
        ]
        if len(folders) != 1:
            there = "there is none" if not folders else f"{len(folders)} artefacts have one"
            raise RecipeError(
                f"sharing.own: {there} called {config.own} of the {model} model in {workspace / 'saes'}: "
                + (f"jobs/{MADE_BY[model]}.py makes it" if not folders else "name them in sharing.saes")
            )
        folder, layers = folders[0]
        layers = [k for k in layers if config.layers == "all" or k in config.layers]
        found += [ModelSae(path=str(folder / layer_name(k) / config.own), layer=k, model=model) for k in layers]
    return config.model_copy(update={"saes": tuple(found)})


def run_sharing(recipe: Recipe, workspace: Place) -> Outcome:
    """Do what is missing of a recipe's sharing results; nothing, if they are complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    return run_stage(plan_sharing(recipe, workspace), workspace)


def metrics(results: Artefact[SharingAbout]) -> dict[str, dict[int, float]]:
    """The numbers as curves over layers, named by metric, model, SAE, tokens and attribute; those of steering come last.

    MLflow keeps the first hundred: the few of the lenses come before all others.
    """
    main = (pl.col("level") != "latent") | pl.col("metric").is_in(OF_LATENTS)
    frame = results.frame().filter(pl.col("value").is_not_null() & main)
    frame = frame.sort(pl.col("metric").str.starts_with("turned_by_"), maintain_order=True)
    curves = lens_curves(results.table(LENS))
    for row in frame.iter_rows(named=True):
        pooling = row["pooling"] if row["pooling"] != "mean" else None
        attribute = row["attribute"] if row["attribute"] != CLASS else None
        model = row["model"] if row["model"] != TRAINED else ""
        where = "_".join(filter(None, [model, row["sae"], pooling, attribute]))
        curves.setdefault(f"{row['metric']}/{where}" if where else row["metric"], {})[row["layer"]] = row["value"]
    return curves
