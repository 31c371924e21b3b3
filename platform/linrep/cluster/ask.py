"""Chunk after chunk is explained, then scored: each written whole, with what it took, and none asked twice."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from linrep.cluster.plan_interpret import InterpretPlan
from linrep.cluster.progress import Progress
from linrep.interpret.artefact import Stage, chunk_name, committed, read_explained, write_chunk
from linrep.interpret.backends import Effort, Interpreter
from linrep.interpret.contents import Contents
from linrep.interpret.study import explain, explanation_row, overlap_rows, partners, score
from linrep.interpret.talk import ChatBackend
from linrep.interpret.views import Case
from linrep.places import Place
from linrep.recipe import Recipe

Tables = dict[str, list[dict[str, object]]]


def say(effort: Effort, backend: Interpreter, n_done: int) -> None:
    """Say what is to come, where it costs calls."""
    rest = " (some of it is done already)" if n_done else ""
    if effort.calls:
        print(f"interpret: {backend.source} will take about {effort}{rest}", file=sys.stderr)


def ask(plan: InterpretPlan, recipe: Recipe, chunks: Sequence[Sequence[Case]], contents: Contents, backend: Interpreter) -> None:
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
