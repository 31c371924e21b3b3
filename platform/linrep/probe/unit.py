"""One view and layer from rows to results: gather moments, fit, choose on validation rows, score on test rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.dictionary import Encoder
from linrep.probe.fit import Candidates, TrainingRows, Trial, best, closed_forms, softmax_path, sparse_probes
from linrep.probe.latents import fit_latents
from linrep.probe.linear import Linear, stack
from linrep.probe.moments import Gatherer, Moments, merge
from linrep.probe.report import Chosen, Result, Scored, report
from linrep.probe.score import SPREAD, Tally
from linrep.probe.softmax import Rows
from linrep.probe.study import Study, Task, Unit
from linrep.store.blocks import Block, blocks, files_of
from linrep.store.commit import WrittenFile
from linrep.store.layout import MODALITIES, Modality
from linrep.store.samples import SPLITS

PARTS = 8
"""A layer's files are gathered in so many parts at most, whatever the cluster: sums in one order, and few of them."""
ROWS_PER_PART = 2**15
"""Fewer rows are not worth another worker."""

MAIN = ("class_mean", "ridge", "lda", "softmax")
"""Kinds with controls, transfers, classes and directions."""


Codes = Mapping[Modality, Int64[np.ndarray, " s"]]
"""Class number of each sample, by the modality of its rows."""


class Part(NamedTuple):
    """Some files of one modality: what one worker gathers."""

    modality: Modality
    files: tuple[WrittenFile, ...]


