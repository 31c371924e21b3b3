"""Candidates for one task: every probe at every setting, the control's among them, and the choice on validation rows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Int64
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


@dataclass(frozen=True)
class Candidates:
    """The probes of one task, before the choice.

    Attributes:
        task: What is learned.
        moments: Of its training rows.
        real: By kind, one probe per setting.
        control: The same, fitted to shuffled labels.
    """

    task: Task
    moments: Moments
    real: Mapping[str, list[Linear]]
    control: Mapping[str, list[Linear]] = field(default_factory=dict)


def closed_forms(task: Task, moments: Moments, config: ProbeConfig) -> Candidates:
    """Every closed form of a task, at every setting; on the sample-efficiency curve ridge and class means, without control."""
    on_curve = task.n_per_class is not None
    columns = [task.column] if on_curve else [task.column, task.control]
    # Penalties are relative to the mean variance, summed over the rows: the same grid serves every layer and every scale.
    fitted = ridge(moments, columns, [a * moments.scale * max(moments.n, 1) for a in config.alphas])

    def kinds(column: str) -> dict[str, list[Linear]]:
        own = [replace(probe, setting=alpha) for probe, alpha in zip(fitted[column], config.alphas, strict=True)]
        found = {"ridge": own, "class_mean": [class_means(moments, column)]}
        return found if on_curve else {**found, "lda": lda(moments, column, config.shrinkages)}

    return Candidates(task, moments, kinds(task.column), {} if on_curve else kinds(task.control))


def sparse_probes(task: Task, moments: Moments, config: ProbeConfig) -> list[Linear]:
    """The few-coordinate probes of a task."""
    order = rank_coordinates(moments, task.column)
    return [sparse(moments, task.column, k, order) for k in config.sparse if k <= moments.width]


@dataclass(frozen=True)
class TrainingRows:
    """Gives the training rows of a task again and again: from memory where they fit, else from the store.

    Args:
        stream: Reads them anew, by modality.
        codes: Class numbers of all samples by modality.
        limit: Bytes that may be kept.
    """

    stream: Callable[[], Iterator[tuple[Modality, Block]]]
    codes: Mapping[Modality, Int64[np.ndarray, " s"]]
    limit: float

    def load(self) -> Rows:
        """The rows, in blocks of vectors and class numbers."""
        kept: list[tuple[Tensor, Tensor]] | None = []
        size = 0
        for x, y in self._read():
            size += x.nbytes
            if size > self.limit:
                kept = None
                break
            kept.append((x, y))
        return self._read if kept is None else lambda: iter(kept)

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        for modality, block in self.stream():
            y = self.codes[modality][block.sample]
            own = block.of(y >= 0)
            if len(own.sample):
                yield own.x.float(), torch.from_numpy(y[y >= 0])


def softmax_path(
    task: Task, column: str, moments: Moments, rows: Rows, config: ProbeConfig, device: torch.device
) -> list[Linear]:
    """Softmax regressions of a task down the path of penalties."""
    assert config.softmax is not None
    s = config.softmax
    return [probe for probe, _ in fit_path(rows, moments, column, s.penalties, s.tolerance, s.max_iterations, device)]


@dataclass
class Trial:
    """A probe that is being scored.

    Attributes:
        probe: The probe.
        codes: Class numbers of the samples whose rows it is scored on, by modality.
        tally: What was counted.
    """

    probe: Linear
    codes: Mapping[Modality, Int64[np.ndarray, " s"]]
    tally: Tally


def best(trials: list[Trial]) -> Linear:
    """The probe with the most right answers; of equals the one with the strongest penalty, whose weights the data moved least.

    Weights are directions as well: where the labels are easy, every penalty reads them, and only a strong one keeps the weights
    along the classes' means.
    """
    return max(trials, key=lambda trial: (trial.tally.top1.sum(), trial.probe.setting or 0.0)).probe
