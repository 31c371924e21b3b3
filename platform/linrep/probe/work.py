"""The probes of a unit on one kind of rows, the residual stream or latents of it: fitted, chosen on validation rows, tested."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.probe.fit import Candidates, TrainingRows, Trial, best, chosen, closed_forms, softmax_path, sparse_probes
from linrep.probe.linear import Linear, stack
from linrep.probe.moments import Moments, merge
from linrep.probe.report import MAIN, Chosen, Scored
from linrep.probe.rows import Rows
from linrep.probe.score import SPREAD, Tally
from linrep.probe.study import CONTROL_TASK, SHUFFLED, Study, Task, Unit
from linrep.store.blocks import Block
from linrep.store.layout import MODALITIES, Modality
from linrep.store.samples import SPLITS

SCORE_BYTES = 2**26
"""Scores of all probes are held for as many rows as this has room for."""

Codes = Mapping[Modality, Int64[np.ndarray, " s"]]
"""Class number of each sample, by the modality of its rows."""


class Clusters:
    """What the bootstrap draws, in each split: a number for each sample, -1 outside of the split.

    Args:
        study: What is done.
        mixed: Whether one cluster has samples of several classes, as groups of an image's patches are.
    """

    def __init__(self, study: Study, mixed: bool = False) -> None:
        self.mixed = mixed
        is_text = np.array([role == "text" for role in study.samples.role], np.int64)
        self._of: dict[str, Int64[np.ndarray, " s"]] = {}
        self._modality: dict[str, Int64[np.ndarray, " n"]] = {}
        for i, split in enumerate(SPLITS):
            inside = study.samples.split == i
            drawn, number = np.unique(study.clusters[inside], return_inverse=True)
            self._of[split] = np.full(len(inside), -1)
            self._of[split][inside] = number
            self._modality[split] = np.zeros(len(drawn), np.int64)
            self._modality[split][number] = is_text[inside]

    def of(self, split: str) -> Int64[np.ndarray, " s"]:
        """The cluster of each sample."""
        return self._of[split]

    def modality(self, split: str) -> Int64[np.ndarray, " n"]:
        """Number of the modality that each cluster is of: none has both."""
        return self._modality[split]

    def n(self, split: str) -> int:
        """How many there are."""
        return len(self._modality[split])


class Work:
    """Fits and scores.

    Args:
        study: What to do.
        unit: View and layer.
        tasks: What to learn.
        rows: What from.
        moments: Of the training rows, by modality and label column.
        device: Where softmax regression and scoring run.
        clusters: What the bootstrap draws.
        row_types: Whether rows say of which type they are, where that is not their samples'.
    """

    def __init__(
        self,
        study: Study,
        unit: Unit,
        tasks: Sequence[Task],
        rows: Rows,
        moments: Mapping[tuple[Modality, str], Moments],
        device: torch.device,
        clusters: Clusters,
        row_types: bool = True,
    ) -> None:
        self._row_types = row_types
        self._study, self._unit, self._rows, self._moments = study, unit, rows, moments
        self._tasks = [task for task in tasks if all((m, task.column) in moments for m in task.modalities)]
        self._device, self._clusters = device, clusters

    def scored(self) -> list[Scored]:
        """Every probe with what it scored on the test rows."""
        return self._test(self._choose([self._candidates(task) for task in self._tasks]))

    def _moments_of(self, task: Task) -> Moments:
        """The moments of a task's training rows; where it separates modalities, each weighs as much as the smaller one."""
        columns = [task.column, task.control, *([task.control_task] if self._has_control_task(task) else [])]
        parts = [self._moments[m, task.column].only(columns) for m in task.modalities]
        fewest = min(part.n for part in parts)
        return merge(part.weighing(fewest) for part in parts)

    def _by_row(self, task: Task) -> bool:
        """Whether the control task has labels of single rows."""
        return any(self._study.control_tasks.row_columns(self._unit.view, m) for m in task.modalities)

    def _has_control_task(self, task: Task) -> bool:
        there = all((m, task.control_task) in self._moments for m in task.modalities)
        return there and (self._row_types or not self._by_row(task))

    def _candidates(self, task: Task) -> Candidates:
        config, moments = self._study.config, self._moments_of(task)
        found = closed_forms(task, moments, config)
        if config.softmax is None or self._unit.view not in config.softmax.views or task.n_per_class is not None:
            return found
        rows = self._training_rows(task, task.column, moments)
        softmax = softmax_path(task, task.column, moments, rows, config, self._device)
        return replace(found, real={**found.real, "softmax": softmax})

    def _training_rows(self, task: Task, column: str, moments: Moments) -> TrainingRows:
        codes: Codes = {m: self._study.codes[m][column] for m in task.modalities}
        sizes: Mapping[Modality, int] = {m: self._moments[m, task.column].n for m in task.modalities}
        softmax = self._study.config.softmax
        assert softmax is not None
        return TrainingRows(
            lambda: self._stream("train", codes), codes, sizes, moments.mean, softmax.memory_gb * 1e9, self._device
        )

    def _stream(self, split: str, codes: Codes) -> Iterator[tuple[Modality, Block]]:
        inside = self._study.samples.split == SPLITS.index(split)
        for m, own in codes.items():
            for block in self._rows.blocks(m, inside & (own >= 0)):
                yield m, block

    def _codes(self, task: Task, column: str) -> Codes:
        """Labels to score against; those of the sample-efficiency curve are the whole attribute's."""
        return {m: self._study.codes[m][column] for m in task.modalities}

    def _choose(self, candidates: list[Candidates]) -> list[Chosen]:
        """For each task and kind the setting that does best on validation rows, for the control too."""
        trials: dict[tuple[int, str, str], list[Trial]] = {}
        for i, c in enumerate(candidates):
            for labels, kinds in (("", c.real), (SHUFFLED, c.control), (CONTROL_TASK, c.control_task)):
                for kind, probes in kinds.items():
                    trials[i, kind, labels] = [self._trial_on(c.task, labels, probe, "val") for probe in probes]
        # Of a kind with one setting there is nothing to choose, but kinds and layers are compared on validation rows, too.
        self._score([t for (_, _, labels), own in trials.items() for t in own if len(own) > 1 or not labels], "val")
        found = []
        for i, c in enumerate(candidates):
            choices = {kind: chosen(trials[i, kind, ""]) for kind in c.real}
            real = {kind: choice.probe for kind, choice in choices.items()}
            control = {kind: best(trials[i, kind, SHUFFLED]) for kind in c.control}
            of_types = {kind: best(trials[i, kind, CONTROL_TASK]) for kind in c.control_task}
            if "softmax" in real:
                control["softmax"] = self._softmax_control(c, c.task.control, real["softmax"])
                if c.control_task and not self._by_row(c.task):
                    of_types["softmax"] = self._softmax_control(c, c.task.control_task, real["softmax"])
            found.append(Chosen(c.task, c.moments, real, control, choices, of_types))
        return found

    def _trial_on(self, task: Task, labels: str, probe: Linear, split: str) -> Trial:
        """A probe that will be scored against a task's labels: its own, shuffled ones, or those of its control task."""
        column = f"{task.attribute}{labels}"
        trial, tasks = self._trial(probe, self._codes(task, column), split), self._study.control_tasks
        if labels == CONTROL_TASK and self._by_row(task):
            view, codes = self._unit.view, trial.codes
            trial.of_rows = lambda m, block: tasks.codes(view, m, column, codes[m], block)
        return trial

    def _softmax_control(self, c: Candidates, column: str, like: Linear) -> Linear:
        assert self._study.config.softmax is not None
        assert like.setting is not None
        softmax = self._study.config.softmax.model_copy(update={"penalties": (like.setting,)})
        config = self._study.config.model_copy(update={"softmax": softmax})
        rows = self._training_rows(c.task, column, c.moments)
        return softmax_path(c.task, column, c.moments, rows, config, self._device)[0]

    def _test(self, chosen: list[Chosen]) -> list[Scored]:
        scored: list[Scored] = []

        def add(
            probe: Linear, task: Task, tested_on: str, names: tuple[str, ...], codes: Codes, moments: Moments, **more: Any
        ) -> None:
            trial = self._trial(probe, codes, "test", _score_range(probe, moments))
            scored.append(Scored(task, tested_on, names, trial, moments.n, **more))

        for c in chosen:
            task, codes = c.task, self._codes(c.task, c.task.attribute)

            def beside(shuffled: Linear, of_types: Linear | None, task: Task = task) -> dict[str, Trial | None]:
                third = None if of_types is None else self._trial_on(task, CONTROL_TASK, of_types, "test")
                return {"shuffled": self._trial_on(task, SHUFFLED, shuffled, "test"), "control_task": third}

            for kind, probe in c.real.items():
                more = beside(c.control[kind], c.control_task.get(kind))
                add(probe, task, task.source, task.names, codes, c.moments, chosen=c, **more)
            if task.n_per_class is None:
                few, dealt = (sparse_probes(column, c.moments, self._study.config) for column in (task.column, task.control))
                has = task.control_task in c.moments.counts
                of_types = sparse_probes(task.control_task, c.moments, self._study.config) if has else [None] * len(few)
                for probe, other, third in zip(few, dealt, of_types, strict=True):
                    add(probe, task, task.source, task.names, codes, c.moments, **beside(other, third))
        for source in chosen:
            for target in chosen:
                if source.task.attribute == target.task.attribute and _may_transfer(source.task, target.task):
                    for probe, names, codes, centred in self._transfers(source, target):
                        add(probe, source.task, target.task.source, names, codes, target.moments, centred=centred)
        self._score([t for s in scored for t in (s.trial, s.shuffled, s.control_task) if t is not None], "test")
        return scored

    def _transfers(self, source: Chosen, target: Chosen) -> Iterator[tuple[Linear, tuple[str, ...], Codes, bool]]:
        """The probes of one modality as they are, and centred, for the rows of another, over the classes of both."""
        common = tuple(name for name in source.task.names if name in target.task.names)
        if len(common) < 2:
            return
        number = np.array([common.index(name) if name in common else -1 for name in target.task.names])
        own = self._study.codes[target.task.modalities[0]][target.task.column]
        codes: Codes = {target.task.modalities[0]: np.where(own >= 0, number[own], -1)}
        columns = torch.tensor([source.task.names.index(name) for name in common])
        for kind in MAIN:
            if kind in source.real:
                p = source.real[kind]
                taken = Linear(p.kind, p.centre, p.weights[:, columns], p.bias[columns], p.setting)
                yield taken, common, codes, False
                yield taken.moved(target.moments.mean), common, codes, True

    def _trial(self, probe: Linear, codes: Codes, split: str, range_of: Tensor | None = None) -> Trial:
        clusters = self._clusters
        return Trial(probe, codes, Tally(probe.n_classes, clusters.n(split), range_of, clusters.mixed and range_of is not None))

    def _score(self, trials: list[Trial], split: str) -> None:
        """Run the split's rows past all trials, each modality once; those that see the same rows share one product."""
        inside = self._study.samples.split == SPLITS.index(split)
        cluster = self._clusters.of(split)
        for m in MODALITIES:
            groups: dict[bytes, list[Trial]] = {}
            for trial in trials:
                if m in trial.codes:
                    groups.setdefault((inside & (trial.codes[m] >= 0)).tobytes(), []).append(trial)
            stacked = [(own, *self._side_by_side(own)) for own in groups.values()]
            anyone = np.any([own[0].codes[m] >= 0 for own in groups.values()], axis=0) if groups else inside & False
            for block in self._rows.blocks(m, inside & anyone):
                for own, centre, weights, bias in stacked:
                    mine = block.of(own[0].codes[m][block.sample] >= 0)
                    labels = [trial.labels(m, mine) for trial in own]
                    step = max(1, SCORE_BYTES // (4 * len(bias)))
                    for start in range(0, len(mine.sample), step):
                        x, sample = mine.x[start : start + step], mine.sample[start : start + step]
                        scores = (x.to(self._device, torch.float32) - centre) @ weights + bias
                        sizes = [trial.probe.n_classes for trial in own]
                        for trial, y, columns in zip(own, labels, scores.split(sizes, dim=1), strict=True):
                            trial.tally.add(columns, y[start : start + step], cluster[sample])
        for trial in trials:
            if len(trial.codes) > 1:
                trial.tally.level(self._clusters.modality(split))

    def _side_by_side(self, trials: list[Trial]) -> tuple[Tensor, Tensor, Tensor]:
        centre = trials[0].probe.centre
        rounded = centre.float()
        weights, bias = stack([trial.probe for trial in trials], rounded.double())
        return rounded.to(self._device), weights.to(self._device), bias.to(self._device)


def _may_transfer(source: Task, target: Task) -> bool:
    own = source.n_per_class is None and target.n_per_class is None
    return own and source.source != target.source and "both" not in (source.source, target.source)


def _score_range(probe: Linear, moments: Moments) -> Float[Tensor, "2 c"]:
    """Where the scores of the rows lie, from their moments: mean plus or minus `SPREAD` deviations."""
    mean = (moments.mean - probe.centre) @ probe.weights + probe.bias
    variance = ((moments.scatter / max(moments.n, 1)) @ probe.weights * probe.weights).sum(0).clamp(min=0)
    spread = SPREAD * variance.sqrt().clamp(min=1e-12)
    return torch.stack([mean - spread, mean + spread]).float()