def parts_of(study: Study, unit: Unit) -> list[Part]:
    """The parts that a unit's moments are gathered in."""
    parts = []
    for modality in MODALITIES:
        if study.families(modality):
            rows = sum(file.rows for file in study.store.select(unit.view, unit.layer, modality).files)
            n = min(PARTS, max(1, rows // ROWS_PER_PART))
            parts += [Part(modality, files) for files in files_of(study.store, unit.view, unit.layer, modality, n)]
    return parts


def bytes_of(study: Study) -> int:
    """Bytes of all moments of a unit before they are merged, whatever its rows: what the largest unit can take."""
    d = study.store.manifest.width
    numbers = [d * d + sum(f.n_classes.values()) * (d + 1) for m in MODALITIES for f in study.families(m)]
    return 8 * PARTS * sum(numbers)


def gather_part(study: Study, unit: Unit, part: Part, device: torch.device | None = None) -> list[Moments]:
    """The moments of a part's training rows, one for each family of its modality."""
    families = study.families(part.modality)
    gatherers = [Gatherer(family.n_classes, study.store.manifest.width, device) for family in families]
    anyone = np.any([family.members for family in families], axis=0)
    for block in blocks(study.store, part.files, unit.view, anyone):
        for family, gatherer in zip(families, gatherers, strict=True):
            own = block.of(family.members[block.sample])
            if len(own.sample):
                gatherer.add(own.x, {name: codes[own.sample] for name, codes in family.columns.items()})
    return [gatherer.moments for gatherer in gatherers]


def probe_unit(
    study: Study,
    unit: Unit,
    gathered: Sequence[list[Moments]],
    device: torch.device | None = None,
    encoder: Encoder | None = None,
) -> Result:
    """All results of a unit.

    Args:
        study: What to do.
        unit: View and layer.
        gathered: What `gather_part` gave for each of `parts_of`, in their order.
        device: Where softmax regression and scoring run.
        encoder: An autoencoder of this layer, for few-latent probes; None for none.
    """
    return _Work(study, unit, gathered, device or torch.device("cpu"), encoder).result()


class _Work:
    def __init__(
        self, study: Study, unit: Unit, gathered: Sequence[list[Moments]], device: torch.device, encoder: Encoder | None
    ) -> None:
        self._study, self._unit, self._device, self._encoder = study, unit, device, encoder
        parts = parts_of(study, unit)
        self._files = {m: [file for part in parts if part.modality == m for file in part.files] for m in MODALITIES}
        self._moments: dict[tuple[Modality, str], Moments] = {}
        for m in MODALITIES:
            own = [moments for part, moments in zip(parts, gathered, strict=True) if part.modality == m]
            for i, family in enumerate(study.families(m) if own else ()):
                whole = merge(moments[i] for moments in own)
                self._moments |= {(m, column): whole for column in family.columns if whole.n}
        self._clusters = {
            name: np.unique(study.clusters[study.samples.split == i], return_inverse=True) for i, name in enumerate(SPLITS)
        }

    def result(self) -> Result:
        chosen = self._choose([self._candidates(task) for task in self._study.tasks if self._has(task)])
        return report(self._study, self._unit, self._test(chosen))

    def _has(self, task: Task) -> bool:
        return all((m, task.column) in self._moments for m in task.modalities)

    def _moments_of(self, task: Task) -> Moments:
        columns = [task.column] + ([task.control] if task.n_per_class is None else [])
        return merge(self._moments[m, task.column].only(columns) for m in task.modalities)

    def _candidates(self, task: Task) -> Candidates:
        config, moments = self._study.config, self._moments_of(task)
        found = closed_forms(task, moments, config)
        if config.softmax is None or self._unit.view not in config.softmax.views or task.n_per_class is not None:
            return found
        rows = self._training_rows(task, task.column)
        return Candidates(
            task,
            moments,
            {**found.real, "softmax": softmax_path(task, task.column, moments, rows, config, self._device)},
            found.control,
        )

    def _training_rows(self, task: Task, column: str) -> Rows:
        codes: Codes = {m: self._study.codes[m][column] for m in task.modalities}
        softmax = self._study.config.softmax
        assert softmax is not None
        return TrainingRows(lambda: self._stream("train", codes), codes, softmax.memory_gb * 1e9).load()

    def _stream(self, split: str, codes: Codes) -> Iterator[tuple[Modality, Block]]:
        inside = self._study.samples.split == SPLITS.index(split)
        for m, own in codes.items():
            for block in blocks(self._study.store, self._files[m], self._unit.view, inside & (own >= 0)):
                yield m, block

    def _choose(self, candidates: list[Candidates]) -> "list[Chosen]":
        """For each task and kind the setting that does best on validation rows, for the control too."""
        trials: dict[tuple[int, str, bool], list[Trial]] = {}
        for i, c in enumerate(candidates):
            for is_control, kinds in ((False, c.real), (True, c.control)):
                column = c.task.control if is_control else c.task.attribute
                codes: Codes = {m: self._study.codes[m][column] for m in c.task.modalities}
                for kind, probes in kinds.items():
                    trials[i, kind, is_control] = [self._trial(probe, codes, "val") for probe in probes]
        self._score([t for own in trials.values() for t in own if len(own) > 1], "val")
        chosen = []
        for i, c in enumerate(candidates):
            real = {kind: best(trials[i, kind, False]) for kind in c.real}
            control = {kind: best(trials[i, kind, True]) for kind in c.control}
            if "softmax" in real:
                control["softmax"] = self._softmax_control(c, real["softmax"])
            chosen.append(Chosen(c.task, c.moments, real, control))
        return chosen

    def _softmax_control(self, c: Candidates, like: Linear) -> Linear:
        assert self._study.config.softmax is not None
        assert like.setting is not None
        softmax = self._study.config.softmax.model_copy(update={"penalties": (like.setting,)})
        config = self._study.config.model_copy(update={"softmax": softmax})
        rows = self._training_rows(c.task, c.task.control)
        return softmax_path(c.task, c.task.control, c.moments, rows, config, self._device)[0]

    def _test(self, chosen: "list[Chosen]") -> "list[Scored]":
        study = self._study
        scored: list[Scored] = []

        def add(
            probe: Linear, task: Task, tested_on: str, names: tuple[str, ...], codes: Codes, moments: Moments, **more: Any
        ) -> None:
            trial = self._trial(probe, codes, "test", _score_range(probe, moments))
            scored.append(Scored(task, tested_on, names, trial, moments.n, **more))

        for c in chosen:
            codes: Codes = {m: study.codes[m][c.task.attribute] for m in c.task.modalities}
            shuffled: Codes = {m: study.codes[m][c.task.control] for m in c.task.modalities}
            for kind, probe in c.real.items():
                control = self._trial(c.control[kind], shuffled, "test") if kind in c.control else None
                add(probe, c.task, c.task.source, c.task.names, codes, c.moments, control=control, chosen=c)
            if c.task.n_per_class is None:
                for probe in sparse_probes(c.task, c.moments, study.config):
                    add(probe, c.task, c.task.source, c.task.names, codes, c.moments)
        for source in chosen:
            for target in chosen:
                if source.task.attribute == target.task.attribute and _may_transfer(source.task, target.task):
                    for probe, names, codes, centred in self._transfers(source, target):
                        add(probe, source.task, target.task.source, names, codes, target.moments, centred=centred)
        self._score([t for s in scored for t in (s.trial, s.control) if t is not None], "test")
        if self._encoder is not None:
            scored += [s for c in chosen if c.task.n_per_class is None for s in self._from_latents(c, self._encoder)]
        return scored

    def _from_latents(self, c: Chosen, encoder: Encoder) -> Iterator[Scored]:
        """Few-latent probes of a task, fitted and scored: rows pass through the autoencoder, so they have passes of their own."""
        codes: Codes = {m: self._study.codes[m][c.task.attribute] for m in c.task.modalities}

        def rows(split: str = "train") -> Iterator[tuple[Tensor, np.ndarray, np.ndarray]]:
            for m, block in self._stream(split, codes):
                yield block.x.float(), codes[m][block.sample], block.sample

        ks = [k for k in self._study.config.sparse if k <= encoder.n_latents]
        probes = fit_latents(lambda: ((x, y) for x, y, _ in rows()), encoder, len(c.task.names), ks)
        trials = [self._trial(p.probe, codes, "test", _score_range(p.probe, p.moments)) for p in probes]
        position = np.full(len(self._study.clusters), -1)
        position[self._study.samples.split == SPLITS.index("test")] = self._clusters["test"][1]
        for x, y, sample in rows("test"):
            latents = encoder.encode(x)
            for found, trial in zip(probes, trials, strict=True):
                scores = found.probe.scores(latents[:, found.latents]).float()
                trial.tally.add(scores, y, position[sample])
        for trial in trials:
            yield Scored(c.task, c.task.source, c.task.names, trial, c.moments.n)

    def _transfers(self, source: "Chosen", target: "Chosen") -> Iterator[tuple[Linear, tuple[str, ...], Codes, bool]]:
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
        return Trial(probe, codes, Tally(probe.n_classes, len(self._clusters[split][0]), range_of))

    def _score(self, trials: list[Trial], split: str) -> None:
        """Run the split's rows past all trials, each modality once; those that see the same rows share one product."""
        inside = self._study.samples.split == SPLITS.index(split)
        cluster = np.full(len(inside), -1)
        cluster[inside] = self._clusters[split][1]
        for m in MODALITIES:
            groups: dict[bytes, list[Trial]] = {}
            for trial in trials:
                if m in trial.codes:
                    groups.setdefault((trial.codes[m] >= 0).tobytes(), []).append(trial)
            stacked = [(own, *self._side_by_side(own)) for own in groups.values()]
            anyone = np.any([own[0].codes[m] >= 0 for own in groups.values()], axis=0) if groups else inside & False
            for block in blocks(self._study.store, self._files[m], self._unit.view, inside & anyone):
                for own, centre, weights, bias in stacked:
                    mine = block.of(own[0].codes[m][block.sample] >= 0)
                    if not len(mine.sample):
                        continue
                    scores = (mine.x.to(self._device, torch.float32) - centre) @ weights + bias
                    at = 0
                    for trial in own:
                        c = trial.probe.n_classes
                        trial.tally.add(scores[:, at : at + c], trial.codes[m][mine.sample], cluster[mine.sample])
                        at += c

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
