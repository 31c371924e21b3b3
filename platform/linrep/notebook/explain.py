"""Chosen latents interpreted at once: explanations with their scores, and beside each score that of its control."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from linrep.cluster.interpret import Key, build_cases, chosen_latents
from linrep.contents.stored import Contents
from linrep.features.artefact import Features
from linrep.interpret.backends import Interpreter
from linrep.interpret.config import InterpretConfig
from linrep.interpret.scenes import Scenes
from linrep.interpret.study import Explained, Row, explain, overlap_rows, partners, score
from linrep.interpret.views import Case, Latent
from linrep.notebook.markup import number, plain, table, text
from linrep.store.read import Store
from linrep.store.tables import table_of
from schemas.interpret import SCORES

OTHERS = 6
"""Latents that are explained besides, so that each explanation has another one to be compared with."""
CONTROLS = {"detection": "shuffled", "fuzzing": "shuffled", "overlap": "random"}
"""Which control each task has."""


@dataclass(frozen=True)
class Explanations:
    """Explanations of some latents.

    Attributes:
        texts: Explanation of each, None where there is none.
        errors: Why there is none.
        scores: Rows of the `SCORES` contract, controls among them.
    """

    texts: Mapping[Latent, str | None]
    errors: Mapping[Latent, str]
    scores: pl.DataFrame = field(repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, latent: int) -> str | None:
        return next(said for own, said in self.texts.items() if own.number == latent)

    def _lines(self) -> Iterator[tuple[Latent, str, list[tuple[str, Row, Row | None]]]]:
        for latent, said in self.texts.items():
            own = self.scores.filter(
                pl.col("latent") == latent.number, pl.col("sae") == latent.sae, pl.col("layer") == latent.layer
            )
            rows = list(own.iter_rows(named=True))
            found = []
            for row in (row for row in rows if row["control"] == "own"):
                same = (row["modality"], row["task"], CONTROLS[str(row["task"])])
                control = next((r for r in rows if (r["modality"], r["task"], r["control"]) == same), None)
                found.append((f"{row['task']}, {row['modality']}", row, control))
            yield latent, said or f"no explanation: {self.errors.get(latent, 'none was given')}", found

    def __repr__(self) -> str:
        lines = []
        for latent, said, found in self._lines():
            lines.append(f"latent {latent.number} of {plain(latent.sae, 80)}, layer {latent.layer}: {plain(said)}")
            for name, own, control in found:
                beside = "no control" if control is None else f"{CONTROLS[str(own['task'])]} {number(control['value'])}"
                lines.append(f"  {name:20} {_interval(own)}, {beside}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = []
        for latent, said, found in self._lines():
            first = [str(latent.number), text(said)]
            for name, own, control in found or [("", {}, None)]:
                beside = [] if control is None else [CONTROLS[str(own["task"])], _interval(control)]
                cells = [name, _interval(own) if own else "", " ".join(beside)]
                rows.append([*first, *(f'<span style="white-space:nowrap">{text(cell)}</span>' for cell in cells)])
                first = ["", ""]
        return table(("latent", "explanation", "score", "value", "control"), rows)


def _interval(row: Mapping) -> str:
    if row["low"] is None:
        return number(row["value"])
    return f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]"


@dataclass(frozen=True)
class Panel:
    """Who is asked, and what they look at.

    Attributes:
        features: What the latents are of.
        store: Its activations.
        config: The recipe's section.
        contents: What samples look like.
        backend: Who explains and judges.
        scenes: The truth of the images, if there is one.
    """

    features: Features
    store: Store
    config: InterpretConfig
    contents: Contents
    backend: Interpreter
    scenes: Scenes | None


def explain_latents(panel: Panel, key: Key, latents: Sequence[int]) -> Explanations:
    """Explain some latents of an SAE and score the explanations; nothing is written but a chat server's replies.

    Some more latents are drawn and explained, not scored: an explanation's control is that of another latent in its place.

    Args:
        panel: Who is asked.
        key: Layer and name of the SAE.
        latents: Numbers of the latents.
    """
    drawn = chosen_latents(panel.features, panel.config.model_copy(update={"latents": OTHERS + len(latents)}))[key]
    others = [latent for latent in drawn if latent not in latents][:OTHERS]
    cases = list(build_cases(panel.features, panel.store, panel.config, {key: sorted({*latents, *others})}))
    shown = [view for case in cases for view in (*case.evidence.active, *case.evidence.silent)]
    _load(panel, [view.sample for view in shown if view.modality == "image"])
    found = explain(cases, panel.backend, {})
    chosen = partners(cases, found, panel.backend, panel.config.seed)
    asked = [case for case in cases if case.latent.number in latents]
    _load(panel, [t.view.sample for case in asked for own in case.trials.values() for t in own if t.view.modality == "image"])
    rows, _ = score(asked, found, chosen, panel.backend, panel.config)
    if panel.scenes is not None:
        rows += overlap_rows(asked, panel.contents, panel.scenes, panel.config, panel.backend.source)
    return _explanations(asked, found, rows, latents)


def _load(panel: Panel, names: Sequence[str]) -> None:
    if panel.backend.needs_images:
        panel.contents.load(set(names))


def _explanations(
    cases: Sequence[Case], found: Mapping[Latent, Explained], rows: Sequence[Row], order: Sequence[int]
) -> Explanations:
    asked = sorted((case.latent for case in cases), key=lambda latent: list(order).index(latent.number))
    errors = {latent: found[latent].error or "" for latent in asked if found[latent].error}
    frame = pl.DataFrame(pl.from_arrow(table_of(list(rows), SCORES)))
    return Explanations({latent: found[latent].text for latent in asked}, errors, frame)
