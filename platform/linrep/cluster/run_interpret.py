"""The interpretation job from recipe to complete artefact: planned, refused early, locked, resumed, finished and tracked."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import polars as pl

from linrep import tracking
from linrep.cluster.interpret import build_cases, check_codes, chosen_latents, counts
from linrep.cluster.lock import sole_driver
from linrep.cluster.progress import Progress
from linrep.cluster.run_features import plan_features
from linrep.config import digest
from linrep.errors import RecipeError, StoreError
from linrep.explorer.interpret import score_figures, score_metrics, summary_lines
from linrep.features.artefact import Features, open_features
from linrep.harvest.plan import DEMO, Plan, located, plan_harvest, write_demo
from linrep.interpret.artefact import (
    SHEET,
    Interpretation,
    InterpretManifest,
    Stage,
    chunk_name,
    committed,
    finish,
    key_of,
    read_explained,
    read_interpret_manifest,
    write_chunk,
    write_interpret_manifest,
)
from linrep.interpret.backends import Effort, Interpreter
from linrep.interpret.config import Chat, Local, Truth
from linrep.interpret.contents import Contents, Scenes, StoredContents
from linrep.interpret.fetch import Pictures
from linrep.interpret.local import LocalBackend
from linrep.interpret.sheet import check_sheet, read_sheet, write_sheet
from linrep.interpret.study import explain, explanation_row, overlap_rows, partners, score, to_ask
from linrep.interpret.talk import ChatBackend
from linrep.interpret.truth import truth_backend
from linrep.interpret.views import Case, Latent
from linrep.places import Place, place, remove_unfinished
from linrep.recipe import Recipe
from linrep.store.layout import MANIFEST
from linrep.store.manifest import now
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.vlm.card import describe
from linrep.vlm.prepare import Preparer

REPLIES = "replies"
"""Folder of the workspace in which answers of chat servers are kept, whichever run asked."""

Tables = dict[str, list[dict[str, object]]]


@dataclass(frozen=True)
class InterpretPlan:
    """An interpretation job before it runs.

    Attributes:
        place: The artefact.
        manifest: The manifest to start with.
        features: What is interpreted.
        store: Where its activations lie.
        harvest: How its samples are found.
        scenes: The truth of its pictures, if there is one.
        edited: Explanations by people.
    """

    place: Place
    manifest: InterpretManifest
    features: Features
    store: Store
    harvest: Plan
    scenes: Scenes | None
    edited: dict[Latent, str]


@dataclass(frozen=True)
class InterpretOutcome:
    """What an interpretation job did.

    Attributes:
        interpretation: The artefact, complete.
        n_new: Chunks that this run worked through.
        tracking_uri: Where its MLflow run is.
        summary: The main numbers, in lines.
    """

    interpretation: Interpretation
    n_new: int
    tracking_uri: str
    summary: str


def plan_interpret(recipe: Recipe, workspace: Place) -> InterpretPlan:
    """Work out an interpretation job; asks nobody anything.

    Raises:
        LinrepError: There are no features, or they are of another harvest; the section asks for what is not there.
    """
    config = recipe.interpret
    if config.features is not None:
        where = place(config.features)
    elif recipe.features.dictionaries:
        where = plan_features(recipe, workspace).place
    else:
        where = workspace
    try:
        features = open_features(where)
    except StoreError as error:
        raise StoreError(f"interpret: {error} (jobs/features.py makes them, interpret.features names them)") from None
    try:
        check_codes(features)
    except StoreError as error:
        raise StoreError(f"interpret: {error}") from None
    harvest = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo)
    if harvest.manifest.digest != features.manifest.parents["harvest"]:
        raise RecipeError(
            f"interpret: the features in {features.place} are of harvest {features.manifest.parents['harvest']}, this "
            f"recipe's is {harvest.manifest.digest}: name others (interpret.features), or take the recipe that made them"
        )
    truth = None if config.scenes is None else _located(config.scenes, recipe, workspace)
    scenes = None if truth is None else Scenes.read(truth)
    if isinstance(config.backend, Truth) and scenes is None:
        raise RecipeError("interpret.backend truth needs interpret.scenes: the embedded world's are demo://scenes.jsonl")
    edited = {} if config.edited is None else read_sheet(place(config.edited))
    written = [[asdict(latent), text] for latent, text in edited.items()]
    parents = {"harvest": harvest.manifest.digest, "features": features.manifest.digest}
    parents |= {"edited": digest(written)} if edited else {}
    parents |= {"scenes": hashlib.sha256(truth.read_bytes()).hexdigest()[:10]} if truth is not None else {}
    key = key_of(config, parents)
    latents = {f"{layer}/{name}": own for (layer, name), own in chosen_latents(features, config).items()}
    alive, width = counts(features)
    n = sum(map(len, latents.values()))
    manifest = InterpretManifest(
        name=recipe.name,
        digest=key,
        parents=parents,
        features=str(features.place),
        config=config.model_dump(mode="json"),
        latents=latents,
        alive=alive,
        width=width,
        n_chunks=-(-n // config.chunk_size),
        created=now(),
    )
    store = open_store(str(harvest.place))
    return InterpretPlan(
        workspace / "interpretations" / f"{recipe.name}-{key}", manifest, features, store, harvest, scenes, edited
    )


def _located(path: str, recipe: Recipe, workspace: Place) -> Place:
    if not path.startswith(DEMO):
        return place(path)
    if recipe.demo is None:
        raise RecipeError(f"interpret.scenes begins with {DEMO}, but the recipe has no section demo")
    return write_demo(workspace, recipe.demo) / path.removeprefix(DEMO)


def make_backend(recipe: Recipe, plan: InterpretPlan, contents: Contents, workspace: Place) -> Interpreter:
    """Who explains and scores."""
    match recipe.interpret.backend:
        case Truth() as config:
            return truth_backend(config, contents, plan.scenes)
        case Chat() as config:
            return ChatBackend(config, contents, workspace / REPLIES)
        case Local() as config:
            return LocalBackend(config, contents)


def _contents(recipe: Recipe, plan: InterpretPlan) -> Contents:
    config, model = recipe.harvest, located(recipe.model)
    preparer = Preparer.from_path(
        model, image_prompt=config.image_prompt, pair_prompt=config.pair_prompt, max_text_tokens=config.max_text_tokens
    )
    fetch = Pictures(plan.store, plan.harvest.chunks, plan.harvest.job.corpora)
    return StoredContents(plan.store.samples(), describe(model), preparer, fetch, recipe.interpret.around)


def run_interpret(recipe: Recipe, workspace: Place) -> InterpretOutcome:
    """Do what is missing of a recipe's interpretations; nothing, if they are complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    plan = plan_interpret(recipe, workspace)
    with sole_driver(plan.place):
        manifest = read_interpret_manifest(plan.place)
        if manifest is not None and manifest.status == "complete":
            return _outcome(Interpretation(plan.place, manifest), 0, tracking.tracking_uri(workspace))
        contents = _contents(recipe, plan)
        backend = make_backend(recipe, plan, contents, workspace)
        if plan.edited:
            known = [Latent(*_key(name), latent) for name, own in plan.manifest.latents.items() for latent in own]
            check_sheet(place(recipe.interpret.edited or ""), plan.edited, known, backend)
        backend.check()
        if manifest is None:
            write_interpret_manifest(plan.place, plan.manifest)
        else:
            plan = replace(plan, manifest=replace(plan.manifest, created=manifest.created))
        return _interpret(recipe, workspace, plan, contents, backend)


