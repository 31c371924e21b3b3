"""Counts become results: rows of tables with intervals, and directions."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from torch import Tensor

from linrep.directions import Directions, DirectionSet
from linrep.probe.closed import pattern
from linrep.probe.control_task import CLASSES
from linrep.probe.fit import Choice, Trial
from linrep.probe.linear import Linear
from linrep.probe.moments import Moments
from linrep.probe.score import bootstrap, by_class
from linrep.probe.study import Study, Task, Unit
from linrep.stats.interval import Interval
from linrep.store.apart import kept_apart
from linrep.store.layout import MODALITIES, Modality
from linrep.store.tables import table_of
from schemas.probes import PROBE_CLASSES, PROBE_CONFUSIONS, PROBE_ERASURE, PROBES

MAIN = ("class_mean", "ridge", "lda", "softmax")
"""Kinds that see all dimensions: those with transfers, classes and directions."""


@dataclass(frozen=True)
class Result:
    """What a unit found.

    Attributes:
        probes: Rows of the `PROBES` contract.
        classes: Rows of the `PROBE_CLASSES` contract.
        confusions: Rows of the `PROBE_CONFUSIONS` contract.
        directions: One vector a class, by kind; of what is erased, one a dimension.
        erasure: Rows of the `PROBE_ERASURE` contract.
    """

    probes: pa.Table
    classes: pa.Table
    confusions: pa.Table
    directions: DirectionSet
    erasure: pa.Table = field(default_factory=PROBE_ERASURE.empty_table)


@dataclass(frozen=True)
class Chosen:
    """The probes of a task after the choice, by kind."""

    task: Task
    moments: Moments
    real: Mapping[str, Linear]
    control: Mapping[str, Linear]
    choices: Mapping[str, Choice] = field(default_factory=dict)
    control_task: Mapping[str, Linear] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """A probe with what it scored, and what its like scored on shuffled labels and on the control task.

    `input` stands before its kind where it reads something else than the stream, `each` says that its classes are reported
    although it reads none of it.
    """

    task: Task
    tested_on: str
    names: tuple[str, ...]
    trial: Trial
    n_train: int
    shuffled: Trial | None = None
    control_task: Trial | None = None
    chosen: Chosen | None = None
    centred: bool = False
    input: str = ""
    each: bool = False

    @property
    def kind(self) -> str:
        """What tables call it."""
        return f"{self.input}{self.trial.probe.kind}"

    @property
    def main(self) -> bool:
        """Whether it is a probe of its own modality on all samples and all dimensions."""
        return self.chosen is not None and self.task.n_per_class is None


def report(study: Study, unit: Unit, scored: list[Scored]) -> Result:
    """The results of a unit from everything that was scored."""
    return _Report(study, unit, scored).result()


class _Report:
    """Counts become rows of tables."""

    def __init__(self, study: Study, unit: Unit, scored: list[Scored]) -> None:
        self._study, self._unit, self._scored = study, unit, scored
        self._known_apart: dict[str, dict[str, object]] = {}

    def result(self) -> Result:
        main = [s for s in self._scored if s.main]
        areas = {id(s): s.trial.tally.auroc() for s in self._scored}
        intervals = {id(s): found for s, found in self._intervals()}
        probes = [self._probe_row(s, intervals[id(s)], areas[id(s)][0]) for s in self._scored]
        classes, confusions = [], []
        for own in _together([s for s in self._scored if s.main or s.each], _labels):
            each = by_class([s.trial.tally for s in own], self._study.config.resamples, self._study.config.seed)
            for s, accuracy in zip(own, each, strict=True):
                classes += self._class_rows(s, accuracy, areas[id(s)][1])
                confusions += self._confusion_rows(s)
        return Result(
            table_of(probes, PROBES),
            table_of(classes, PROBE_CLASSES),
            table_of(confusions, PROBE_CONFUSIONS),
            DirectionSet(tuple(self._directions([s for s in main if not s.input]))),
        )

    def _intervals(self) -> Iterable[tuple[Scored, dict[str, Interval]]]:
        """Intervals of all counts, from the same draws for all probes of the same rows."""
        for own in _together(self._scored, _rows):
            hits, where = [], []
            for s in own:
                counts = {"top1": s.trial.tally.top1, "top5": s.trial.tally.top5}
                if s.shuffled is not None:
                    counts["shuffled"] = s.shuffled.tally.top1
                if s.control_task is not None:
                    counts["control_task"] = s.control_task.tally.top1
                    if self._type(s) != CLASSES:  # two labels are not as hard as all classes
                        counts["selectivity"] = counts["top1"] - counts["control_task"]
                hits += counts.values()
                where += [(s, name) for name in counts]
            lowest = [-1.0 if name == "selectivity" else 0.0 for _, name in where]
            config = self._study.config
            found = bootstrap(own[0].trial.tally.rows, hits, config.resamples, config.seed, lowest)
            by_probe: dict[int, dict[str, Interval]] = {}
            for (s, name), interval in zip(where, found, strict=True):
                by_probe.setdefault(id(s), {})[name] = interval
            yield from ((s, by_probe[id(s)]) for s in own)

    def _type(self, s: Scored) -> str | None:
        if s.control_task is None:
            return None
        (modality,) = s.task.modalities
        return self._study.control_tasks.kind_of(self._unit.view, modality)

    def _where(self, s: Scored) -> dict[str, object]:
        return {
            "attribute": s.task.attribute,
            "view": self._unit.view,
            "layer": self._unit.layer,
            "kind": s.kind,
            "tested_on": s.tested_on,
        }

    def _probe_row(self, s: Scored, intervals: dict[str, Interval], auroc: Interval) -> dict[str, object]:
        tally, notes, is_sparse = s.trial.tally, s.trial.probe.notes, s.trial.probe.kind in ("sparse", "latents")
        row: dict[str, object] = {
            **self._where(s),
            "fitted_on": s.task.source,
            "centred": s.centred,
            "n_per_class": s.task.n_per_class,
            "k": int(s.trial.probe.setting or 0) if is_sparse else None,
            "n_coordinates": int(notes["coordinates"]) if "coordinates" in notes else None,
            "setting": None if is_sparse else s.trial.probe.setting,
            "n_classes": len(s.names),
            "n_train": s.n_train,
            "n_test": tally.n_rows,
            "n_test_samples": tally.n_clusters,
            "chance": tally.chance,
            "control_type": self._type(s),
            **self._apart(s.tested_on),
        }
        for name, interval in {**intervals, "balanced": tally.balanced(), "auroc": auroc}.items():
            row |= {name: _finite(interval.value), f"{name}_low": _finite(interval.low), f"{name}_high": _finite(interval.high)}
        choice = s.chosen.choices.get(s.trial.probe.kind) if s.chosen is not None else None
        if choice is not None:
            row |= {"validation": choice.top1, "setting_edge": choice.edge}
        if "gradient" in notes:
            row |= {"gradient": notes["gradient"], "evaluations": int(notes["evaluations"])}
            row["converged"] = bool(notes["converged"])
        return row

    def _apart(self, tested_on: str) -> dict[str, object]:
        if tested_on not in self._known_apart:
            modalities: list[Modality] = [m for m in MODALITIES if tested_on in (m, "both")]
            found = kept_apart(self._study.store, self._unit.view, self._unit.layer, modalities)
            self._known_apart[tested_on] = found.columns()
        return self._known_apart[tested_on]

    def _class_rows(self, s: Scored, accuracy: list[Interval], areas: Float[np.ndarray, " c"]) -> Iterator[dict[str, object]]:
        for c, name in enumerate(s.names):
            yield {
                **self._where(s),
                "class_name": name,
                "n_test": int(s.trial.tally.confusion[c].sum()),
                "accuracy": _finite(accuracy[c].value),
                "accuracy_low": _finite(accuracy[c].low),
                "accuracy_high": _finite(accuracy[c].high),
                "auroc": _finite(float(areas[c])),
            }

    def _confusion_rows(self, s: Scored) -> Iterator[dict[str, object]]:
        confusion = s.trial.tally.confusion
        for i, j in zip(*np.nonzero(confusion), strict=True):
            yield {**self._where(s), "class_name": s.names[i], "predicted": s.names[j], "n": int(confusion[i, j])}

    def _directions(self, main: list[Scored]) -> Iterator[Directions]:
        for s in main:
            assert s.chosen is not None
            moments = s.chosen.moments
            where = {"layer": self._unit.layer, "view": self._unit.view, "modality": s.task.source}
            more = {"attribute": s.task.attribute, "names": s.names, "token_norm": moments.norm / max(moments.n, 1)}

            def made(kind: str, vectors: Tensor, where: dict = where, more: dict = more) -> Directions:
                return Directions(kind=kind, vectors=vectors.float(), **where, **more)

            if s.trial.probe.kind == "class_mean":
                yield made("class_mean", moments.mean + moments.between(s.task.column))
                yield made("shuffled_mean", moments.mean + moments.between(s.task.control))
            else:
                yield made(s.trial.probe.kind, s.trial.probe.weights.T.contiguous())
            if s.trial.probe.kind == "ridge":
                yield made("ridge_pattern", pattern(moments, s.trial.probe))


def _together(scored: list[Scored], key: Callable[[Scored], Hashable]) -> list[list[Scored]]:
    groups: dict[Hashable, list[Scored]] = {}
    for s in scored:
        groups.setdefault(key(s), []).append(s)
    return list(groups.values())


def _rows(s: Scored) -> Hashable:
    """The rows that a probe was scored on: probes of the same rows share their draws."""
    return tuple((m, (codes >= 0).tobytes()) for m, codes in s.trial.codes.items())


def _labels(s: Scored) -> Hashable:
    """The rows with their classes: two attributes of the same rows have different ones, however many."""
    return tuple((m, codes.tobytes()) for m, codes in s.trial.codes.items())


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
