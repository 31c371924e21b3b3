"""The evaluation of SAEs as a stage: those of a recipe, or one from elsewhere. `linrep.cluster.stage` runs it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from linrep import artefact as artefacts
from linrep import tracking
from linrep.artefact import find
from linrep.cluster.commands import literal, python, read_parquet
from linrep.cluster.inputs import HarvestInput, attributes
from linrep.cluster.sae_models import sae_models
from linrep.cluster.stage import Counts, Records, Shown
from linrep.directions import read_directions
from linrep.errors import LinrepError, RecipeError
from linrep.explorer.sae_figures import figures
from linrep.explorer.saes import card_lines, sae_headline, summary_lines
from linrep.kind import UnitCommit
from linrep.places import Place, place
from linrep.probe.artefact import DIRECTIONS
from linrep.probe.labels import label
from linrep.recipe import Recipe
from linrep.repository.address import is_address
from linrep.sae.artefact import EVALUATIONS, EvaluationAbout, Evaluations, Saes, check_held_out, check_layers, open_saes
from linrep.sae.formats import located, name_of
from linrep.sae.formats import read as read_sae
from linrep.sae.formats.card import write_card
from linrep.sae.layer import layer_name
from linrep.sae.origin import check_origin, layer_said, origin_lines
from linrep.sae.report import COSINES
from linrep.sae.sae import Sae
from linrep.store.read import Store
from linrep.store.samples import CLASS, SPLITS, class_values, read_samples
from linrep.store.summary import apart_lines

if TYPE_CHECKING:
    from linrep.cluster.evaluate_sae import Truth

Opened = Mapping[str, Callable[[], dict[str, dict[str, Sae]]]]
"""By unit, what opens the SAEs of its layer."""


@dataclass(frozen=True)
class EvaluationStage:
    """How good SAEs are: on held-out rows, in the model itself, on known attributes, on class directions.

    Attributes:
        artefact: The evaluation.
        recipe: The experiment.
        harvest: The activations.
        saes: Where the SAEs lie.
        own: Whether they were trained here, and not elsewhere.
        opened: What opens the SAEs.
        n_latents: Of each SAE of a layer.
        directions: File of class directions; None where there are no probes.
        workspace: Where everything lies.
        reads: How often each modality was read in training, by layer, in lines.
        left_out: What training left out, in lines.
    """

    artefact: Evaluations
    recipe: Recipe
    harvest: HarvestInput
    saes: Place
    own: bool
    opened: Opened
    n_latents: tuple[int, ...]
    directions: Place | None
    workspace: Place
    reads: Mapping[str, list[str]]
    left_out: tuple[str, ...] = ()
    counts = Counts("layers", "rows")
    on_ray = True

    def of(self, artefact: Evaluations) -> "EvaluationStage":
        """The same stage of the artefact as it lies on disk."""
        return replace(self, artefact=artefact)

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit]:
        """Evaluate layer after layer."""
        from linrep.cluster.evaluate_sae import EvaluationJob, bytes_needed, evaluate_on_ray

        recipe, plan, store = self.recipe, self.harvest.plan, self.harvest.store
        corpus = "pairs" if recipe.corpora.pairs is not None else "text"
        job = EvaluationJob(
            artefact=self.artefact,
            saes=self.saes if self.own else None,
            store=store,
            config=recipe.sae.evaluation,
            model=recipe.model,
            harvest=plan.job.config,
            corpora=plan.job.corpora,
            chunks=tuple(chunk for chunk in plan.chunks if chunk.corpus == corpus),
            truth=_truth(recipe, store, self.workspace),
            directions=self.directions,
            pool=recipe.pool,
            seed=recipe.sae.seed,
        )
        layers = {layer: self.opened[layer_name(layer)] for layer in self.artefact.about.layers if layer_name(layer) in todo}
        n_bytes = bytes_needed(store.manifest.width, self.n_latents, job.config)
        return evaluate_on_ray(job, layers, recipe.pool, n_bytes)

    def finish(self) -> dict[str, object]:
        """Put the layers' tables together, and write the model cards."""
        self.artefact.finish()
        if self.own:
            tables, about = self._tables(), self.artefact.about
            for layer in about.layers:
                folder = self.saes / layer_name(layer)
                for name in about.names:
                    more = card_lines(tables, layer, name)
                    for modality, sae in open_saes(folder, name).items():
                        write_card(folder / (f"{name}-{modality}" if modality else name), sae, more=more)
        return {}

    def show(self) -> Shown:
        """Which SAE to use, and the main numbers of each beside random directions."""
        tables, about, manifest = self._tables(), self.artefact.about, self.artefact.manifest
        apart = [*apart_lines(self.harvest.store.manifest, about.layers), *origin_lines(manifest.saes)]
        read = literal(self.saes / layer_name(about.layers[0]) / about.names[0] if self.own else self.saes)
        return Shown(
            headline=sae_headline(tables["quality"]),
            lines=[f"  SAEs: {about.saes}", *summary_lines(tables, self.reads), *self.left_out, *apart],
            next=[
                ("tables", read_parquet(self.artefact.place / "quality.parquet")),
                ("read", python(f"import linrep.sae.formats as f; print(f.read({read}).about)")),
            ],
        )

    def records(self) -> Records:
        """Curves over layers, tables and figures, and the SAEs if they were trained here."""
        tables, saes = self._tables(), self.recipe.sae.designs()
        models = sae_models(tables["quality"], saes, self.harvest.store.manifest.width) if self.own else []
        return Records(metrics(tables["quality"]), tables, figures(tables), models=models)

    def _tables(self) -> dict[str, pa.Table]:
        return {name: self.artefact.table(name) for name in EVALUATIONS.tables}


