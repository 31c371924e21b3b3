"""Dictionaries from recipe to complete artefact: planned, locked, trained, resumed, watched, tested, described and tracked.

An artefact's weights are named by what decides them. Its tests lie beside them in `evaluations/<digest>/`, named by what decides
those (how much is tested, and the probes whose class directions are rebuilt), so that probes made later are not missed:

evaluations/<digest>/
  quality.parquet, firing.parquet, truth.parquet, rebuilt.parquet    see `schemas.saes`
  summary.txt                                    the main numbers
  result.json                                    written last

The test of an SAE from elsewhere is an artefact of its own, with the same files; `begun.json` says since when. It is no
`manifest.json`: nobody who looks for SAEs finds one there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import polars as pl
import pyarrow as pa

from linrep import tracking
from linrep.artefact import find
from linrep.cluster.lock import sole_driver
from linrep.cluster.progress import Progress
from linrep.cluster.ready import check_services
from linrep.cluster.session import cluster
from linrep.cluster.stage import keep_figures
from linrep.config import digest
from linrep.directions import read_directions
from linrep.errors import LinrepError, RecipeError, StoreError
from linrep.harvest.plan import DEMO, Plan, plan_harvest, write_demo
from linrep.places import Place, place, remove_unfinished
from linrep.probe.artefact import DIRECTIONS
from linrep.recipe import Recipe
from linrep.records import find_record, write_record
from linrep.sae.artefact import (
    SaeManifest,
    SaePlan,
    check_held_out,
    check_layers,
    open_coders,
    plan_saes,
    read_manifest,
)
from linrep.sae.coder import Sae
from linrep.sae.formats import read as read_sae
from linrep.sae.layer import LayerCommit, layer_name, read_commit
from linrep.sae.origin import check_origin, layer_said, origin_lines
from linrep.sae.report import COSINES
from linrep.sae.train import Metrics
from linrep.store.layout import MANIFEST
from linrep.store.manifest import now
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.store.summary import apart_lines
from linrep.store.tables import read_table, write_table
from schemas.saes import EXAMINATION

RESULT, SUMMARY, BEGUN = "result.json", "summary.txt", "begun.json"
BEGIN_AGAIN = "delete it and run jobs/train_sae.py with the same --evaluate again"
TABLES = ("quality", "firing", "truth", "rebuilt")
WHY = {"special": "of special tokens", "high_norm": "of high norm", "nonfinite": "that are not finite"}


@dataclass(frozen=True)
class SaeOutcome:
    """What a job did.

    Attributes:
        place: The artefact; of a dictionary from elsewhere, where its test lies.
        tested: Where the tables are.
        n_new: Layers that this run trained.
        n_tested: Layers that it tested.
        tracking_uri: Where its MLflow run is.
        text: What came out, for reading.
    """

    place: Place
    tested: Place
    n_new: int
    n_tested: int
    tracking_uri: str
    text: str


def run_train_sae(recipe: Recipe, workspace: Place, evaluate: str | None = None) -> SaeOutcome:
    """Do what is missing of a recipe's dictionaries; nothing, if they are complete.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        evaluate: A dictionary from elsewhere, in any format that is known: only test that one.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    harvest = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo, begun=True)
    store = open_store(str(harvest.place))
    if evaluate is not None:
        return _test_other(recipe, workspace, harvest, store, evaluate)
    plan = plan_saes(store, recipe.name, recipe.sae, workspace)
    directions, probes = _directions(recipe, workspace)
    check_services(workspace, plan.place)
    with sole_driver(plan.place):
        manifest = read_manifest(plan.place)
        if manifest is None:
            write_record(plan.place / MANIFEST, plan.manifest)
        else:
            plan = replace(plan, manifest=replace(plan.manifest, created=manifest.created))
        tested = plan.place / "evaluations" / digest(EXAMINATION, recipe.sae.evaluation, probes)
        done = manifest is not None and manifest.status == "complete" and (tested / RESULT).is_file()
        if done:
            text = (tested / SUMMARY).read_bytes().decode()
            return SaeOutcome(plan.place, tested, 0, 0, tracking.uri_of(workspace, plan.place), text)
        return _run(recipe, workspace, harvest, plan, tested, directions, probes)


