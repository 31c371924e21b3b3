"""Chunk after chunk is explained, then scored: each written whole, with what it took, and none asked twice."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from linrep.contents.stored import Contents
from linrep.interpret.artefact import Interpretations, read_explained, units_of, write_unit
from linrep.interpret.backends import Effort, Interpreter
from linrep.interpret.config import InterpretConfig
from linrep.interpret.scenes import Scenes
from linrep.interpret.study import Explained, Row, explain, explanation_row, overlap_rows, partners, score, to_ask
from linrep.interpret.talk import ChatBackend
from linrep.interpret.views import Case, Latent, View
from linrep.kind import UnitCommit
from linrep.store.layout import Modality

Tables = dict[str, list[Row]]
Explanations = Mapping[Latent, Explained]
Partners = Mapping[tuple[Latent, Modality], Latent]


@dataclass(frozen=True)
class Interview:
    """Who is asked, and about what.

    Attributes:
        config: The recipe's section.
        contents: What samples look like and say.
        backend: Who explains and scores.
        scenes: The truth of the images, if there is one.
        edited: Explanations by people.
    """

    config: InterpretConfig
    contents: Contents
    backend: Interpreter
    scenes: Scenes | None
    edited: Mapping[Latent, str]


def ask(here: Interpretations, cases: Sequence[Case], todo: Sequence[str], interview: Interview) -> Iterator[UnitCommit]:
    """Explain every chunk, then score every chunk: another latent's explanation may come from any.

    Args:
        here: The artefact.
        cases: All latents, with what is asked about them.
        todo: Units that are not committed yet.
        interview: Who is asked.

    Raises:
        LinrepError: The estimate is above the budget, or the backend no longer answers.
    """
    backend, size = interview.backend, interview.config.chunk_size
    chunks = [cases[start : start + size] for start in range(0, len(cases), size)]
    effort = backend.estimate([case.evidence for case in cases], to_ask(cases, backend.batch))
    if effort.calls:
        rest = " (some of it is done already)" if len(todo) < len(here.manifest.units) else ""
        print(f"interpret: {backend.source} will take about {effort}{rest}", file=sys.stderr)
    for unit, chunk in zip(units_of(here, "explain"), chunks, strict=True):
        if unit in todo:
            views = [view for case in chunk for view in (*case.evidence.active, *case.evidence.silent)]
            yield _work(here, unit, chunk, views, interview, partial(_explained, here, chunk, interview))
    found = read_explained(here)
    chosen = partners(cases, found, backend, interview.config.seed)
    for unit, chunk in zip(units_of(here, "score"), chunks, strict=True):
        if unit in todo:
            views = [trial.view for case in chunk for trials in case.trials.values() for trial in trials]
            yield _work(here, unit, chunk, views, interview, partial(_scored, chunk, found, chosen, interview))
    print(f"interpret: {backend.source} took {backend.spent()}", file=sys.stderr)


def _explained(here: Interpretations, cases: Sequence[Case], interview: Interview) -> Tables:
    found = explain(cases, interview.backend, interview.edited)
    parents = here.manifest.parents["features"]
    return {"explanations": [explanation_row(case, found[case.latent], parents) for case in cases]}


def _scored(cases: Sequence[Case], found: Explanations, chosen: Partners, interview: Interview) -> Tables:
    config, backend = interview.config, interview.backend
    scores, answers = score(cases, found, chosen, backend, config)
    if interview.scenes is not None:
        scores += overlap_rows(cases, interview.contents, interview.scenes, config, backend.source)
    return {"scores": scores, "answers": answers}


def _work(
    here: Interpretations,
    unit: str,
    cases: Sequence[Case],
    views: Sequence[View],
    interview: Interview,
    work: Callable[[], Tables],
) -> UnitCommit:
    started, backend = time.monotonic(), interview.backend
    if isinstance(backend, ChatBackend):
        backend.pay_for(f"{here.name}/{unit}")
    before = backend.spent()
    if backend.needs_images:
        interview.contents.load({view.sample for view in views if view.modality == "image"})
    tables = work()
    return write_unit(here, unit, tables, time.monotonic() - started, len(cases), _since(before, backend.spent()))


def _since(before: Effort, after: Effort) -> Effort:
    return Effort(**{name: value - getattr(before, name) for name, value in asdict(after).items()})