def plan_evaluation(recipe: Recipe, workspace: Place, harvest: HarvestInput, saes: Saes) -> EvaluationStage:
    """Work out the evaluation of a recipe's SAEs, trained or not.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        harvest: The activations.
        saes: The SAEs.

    Raises:
        StoreError: The probes' directions are damaged.
    """
    directions, probes = _directions(recipe, workspace)
    about = saes.about
    planned = artefacts.plan(
        EVALUATIONS,
        saes.place,
        recipe.name,
        decisive=recipe.sae.evaluation.model_dump(mode="json"),
        parents={**saes.manifest.parents, "sae": saes.manifest.digest} | probes,
        config=recipe.sae.evaluation.model_dump(mode="json"),
        units=saes.manifest.units,
        about=EvaluationAbout(saes.place.within(workspace), about.layers, about.names),
        saes=saes.manifest.saes,
    )
    opened = {unit: partial(_open_layer, saes.folder(unit), tuple(about.names)) for unit in saes.manifest.units}
    n_latents = tuple(sae.n_latents(harvest.store.manifest.width) for sae in recipe.sae.designs().values())
    return EvaluationStage(planned, recipe, harvest, saes.place, True, opened, n_latents, directions, workspace, about.reads)


def evaluate_other(recipe: Recipe, workspace: Place, harvest: HarvestInput, path: str) -> EvaluationStage:
    """Work out the evaluation of an SAE from elsewhere, as if it had been trained here.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        harvest: The activations.
        path: Where it lies.

    Raises:
        LinrepError: It cannot be read, or is of another layer, model or width.
    """
    store, sae = harvest.store, read_sae(path)
    layer = _layer_of(recipe, store, sae, path)
    width, model, insist = store.manifest.width, store.manifest.model, recipe.sae.evaluation.insist
    origin = check_origin(sae, path, layer, width, model, "sae.evaluation", insist)
    check_held_out(store, layer)
    directions, probes = _directions(recipe, workspace)
    where, name = (path if is_address(path) else place(path).within(workspace)), name_of(path)
    planned = artefacts.plan(
        EVALUATIONS,
        workspace,
        recipe.name,
        decisive=[where, layer, origin["insisted"], recipe.sae.seed, recipe.sae.evaluation.model_dump(mode="json")],
        parents={"harvest": store.manifest.digest, "sae": sae.digest} | probes,
        config=recipe.sae.evaluation.model_dump(mode="json"),
        units=[layer_name(layer)],
        about=EvaluationAbout(where, [layer], [name]),
        saes=[origin],
    )
    opened = {layer_name(layer): partial(_given, name, sae)}
    return EvaluationStage(planned, recipe, harvest, located(path), False, opened, (sae.n_latents,), directions, workspace, {})