def _run(
    recipe: Recipe, workspace: Place, harvest: Plan, plan: SaePlan, tested: Place, directions: Place | None, probes: str | None
) -> SaeOutcome:
    remove_unfinished(plan.place)
    todo = plan.missing()
    parents = {**plan.manifest.parents, **({"probe": probes} if probes else {})}
    name = f"sae {plan.manifest.name}-{plan.manifest.digest}"
    params = {"name": recipe.name, "sae": recipe.sae.model_dump(mode="json")}
    with tracking.run(workspace, "sae", name, tracking.key_of(workspace, plan.place), params, parents) as run:
        run.tags({"linrep.saes": tracking.inside(workspace, plan.place), "linrep.digest": plan.manifest.digest})
        untested = [layer for layer in plan.manifest.layers if not _layer(tested, layer).is_folder()]
        if todo or untested:
            with cluster():
                # Ray is imported only where there is work: finished dictionaries say so at once.
                if todo:
                    from linrep.cluster.train_sae import train_on_ray

                    _watch(train_on_ray(todo, recipe.pool), plan, len(todo), run)
                if plan.missing():
                    raise StoreError(f"{plan.place} lacks commits of layers that were trained: run the same command again")
                coders = {layer: partial(_coders, plan.place / layer_name(layer), plan.manifest.coders) for layer in untested}
                n_latents = [coder.n_latents(plan.store.manifest.width) for coder in recipe.sae.coders().values()]
                _test(recipe, harvest, plan.store, tested, coders, n_latents, directions)
        manifest = replace(plan.manifest, status="complete", finished=now())
        text = _finish(recipe, run, tested, manifest, plan.place, plan.store)
    # Last, after the run is closed: a driver killed before this line does the tracking again when it resumes.
    write_record(plan.place / MANIFEST, manifest)
    (tested / RESULT).write_json({"parents": parents, "finished": now(), "config": recipe.sae.evaluation.model_dump(mode="json")})
    return SaeOutcome(plan.place, tested, len(todo), len(untested), run.uri, text)


def _watch(events: Iterable[Any], plan: SaePlan, n_todo: int, run: tracking.Run) -> None:
    """Show and track what the workers tell: one bar over the steps of all layers, metrics by layer and dictionary."""
    names, steps = plan.manifest.coders, plan.manifest.steps
    # What a checkpoint spares is not known here; it shows as a jump of the first layer.
    done_before = (len(plan.jobs) - n_todo) * steps
    at: dict[int, int] = {}
    with Progress("train", len(plan.jobs) * steps, done_before, unit="steps", rate="rows") as progress:
        for event in events:
            step = event.what.step if isinstance(event.what, Metrics) else steps
            before = at.get(event.layer, 0)
            if step > before:
                progress.add(step - before, (step - before) * recipe_rows(plan.manifest))
                at[event.layer] = step
            if isinstance(event.what, Metrics):
                where = f"layer{event.layer:02d}/{names[event.what.coder]}"
                run.metrics({f"{where}/{name}": value for name, value in event.what.values.items()}, event.what.step)


def recipe_rows(manifest: SaeManifest) -> int:
    """Rows of a step."""
    return int(manifest.config["batch"])


def _coders(folder: Place, names: tuple[str, ...]) -> dict[str, dict[str, Sae]]:
    return {name: open_coders(folder, name) for name in names}


def _given(name: str, sae: Sae) -> dict[str, dict[str, Sae]]:
    return {name: {"": sae}}


