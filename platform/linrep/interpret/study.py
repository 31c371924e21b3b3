"""Explain some latents, then score their explanations and those of others in their place; questions run in threads."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from linrep.contents.stored import Contents
from linrep.interpret.backends import Interpreter, Said
from linrep.interpret.config import InterpretConfig
from linrep.interpret.rule import MOSTLY
from linrep.interpret.scenes import Scenes
from linrep.interpret.score import Score, mean_overlap, overlap, score_answers
from linrep.interpret.views import Case, Latent, Task, Trial, View
from linrep.sample import unit_hash
from linrep.store.layout import Modality

Control = Literal["own", "shuffled"]
Row = dict[str, object]
HUMAN = "human"


@dataclass(frozen=True)
class Explained:
    """An explanation with where it comes from.

    Attributes:
        text: None where there is none.
        source: The backend, or human.
        before: What the backend had said, where a person changed it.
        error: Why there is none.
    """

    text: str | None
    source: str
    before: str | None = None
    error: str | None = None


def explain(cases: Sequence[Case], interpreter: Interpreter, edited: Mapping[Latent, str]) -> dict[Latent, Explained]:
    """Explanations of some latents; one that a person wrote takes the place of the backend's if it differs."""
    with ThreadPoolExecutor(interpreter.parallel) as threads:
        said = list(threads.map(lambda case: interpreter.explain(case.evidence), cases))
    return {
        case.latent: _explained(one, interpreter.source, edited.get(case.latent)) for case, one in zip(cases, said, strict=True)
    }


def _explained(said: Said, source: str, written: str | None) -> Explained:
    if written is None or written == said.text:
        return Explained(said.text, source, error=said.error)
    return Explained(written, HUMAN, before=said.text)


def explanation_row(case: Case, found: Explained, parents: str) -> Row:
    """A row of the `EXPLANATIONS` contract."""
    shown = [view.modality for view in (*case.evidence.active, *case.evidence.silent)]
    return {
        **_which(case.latent),
        "explanation": found.text,
        "source": found.source,
        "before": found.before,
        "error": found.error,
        "n_shown_image": shown.count("image"),
        "n_shown_text": shown.count("text"),
        "rate_image": case.rates["image"],
        "rate_text": case.rates["text"],
        "parents": parents,
    }


def partners(
    cases: Sequence[Case], explanations: Mapping[Latent, Explained], interpreter: Interpreter, seed: int
) -> dict[tuple[Latent, Modality], Latent]:
    """For each latent and modality another latent of its SAE whose explanation is used in its place.

    It has samples of that modality too and says something else of it; else the control would be no control. All latents stand in
    a circle in a drawn order, and each takes the next one that will do, so nobody chooses.
    """
    found: dict[tuple[Latent, Modality], Latent] = {}
    circles: dict[tuple[int, str, Modality], list[Latent]] = {}
    for case in cases:
        for modality in case.modalities():
            if explanations[case.latent].text is not None:
                circles.setdefault((case.latent.layer, case.latent.sae, modality), []).append(case.latent)
    for (_, _, modality), circle in circles.items():
        circle.sort(key=lambda latent: unit_hash(str(latent.number), f"{seed}/circle"))
        for i, latent in enumerate(circle):
            own = explanations[latent].text or ""
            others = (other for other in (*circle[i + 1 :], *circle[:i]))
            partner = next((o for o in others if not interpreter.alike(own, explanations[o].text or "", modality)), None)
            if partner is not None:
                found[latent, modality] = partner
    return found


@dataclass(frozen=True)
class _TrialGroup:
    """Trials of one latent that are judged by one explanation."""

    case: Case
    modality: Modality
    task: Task
    control: Control
    explainer: Latent
    trials: tuple[Trial, ...]