def _key(name: str) -> tuple[int, str]:
    layer, _, dictionary = name.partition("/")
    return int(layer), dictionary


def _interpret(
    recipe: Recipe, workspace: Place, plan: InterpretPlan, contents: Contents, backend: Interpreter
) -> InterpretOutcome:
    remove_unfinished(plan.place)
    done = committed(plan.place)
    config, n_chunks = recipe.interpret, plan.manifest.n_chunks
    todo = sum(chunk_name(stage, i) not in done for stage in ("explain", "score") for i in range(n_chunks))
    name = f"interpret {plan.manifest.name}-{plan.manifest.digest} {backend.source}"
    params = {"name": recipe.name, "interpret": config.model_dump(mode="json")}
    with tracking.run(workspace, "interpret", name, digest(str(plan.place)), params, plan.manifest.parents) as run:
        run.tags({"linrep.interpretations": str(plan.place), "linrep.digest": plan.manifest.digest})
        if todo:
            cases = list(build_cases(plan.features, plan.store, config))
            chunks = [cases[start : start + config.chunk_size] for start in range(0, len(cases), config.chunk_size)]
            _say(backend.estimate([case.evidence for case in cases], to_ask(cases, backend.batch)), backend, len(done))
            _ask(plan, recipe, chunks, contents, backend)
            print(f"interpret: {backend.source} took {backend.spent()}", file=sys.stderr)
        found = Interpretation(plan.place, finish(plan.place, plan.manifest))
        _write_sheet(found)
        outcome = _outcome(found, todo, run.uri)
        _track(run, outcome)
    # Last, after the run is closed: a driver killed before this line does the tracking again when it resumes.
    write_interpret_manifest(plan.place, found.manifest)
    return outcome


