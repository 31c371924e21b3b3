"""The interpretation job from recipe to complete artefact: locked, refused early, resumed, finished and tracked."""

import sys
from dataclasses import asdict, dataclass, replace

import polars as pl

from linrep import tracking
from linrep.cluster.ask import ask, say
from linrep.cluster.interpret import build_cases
from linrep.cluster.lock import sole_driver
from linrep.cluster.plan_interpret import InterpretPlan, plan_interpret
from linrep.cluster.ready import check_services
from linrep.explorer.interpret import score_figures, score_metrics, summary_lines
from linrep.harvest.plan import located
from linrep.interpret.artefact import (
    SHEET,
    Interpretation,
    chunk_name,
    committed,
    finish,
    read_interpret_manifest,
    write_interpret_manifest,
)
from linrep.interpret.backends import Interpreter
from linrep.interpret.config import Chat, Local, Truth
from linrep.interpret.contents import Contents, StoredContents
from linrep.interpret.fetch import Pictures
from linrep.interpret.local import LocalBackend
from linrep.interpret.sheet import check_sheet, write_sheet
from linrep.interpret.study import to_ask
from linrep.interpret.talk import ChatBackend
from linrep.interpret.truth import truth_backend
from linrep.interpret.views import Latent
from linrep.places import Place, place, remove_unfinished
from linrep.recipe import Recipe
from linrep.sae.origin import origin_lines
from linrep.store.layout import MANIFEST
from linrep.store.summary import high_norm_lines
from linrep.vlm.card import describe
from linrep.vlm.prepare import Preparer

REPLIES = "replies"
"""Folder of the workspace in which answers of chat servers are kept, whichever run asked."""


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
    preparer = Preparer.from_path(model, **config.prompts, max_text_tokens=config.max_text_tokens)
    fetch = Pictures(plan.store, plan.harvest.chunks, plan.harvest.job.corpora)
    return StoredContents(plan.store.samples(), describe(model), preparer, fetch, recipe.interpret.around)


def run_interpret(recipe: Recipe, workspace: Place) -> InterpretOutcome:
    """Do what is missing of a recipe's interpretations; nothing, if they are complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    plan = plan_interpret(recipe, workspace)
    manifest = read_interpret_manifest(plan.place)
    if manifest is not None and manifest.status == "complete":
        return _outcome(plan, Interpretation(plan.place, manifest), 0, tracking.tracking_uri(workspace))
    contents = _contents(recipe, plan)
    backend = make_backend(recipe, plan, contents, workspace)
    if plan.edited:
        known = [Latent(*_key(name), latent) for name, own in plan.manifest.latents.items() for latent in own]
        check_sheet(place(recipe.interpret.edited or ""), plan.edited, known, backend)
    backend.check()
    check_services(workspace, plan.place)
    with sole_driver(plan.place):
        manifest = read_interpret_manifest(plan.place)
        if manifest is not None and manifest.status == "complete":  # another driver may have made it meanwhile
            return _outcome(plan, Interpretation(plan.place, manifest), 0, tracking.tracking_uri(workspace))
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
    with tracking.run(workspace, "interpret", name, tracking.key_of(workspace, plan.place), params, plan.manifest.parents) as run:
        run.tags({"linrep.interpretations": tracking.inside(workspace, plan.place), "linrep.digest": plan.manifest.digest})
        if todo:
            cases = list(build_cases(plan.features, plan.store, config))
            chunks = [cases[start : start + config.chunk_size] for start in range(0, len(cases), config.chunk_size)]
            say(backend.estimate([case.evidence for case in cases], to_ask(cases, backend.batch)), backend, len(done))
            ask(plan, recipe, chunks, contents, backend)
            print(f"interpret: {backend.source} took {backend.spent()}", file=sys.stderr)
        found = Interpretation(plan.place, finish(plan.place, plan.manifest))
        _write_sheet(found)
        outcome = _outcome(plan, found, todo, run.uri)
        _track(run, outcome)
    # Last, after the run is closed: a driver killed before this line does the tracking again when it resumes.
    write_interpret_manifest(plan.place, found.manifest)
    return outcome


def _frames(found: Interpretation) -> tuple[pl.DataFrame, pl.DataFrame]:
    return pl.DataFrame(pl.from_arrow(found.table("explanations"))), pl.DataFrame(pl.from_arrow(found.table("scores")))


def _write_sheet(found: Interpretation) -> None:
    write_sheet(found.place / SHEET, *_frames(found))


def _outcome(plan: InterpretPlan, found: Interpretation, n_new: int, uri: str) -> InterpretOutcome:
    lines = summary_lines(found.table("scores"), found.table("explanations"), found.manifest.alive, found.manifest.width)
    lines += high_norm_lines(plan.store.manifest, [_key(name)[0] for name in found.manifest.latents])
    lines += origin_lines(found.manifest.saes)
    notes = [f"  note: {note}" for note in found.manifest.notes]
    return InterpretOutcome(found, n_new, uri, "\n".join([*notes, *lines]))


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