def score(
    cases: Sequence[Case],
    explanations: Mapping[Latent, Explained],
    chosen: Mapping[tuple[Latent, Modality], Latent],
    interpreter: Interpreter,
    config: InterpretConfig,
) -> tuple[list[Row], list[Row]]:
    """Scores of some latents, and every answer: rows of the `SCORES` and the `ANSWERS` contracts."""
    asked: list[_TrialGroup] = []
    for case in cases:
        for (modality, task), trials in case.trials.items():
            if explanations[case.latent].text is not None:
                asked.append(_TrialGroup(case, modality, task, "own", case.latent, trials))
            partner = chosen.get((case.latent, modality))
            if partner is not None:
                asked.append(_TrialGroup(case, modality, task, "shuffled", partner, trials))
    batches = [(i, batch) for i, one in enumerate(asked) for batch in batched(one.trials, interpreter.batch)]
    with ThreadPoolExecutor(interpreter.parallel) as threads:
        said = list(
            threads.map(
                lambda b: interpreter.judge(
                    asked[b[0]].task, explanations[asked[b[0]].explainer].text or "", [t.view for t in b[1]]
                ),
                batches,
            )
        )
    answers: list[list[bool | None]] = [[] for _ in asked]
    for (i, _), own in zip(batches, said, strict=True):
        answers[i] += own
    scores = [_score_row(one, own, explanations, config) for one, own in zip(asked, answers, strict=True)]
    return scores, [row for one, own in zip(asked, answers, strict=True) for row in _answer_rows(one, own)]


def batched(trials: Sequence[Trial], n: int) -> list[Sequence[Trial]]:
    """Trials in batches of at most n; a batch never holds one sample twice."""
    found: list[list[Trial]] = [[]]
    for trial in trials:
        if len(found[-1]) == n or any(other.view.sample == trial.view.sample for other in found[-1]):
            found.append([])
        found[-1].append(trial)
    return [batch for batch in found if batch]


def to_ask(cases: Sequence[Case], n: int) -> list[list[View]]:
    """The batches of views that will be judged, once by its own explanation and once by another's."""
    return [
        [trial.view for trial in batch] for case in cases for trials in case.trials.values() for batch in batched(trials, n)
    ] * 2


def _score_row(
    one: _TrialGroup, said: Sequence[bool | None], explanations: Mapping[Latent, Explained], config: InterpretConfig
) -> Row:
    trials = one.trials
    found: Score = score_answers([t.truth for t in trials], said, [t.hard for t in trials])
    return {
        **_which(one.case.latent),
        "modality": one.modality,
        "task": one.task,
        "control": one.control,
        "partner": one.explainer.number if one.control == "shuffled" else None,
        "source": explanations[one.explainer].source,
        **vars(found),
    }


def _answer_rows(one: _TrialGroup, said: Sequence[bool | None]) -> list[Row]:
    same = {**_which(one.case.latent), "modality": one.modality, "task": one.task, "control": one.control}
    return [
        {**same, "sample_id": t.view.sample, "truth": t.truth, "hard": t.hard, "quantile": t.quantile, "said": answer}
        for t, answer in zip(one.trials, said, strict=True)
    ]


def overlap_rows(cases: Sequence[Case], contents: Contents, scenes: Scenes, config: InterpretConfig, source: str) -> list[Row]:
    """How far the patches on which latents fire are those of the objects, beside as many patches drawn anew: `SCORES` rows.

    Only patches that the store holds can be compared, so union and intersection are among these.
    """
    rows: list[Row] = []
    for case in cases:
        values: dict[str, list[float]] = {"own": [], "random": []}
        for view in case.found:
            patches = [token for token in (*view.marks, *view.quiet) if token.is_patch]
            shares = scenes.shares(view.sample, contents.boxes(view.sample, patches, scenes.size(view.sample)))
            on_object = np.array(shares) >= MOSTLY
            fires = np.arange(len(patches)) < len(view.marks)
            drawn = np.random.default_rng(int(unit_hash(view.sample, f"{config.seed}/overlap") * 2**53)).permutation(fires)
            for control, marks in (("own", fires), ("random", drawn)):
                value = overlap(marks, on_object) if scenes.size(view.sample) is not None else None
                if value is not None:
                    values[control].append(value)
        for control, found in values.items():
            mean = mean_overlap(found)
            if mean.n:
                rows.append(
                    {
                        **_which(case.latent), "modality": "image", "task": "overlap", "control": control, "source": source,
                        "value": mean.value, "low": mean.low, "high": mean.high, "n_positive": mean.n, "n_negative": 0,
                        "n_hard": 0, "n_unanswered": 0,
                    }
                )  # fmt: skip
    return rows


def _which(latent: Latent) -> Row:
    return {"layer": latent.layer, "sae": latent.sae, "latent": latent.number}