def _say(effort: Effort, backend: Interpreter, n_done: int) -> None:
    rest = " (some of it is done already)" if n_done else ""
    if effort.calls:
        print(f"interpret: {backend.source} will take about {effort}{rest}", file=sys.stderr)


def _ask(plan: InterpretPlan, recipe: Recipe, chunks: Sequence[Sequence[Case]], contents: Contents, backend: Interpreter) -> None:
    """Explain every chunk, then score every chunk: another latent's explanation may come from any."""
    config, here, done = recipe.interpret, plan.place, committed(plan.place)

    def explained(number: int) -> Tables:
        found = explain(chunks[number], backend, plan.edited)
        parents = plan.manifest.parents["features"]
        return {"explanations": [explanation_row(case, found[case.latent], parents) for case in chunks[number]]}

    with Progress("interpret", 2 * len(chunks), len(done), unit="chunks", rate="latents") as progress:
        _work("explain", chunks, explained, here, done, contents, backend, progress)
        found = read_explained(here, range(len(chunks)))
        everyone = [case for chunk in chunks for case in chunk]
        chosen = partners(everyone, found, backend, config.seed)

        def scored(number: int) -> Tables:
            scores, answers = score(chunks[number], found, chosen, backend, config)
            if plan.scenes is not None:
                scores += overlap_rows(chunks[number], contents, plan.scenes, config, backend.source)
            return {"scores": scores, "answers": answers}

        _work("score", chunks, scored, here, done, contents, backend, progress)


def _work(
    stage: Stage,
    chunks: Sequence[Sequence[Case]],
    work: Callable[[int], Tables],
    here: Place,
    done: set[str],
    contents: Contents,
    backend: Interpreter,
    progress: Progress,
) -> None:
    for number, cases in enumerate(chunks):
        if chunk_name(stage, number) in done:
            continue
        if isinstance(backend, ChatBackend):
            backend.pay_for(f"{here.name}/{chunk_name(stage, number)}")
        before = backend.spent()
        if backend.needs_pictures:
            contents.load(_pictures(stage, cases))
        tables = work(number)
        write_chunk(here, stage, number, tables, len(cases), _since(before, backend.spent()))
        progress.add(1, len(cases))


def _pictures(stage: Stage, cases: Sequence[Case]) -> set[str]:
    """Samples whose pictures a chunk shows."""
    views = [
        view
        for case in cases
        for view in (
            (*case.evidence.active, *case.evidence.silent)
            if stage == "explain"
            else [trial.view for trials in case.trials.values() for trial in trials]
        )
    ]
    return {view.sample for view in views if view.modality == "image"}


def _since(before: Effort, after: Effort) -> Effort:
    return Effort(**{name: value - getattr(before, name) for name, value in asdict(after).items()})


def _frames(found: Interpretation) -> tuple[pl.DataFrame, pl.DataFrame]:
    return pl.DataFrame(pl.from_arrow(found.table("explanations"))), pl.DataFrame(pl.from_arrow(found.table("scores")))


def _write_sheet(found: Interpretation) -> None:
    write_sheet(found.place / SHEET, *_frames(found))


def _outcome(found: Interpretation, n_new: int, uri: str) -> InterpretOutcome:
    lines = summary_lines(found.table("scores"), found.table("explanations"), found.manifest.alive, found.manifest.width)
    return InterpretOutcome(found, n_new, uri, "\n".join(lines))


def _track(run: tracking.Run, outcome: InterpretOutcome) -> None:
    found = outcome.interpretation
    scores = found.table("scores")
    run.metrics(score_metrics(scores) | {f"spent_{name}": float(value) for name, value in found.manifest.spent.items()})
    run.json(asdict(found.manifest), MANIFEST)
    for name in ("explanations", "scores", "answers"):
        run.table(f"tables/{name}", found.table(name))
    for name, figure in score_figures(scores).items():
        run.figure(f"figures/{name}.png", figure)
    run.text((found.place / SHEET).read_bytes().decode(), SHEET)
    run.text(f"{outcome.summary}\n", "summary.txt")
