"""Candidates for one task: every probe at every setting, the control's among them, and the choice on validation rows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.probe.closed import class_means, lda, rank_coordinates, ridge, sparse
from linrep.probe.config import ProbeConfig
from linrep.probe.linear import Linear
from linrep.probe.moments import Moments
from linrep.probe.score import Tally
from linrep.probe.softmax import Rows, fit_path
from linrep.probe.study import Task
from linrep.store.blocks import Block
from linrep.store.layout import Modality

BLOCK_BYTES = 2**24
"""Training rows in memory come in blocks of this size."""


@dataclass(frozen=True)
class Candidates:
    """The probes of one task, before the choice.

    Attributes:
        task: What is learned.
        moments: Of its training rows.
        real: By kind, one probe per setting.
        control: The same, fitted to shuffled labels.
        control_task: The same, fitted to the control task; empty where there is none.
    """

    task: Task
    moments: Moments
    real: Mapping[str, list[Linear]]
    control: Mapping[str, list[Linear]] = field(default_factory=dict)
    control_task: Mapping[str, list[Linear]] = field(default_factory=dict)


def closed_forms(task: Task, moments: Moments, config: ProbeConfig) -> Candidates:
    """Every closed form of a task and of its control, at every setting; on the sample-efficiency curve ridge and class means."""
    columns = [column for column in (task.column, task.control, task.control_task) if column in moments.counts]
    # Penalties are relative to the mean variance, summed over the rows: the same grid serves every layer and every scale.
    fitted = ridge(moments, columns, [a * moments.scale * max(moments.n, 1) for a in config.alphas])

    def kinds(column: str) -> dict[str, list[Linear]]:
        own = [replace(probe, setting=alpha) for probe, alpha in zip(fitted[column], config.alphas, strict=True)]
        found = {"ridge": own, "class_mean": [class_means(moments, column)]}
        return found if task.n_per_class is not None else {**found, "lda": lda(moments, column, config.shrinkages)}

    of_types = kinds(task.control_task) if task.control_task in columns else {}
    return Candidates(task, moments, kinds(task.column), kinds(task.control), of_types)


def sparse_probes(column: str, moments: Moments, config: ProbeConfig) -> list[Linear]:
    """The few-coordinate probes of a label column."""
    order = rank_coordinates(moments, column)
    return [sparse(moments, column, k, order) for k in config.sparse if k <= moments.width]


@dataclass(frozen=True)
class TrainingRows:
    """Gives the training rows of a task again and again, centred: from memory where they fit, else from the store.

    Where a task separates modalities, of the larger one rows are left out evenly, so that there are as many of each.

    Args:
        stream: Reads them anew, by modality.
        codes: Class numbers of all samples by modality.
        sizes: Rows by modality.
        centre: What is subtracted.
        limit: Bytes that may be kept.
        device: Where they are kept.
    """

    stream: Callable[[], Iterator[tuple[Modality, Block]]]
    codes: Mapping[Modality, Int64[np.ndarray, " s"]]
    sizes: Mapping[Modality, int]
    centre: Float[Tensor, " d"]
    limit: float
    device: torch.device

    def load(self) -> Rows:
        """The rows, in blocks of vectors and class numbers."""
        n, d = min(self.sizes.values()) * len(self.sizes), len(self.centre)
        if 4 * d * n > self.limit:
            return self._read
        x, y, at = torch.empty(n, d, device=self.device), torch.empty(n, dtype=torch.int64, device=self.device), 0
        for some, own in self._read():
            x[at : at + len(own)], y[at : at + len(own)] = some, own
            at += len(own)
        assert at == n, f"{at} rows where {n} were counted"
        step = max(1, BLOCK_BYTES // (4 * d))  # many small blocks would cost more than their rows
        pieces = list(zip(x.split(step), y.split(step), strict=True))
        return lambda: iter(pieces)

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        centre, fewest = self.centre.float().to(self.device), min(self.sizes.values())
        seen = dict.fromkeys(self.sizes, 0)
        for modality, block in self.stream():
            y = self.codes[modality][block.sample]
            own, y = block.of(y >= 0), y[y >= 0]
            place = np.arange(seen[modality], seen[modality] + len(y) + 1) * fewest // max(self.sizes[modality], 1)
            seen[modality] += len(y)
            own, y = own.of(np.diff(place) > 0), y[np.diff(place) > 0]
            if len(y):
                yield own.x.to(self.device, torch.float32) - centre, torch.from_numpy(y).to(self.device)


def softmax_path(
    task: Task, column: str, moments: Moments, rows: TrainingRows, config: ProbeConfig, device: torch.device
) -> list[Linear]:
    """Softmax regressions of a task down the path of penalties."""
    assert config.softmax is not None
    s = config.softmax
    path = fit_path(rows.load(), moments, column, s.penalties, s.tolerance, s.max_iterations, device, centred=True)
    return [probe for probe, _ in path]


@dataclass
class Trial:
    """A probe that is being scored.

    Attributes:
        probe: The probe.
        codes: Class numbers of the samples whose rows it is scored on, by modality.
        tally: What was counted.
        of_rows: Class numbers of single rows, where they are not their samples'.
    """

    probe: Linear
    codes: Mapping[Modality, Int64[np.ndarray, " s"]]
    tally: Tally
    of_rows: Callable[[Modality, Block], Int64[np.ndarray, " n"]] | None = None

    def labels(self, modality: Modality, block: Block) -> Int64[np.ndarray, " n"]:
        """The class number of each row of a block."""
        return self.codes[modality][block.sample] if self.of_rows is None else self.of_rows(modality, block)


@dataclass(frozen=True)
class Choice:
    """A probe that was chosen on validation rows.

    Attributes:
        probe: The probe.
        top1: Share of the validation rows that it gets right; None where they were not read.
        edge: Which end of the settings that were tried it is: lowest or highest; None inside, or where only one was tried.
    """

    probe: Linear
    top1: float | None
    edge: str | None


def chosen(trials: list[Trial]) -> Choice:
    """The best probe, what validation rows say of it, and whether a wider range of settings might hold a better one."""
    probe = best(trials)
    settings = [trial.probe.setting for trial in trials if trial.probe.setting is not None]
    tally = next(trial.tally for trial in trials if trial.probe is probe)
    rows = float(tally.rows.sum())
    edge = None
    if len(settings) > 1 and probe.setting in (min(settings), max(settings)):
        edge = "highest" if probe.setting == max(settings) else "lowest"
    return Choice(probe, float(tally.top1.sum()) / rows if rows else None, edge)


def best(trials: list[Trial]) -> Linear:
    """The probe with the most right answers; of equals the one with the strongest penalty, whose weights the data moved least.

    Weights are directions as well: where the labels are easy, every penalty reads them, and only a strong one keeps the weights
    along the classes' means.
    """
    return max(trials, key=lambda trial: (trial.tally.top1.sum(), trial.probe.setting or 0.0)).probe