def _test(
    recipe: Recipe, harvest: Plan, store: Store, tested: Place, coders: Mapping[int, Callable[[], dict[str, dict[str, Sae]]]],
    n_latents: list[int], directions: Place | None,
) -> None:  # fmt: skip
    from linrep.cluster.evaluate_sae import Examination, bytes_needed, examine_on_ray
    from linrep.sae.formats import saelens

    corpus = "pairs" if recipe.corpora.pairs is not None else "text"
    exam = Examination(
        place=tested,
        store=store,
        config=recipe.sae.evaluation,
        model=recipe.model,
        harvest=recipe.harvest,
        corpora=harvest.job.corpora,
        chunks=tuple(chunk for chunk in harvest.chunks if chunk.corpus == corpus),
        truth=_truth(recipe, store, harvest),
        directions=directions,
        pool=recipe.pool,
    )
    with Progress("test", len(coders), unit="layers", rate="rows") as progress:
        n_bytes = bytes_needed(store.manifest.width, n_latents, exam.config)
        for found in examine_on_ray(exam, coders, recipe.pool, n_bytes):
            progress.add(1, recipe.sae.evaluation.rows)
            for name, rates in found.rates.items():
                folder = tested.parent.parent / layer_name(found.layer)
                for where in (folder / name, folder / f"{name}-image", folder / f"{name}-text"):
                    if (where / saelens.CONFIG).is_file():
                        saelens.write_firing(where, rates)


def _truth(recipe: Recipe, store: Store, harvest: Plan) -> Any:
    """What is known of the photographs: their class, and the attributes that the probes are also given."""
    from linrep.cluster.evaluate_sae import Attribute, find_truth
    from linrep.probe.labels import attribute_values, label, read_attributes
    from linrep.store.samples import CLASS, SPLITS, class_values, read_samples

    if not recipe.sae.evaluation.samples:
        return None
    table = store.samples()
    samples = read_samples(table)
    values = {CLASS: class_values(table, samples)}
    asked = recipe.probe.attributes
    if asked is not None:
        path = asked.path
        if path.startswith(DEMO) and recipe.demo is not None:
            path = f"{write_demo(harvest.place.parent.parent, recipe.demo)}/{path.removeprefix(DEMO)}"
        known, _ = read_attributes(asked, path)
        values |= {column: attribute_values(known, column, table, samples) for column in asked.columns}
    attributes = []
    for name, own in values.items():
        names = sorted({value for value in own if value is not None})
        if len(names) > 1:
            attributes.append(Attribute(name, tuple(names), label(name, "image", own, names, samples, 0).codes))
    is_train = (samples.split == SPLITS.index("train")).tolist()
    return find_truth(samples.ids, samples.role, is_train, attributes, recipe.sae.evaluation.samples)


def _directions(recipe: Recipe, workspace: Place) -> tuple[Place | None, str | None]:
    """The probes' class directions, and the probes' digest; nothing where there are no complete probes of this recipe."""
    from linrep.cluster.run_probe import plan_probe

    try:
        planned = plan_probe(recipe, workspace).artefact
    except LinrepError:  # no labels, too few samples: nothing to probe, and no reason not to test dictionaries
        return None, None
    probes = find(planned.kind, planned.place)
    if probes is None or not probes.complete:
        return None, None
    read_directions(probes.place / DIRECTIONS)  # a damaged file is told before the cluster starts
    return probes.place / DIRECTIONS, probes.manifest.digest


def _layer(tested: Place, layer: int) -> Place:
    folder = tested / "layers" / f"{layer:03d}"
    return folder if (folder / "done.json").is_file() else tested / "layers" / "none"


def _finish(recipe: Recipe, run: tracking.Run, tested: Place, manifest: SaeManifest, here: Place | None, store: Store) -> str:
    """Put the layers' tables together, write cards and summary, and track everything."""
    from linrep.explorer.saes import figures, summary_lines

    tables = {}
    for name in TABLES:
        tables[name] = pa.concat_tables(read_table(tested / "layers" / f"{n:03d}", f"{name}.parquet") for n in manifest.layers)
        write_table(tested, f"{name}.parquet", tables[name])
    lines = summary_lines(tables, manifest.reads)
    left = [_left_out(commit) for layer in manifest.layers if here and (commit := read_commit(here, layer))]
    apart = [*apart_lines(store.manifest, manifest.layers), *origin_lines(manifest.saes)]
    text = "\n".join([*lines, *(line for line in left if line), *apart])
    (tested / SUMMARY).write_bytes(text.encode())
    run.metrics(metrics(tables["quality"]))
    run.json(asdict(manifest), MANIFEST)
    for name, table in tables.items():
        if len(table):
            run.table(f"tables/{name}", table)
    for name, figure in figures(tables).items():
        run.figure(f"figures/{name}.png", keep_figures(tested, name, figure))
    run.text(text, SUMMARY)
    if here is not None:
        _cards(here, manifest, tables)
    return text