def _open_layer(folder: Place, names: tuple[str, ...]) -> dict[str, dict[str, Sae]]:
    return {name: open_saes(folder, name) for name in names}


def _given(name: str, sae: Sae) -> dict[str, dict[str, Sae]]:
    return {name: {"": sae}}


def _truth(recipe: Recipe, store: Store, workspace: Place) -> "Truth | None":
    """What is known of the images: their class, and the attributes that the probes are also given."""
    from linrep.cluster.evaluate_sae import Attribute, find_truth

    if not recipe.sae.evaluation.samples:
        return None
    table = store.samples()
    samples = read_samples(table)
    known = attributes(recipe, workspace)
    values = {CLASS: class_values(table, samples)} | ({} if known is None else known.values(store))
    found = []
    for name, own in values.items():
        names = sorted({value for value in own if value is not None})
        if len(names) > 1:
            found.append(Attribute(name, tuple(names), label(name, "image", own, names, samples, 0).codes))
    is_train = (samples.split == SPLITS.index("train")).tolist()
    return find_truth(samples.ids, samples.role, is_train, found, recipe.sae.evaluation.samples)


def _directions(recipe: Recipe, workspace: Place) -> tuple[Place | None, dict[str, str]]:
    """The probes' class directions, and the probes as a parent; nothing where there are no complete probes of this recipe."""
    from linrep.cluster.run_probe import plan_probe

    if recipe.probe.site != "residual":  # SAEs are of the stream
        return None, {}
    try:
        planned = plan_probe(recipe, workspace).artefact
    except LinrepError:  # no labels, too few samples: nothing to probe, and no reason not to evaluate SAEs
        return None, {}
    probes = find(planned.kind, planned.place)
    if probes is None or not probes.complete:
        return None, {}
    read_directions(probes.place / DIRECTIONS)  # a damaged file is reported before the cluster starts
    return probes.place / DIRECTIONS, {"probe": probes.manifest.digest}


def metrics(quality: pa.Table) -> dict[str, dict[int, float]]:
    """The quality as curves over layers, named by measure, modality and SAE; FVU and L0 first."""
    rows = pl.DataFrame(pl.from_arrow(quality)).filter(pl.col("value").is_not_null()).to_dicts()
    wanted = ("fvu", "l0", "alive", "dense", "moved", "kl_spliced", "kl_resample", "kl_mean", "kl_zero")
    wanted += tuple(f"latents_needed_{cosine}/{kind}" for cosine in COSINES for kind in ("class", "random"))
    curves: dict[str, dict[int, float]] = {}
    for row in sorted((row for row in rows if row["measure"] in wanted), key=lambda row: wanted.index(row["measure"])):
        curves.setdefault(f"{row['measure']}/{row['modality']}_{row['sae']}", {})[row["layer"]] = row["value"]
    return curves


def _layer_of(recipe: Recipe, store: Store, sae: Sae, path: str) -> int:
    layers = recipe.sae.layers
    if layers != "all" and len(layers) == 1:
        return check_layers(store, recipe.sae)[0]
    said = layer_said(sae.about)
    if said is not None and said in store.manifest.layers:
        return said
    if said is not None:
        there = ", ".join(map(str, store.manifest.layers))
        raise RecipeError(f"{path} says that it is of layer {said}, {store.place} has {there}: name one with --sae.layers K")
    raise RecipeError(f"{path} does not say which layer of the harvest it is of: name it with --sae.layers K")
