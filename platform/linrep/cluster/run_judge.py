"""What a judge says of the answers of edited runs, and what it comes to; the second half of a steering job."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from linrep import tracking
from linrep.cluster.commands import read_parquet
from linrep.cluster.stage import Counts, Records, Shown
from linrep.explorer.dose import dose_figure, edits_figure, harm_figure, interchange_figure, layer_figure, trade_figure
from linrep.explorer.steering import steer_headline
from linrep.kind import UnitCommit
from linrep.sae.origin import origin_lines
from linrep.steer.artefact import Judged, Steering, plan_verdicts
from linrep.steer.config import INTERCHANGE, SteerConfig
from linrep.steer.effects import effects, judge_answers, matched
from linrep.steer.judges.readable import Readable, readable
from linrep.steer.judges.verdict import JobJudge
from linrep.steer.plan import SteerPlan
from linrep.steer.summary import CHOSEN_BY, summary
from linrep.store.tables import write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DAMAGE = ("damage", "damage: rise of the loss, nats a token")
EFFECT_MEASURES = (*reversed(CHOSEN_BY.items()), _DAMAGE)
EDIT_MEASURES = (("p_target", "probability of the target"), ("left", "share of answers that leave their class"), _DAMAGE)


@dataclass(frozen=True)
class VerdictStage:
    """Verdicts on the answers, effects with their intervals, and efficacies at equal damage.

    Attributes:
        artefact: The verdicts.
        steering: The edited runs.
        config: The recipe's section.
        judge: Who reads the answers.
        kept_apart: What the harvest kept out of the directions, in lines.
    """

    artefact: Judged
    steering: Steering
    config: SteerConfig
    judge: JobJudge
    kept_apart: tuple[str, ...]
    counts = Counts("answers", "answers")
    on_ray = False

    @classmethod
    def planned(cls, plan: SteerPlan, config: SteerConfig, judge: JobJudge) -> "VerdictStage":
        """Of edited runs that are planned."""
        return cls(plan_verdicts(plan.artefact, config), plan.artefact, config, judge, plan.kept_apart)

    def on(self, steering: Steering) -> "VerdictStage":
        """The same of the edited runs as they lie on disk."""
        return replace(self, steering=steering)

    def of(self, artefact: Judged) -> "VerdictStage":
        """The same stage of the artefact as it lies on disk."""
        return replace(self, artefact=artefact)

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit]:
        """Nothing: all answers are judged at once, see `finish`."""
        yield from ()

    def finish(self) -> dict[str, object]:
        """Judge the answers, and write verdicts and effects."""
        source = self.judge.source  # before the judge reads: what changes after that is read by the next run
        cells, answers, damage = (self.steering.table(name) for name in ("cells", "answers", "damage"))
        verdicts = judge_answers(answers, cells, self.config, self.judge)
        tables = {
            "verdicts": verdicts,
            "effects": effects(cells, verdicts, damage, self.config),
            "matched": matched(cells, damage, self.config),
        }
        for name, table in tables.items():
            write_table(self.artefact.place, f"{name}.parquet", table)
        return {"source": source, "extra": json.loads(json.dumps(self.judge.extra))}

    def show(self) -> Shown:
        """The edit with the best trade, and every direction at every layer beside its control."""
        shown, found, at_damage = (self.artefact.table(name) for name in ("effects", "verdicts", "matched"))
        extra, cells = self.artefact.about.extra, self.steering.table("cells")
        lines = summary(self.steering, cells, shown, at_damage, extra, _readable(self.config, found))
        return Shown(
            headline=steer_headline(shown, found),
            lines=[*lines, *self.kept_apart, *origin_lines(self.steering.manifest.saes)],
            next=[("read", read_parquet(self.artefact.place / "effects.parquet"))],
            waiting=self.judge.waiting,
        )

    def records(self) -> Records:
        """Curves over layers, tables and figures."""
        shown, extra = self.artefact.table("effects"), self.artefact.about.extra
        return Records(
            metrics=metrics(shown),
            tables={name: self.artefact.table(name) for name in self.artefact.kind.whole},
            figures=_figures(shown),
            texts={"judge.json": json.dumps(extra, indent=2)} if extra else {},
        )


def readable_answers(config: SteerConfig, answers: pa.Table, cells: pa.Table, judge: JobJudge) -> Readable:
    """How many unedited answers a judge can read.

    Args:
        config: The recipe's section.
        answers: Of schema `ANSWERS`.
        cells: Of schema `CELLS`.
        judge: Who reads them.
    """
    return _readable(config, judge_answers(answers, cells, config, judge))


def _readable(config: SteerConfig, verdicts: pa.Table) -> Readable:
    questions = [question.prompt.replace("<image>", "").strip() for question in config.ask.questions]
    return readable(config.judge.kind, verdicts.to_pylist(), questions)


def _figures(shown: pa.Table) -> "dict[str, Figure]":
    found: dict[str, Figure] = {}
    measures = set(shown["measure"].to_pylist())
    sites = list(dict.fromkeys(site for site in shown["site"].to_pylist() if site is not None))
    trade = trade_figure(shown) if "damage" in measures else None
    if trade is not None:
        found["trade"] = trade
    for measure, meaning in EFFECT_MEASURES:
        if measure in measures:
            found[f"layers_{measure}"] = layer_figure(shown, measure, meaning)
            found |= {f"dose_{measure}_{site}": dose_figure(shown, measure, meaning, site) for site in sites}
    exchanged = interchange_figure(shown)
    if exchanged is not None:
        found[INTERCHANGE] = exchanged
    if any(edit not in ("none", "add", INTERCHANGE) for edit in shown["edit"].to_pylist()):
        for measure, meaning in EDIT_MEASURES:
            if measure in measures:
                found[f"edits_{measure}"] = edits_figure(shown, measure, meaning)
    if "damage" in measures:
        found |= {f"harm_{site}": harm_figure(shown, site) for site in sites}
    return found


def metrics(shown: pa.Table) -> Mapping[str, Mapping[int, float]]:
    """The effects at the largest strength as curves over layers, by measure, direction and site; successes first.

    Interchanges follow, by measure and donor.
    """
    measures = ("success", "turned", "p_target", "damage")
    every = [row for row in shown.to_pylist() if row["measure"] in measures]
    rows = [row for row in every if row["edit"] == "add"]
    rows.sort(key=lambda row: measures.index(row["measure"]))
    strongest = max((row["strength"] for row in rows), default=0.0)
    curves: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["strength"] == strongest:
            curves.setdefault(f"{row['measure']}/{row['direction']}_{row['site']}", {})[row["layer"]] = row["value"]
    for row in every:
        if row["edit"] == INTERCHANGE:
            curves.setdefault(f"{row['measure']}/{INTERCHANGE}_{row['direction']}", {})[row["layer"]] = row["value"]
    return curves