def _left_out(commit: LayerCommit) -> str:
    parts = []
    for modality, counts in commit.rows.items():
        for why, n in counts["left_out"].items():
            if n:
                first = f", the first is {counts['first_nonfinite']}" if why == "nonfinite" else ""
                parts.append(f"{n:,} {modality} rows {WHY[why]}{first}")
    return f"  layer {commit.layer}: left out of training: {'; '.join(parts)}" if parts else ""


def _cards(here: Place, manifest: SaeManifest, tables: Mapping[str, pa.Table]) -> None:
    from linrep.explorer.saes import card_lines
    from linrep.sae.formats.card import write_card

    for layer in manifest.layers:
        for name in manifest.coders:
            more = card_lines(tables, layer, name)
            for modality, sae in open_coders(here / layer_name(layer), name).items():
                write_card(here / layer_name(layer) / (f"{name}-{modality}" if modality else name), sae, more=more)


def metrics(quality: pa.Table) -> dict[str, float]:
    """The quality as MLflow metrics; layer and dictionary are in the names, so that runs compare layer by layer."""
    frame = pl.DataFrame(pl.from_arrow(quality)).filter(pl.col("value").is_not_null())
    wanted = ("fvu", "l0", "alive", "dense", "ce_recovered", "kl_recovered", "ce_recovered/likeliest", "kl_recovered/likeliest")
    wanted += tuple(f"latents_needed_{cosine}/{kind}" for cosine in COSINES for kind in ("class", "random"))
    return {
        f"test/{row['measure']}_{row['modality']}_{row['coder']}_layer{row['layer']:02d}": row["value"]
        for row in frame.filter(pl.col("measure").is_in(wanted)).iter_rows(named=True)
    }


def _test_other(recipe: Recipe, workspace: Place, harvest: Plan, store: Store, path: str) -> SaeOutcome:
    """Test a dictionary from elsewhere as if it had been trained here."""
    sae = read_sae(path)
    layer = _layer_of(recipe, store, sae, path)
    width, model, insist = store.manifest.width, store.manifest.model, recipe.sae.evaluation.insist
    origin = check_origin(sae, path, layer, width, model, "sae.evaluation", insist)
    check_held_out(store, layer)
    directions, probes = _directions(recipe, workspace)
    here = place(path)
    which = (here.within(workspace), layer, sae.digest, origin["insisted"])
    key = digest(store.manifest.digest, *which, EXAMINATION, recipe.sae.evaluation, probes)
    tested = workspace / "saes" / f"{recipe.name}-other-{key}"
    if not (tested / RESULT).is_file():
        check_services(workspace, tested)
    with sole_driver(tested):
        if (tested / RESULT).is_file():
            text = (tested / SUMMARY).read_bytes().decode()
            return SaeOutcome(tested, tested, 0, 0, tracking.uri_of(workspace, tested), text)
        parents = {"harvest": store.manifest.digest, **({"probe": probes} if probes else {})}
        begun = find_record(tested / BEGUN, SaeManifest, BEGIN_AGAIN)
        manifest = SaeManifest(
            name=recipe.name, digest=key, parents=parents, store=store.place.within(workspace),
            config={"path": here.within(workspace)}, layers=(layer,),
            coders=(here.name,), steps=0, reads={}, saes=[origin], created=now() if begun is None else begun.created,
        )  # fmt: skip
        if begun is None:
            write_record(tested / BEGUN, manifest)
        params = {"name": recipe.name, "path": str(here), "layer": layer}
        with tracking.run(workspace, "sae", f"sae of {here.name}", tracking.key_of(workspace, tested), params, parents) as run:
            with cluster():
                _test(recipe, harvest, store, tested, {layer: partial(_given, here.name, sae)}, [sae.n_latents], directions)
            manifest = replace(manifest, status="complete", finished=now())
            text = _finish(recipe, run, tested, manifest, None, store)
        times = {"created": manifest.created, "finished": manifest.finished}
        (tested / RESULT).write_json({"parents": parents, **times, "path": str(here), "layer": layer, "saes": [origin]})
    return SaeOutcome(tested, tested, 0, 1, run.uri, text)


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
