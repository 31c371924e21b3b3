"""Control tasks: labels that are a fixed random function of a type that recurs in training and test rows.

Labels dealt out anew cannot be predicted on held-out samples by any probe. A random function of a type can be, by a probe that
tells types apart: what it reads is how much this probe finds in any labels at all. Types are the word for single text tokens, the
place of the patch for single image tokens without attributes, else class and attributes together; without any, the class.

Source: Hewitt & Liang, "Designing and Interpreting Probes with Control Tasks", 2019.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from linrep.probe.groups import PLACE
from linrep.sample import unit_hash
from linrep.store.blocks import Block
from linrep.store.layout import Modality

TOKEN = ("token_id",)
"""Column of the store that names the word of a text token."""
CLASSES, ATTRIBUTES, WORD, POSITION = "classes", "attributes", "word", "position"
"""What a type is; of `classes` the control labels are two, since a function of the class says no more than the class."""


@dataclass(frozen=True)
class ControlTask:
    """A random function of the type, with the labels as frequent among types as among training samples.

    Attributes:
        salt: What the draws depend on.
        shares: Share of each label.
    """

    salt: str
    shares: tuple[float, ...]

    @classmethod
    def of(cls, codes: Int64[np.ndarray, " s"], train: Bool[np.ndarray, " s"], n_classes: int, salt: str) -> "ControlTask":
        """The control of some labels."""
        counts = np.bincount(codes[train & (codes >= 0)], minlength=n_classes)
        return cls(salt, tuple(float(n) / max(int(counts.sum()), 1) for n in counts))

    @classmethod
    def dichotomy(cls, n_classes: int, salt: str) -> "ControlTask":
        """Types fall into two halves; further classes stay empty."""
        return cls(salt, (0.5, 0.5, *[0.0] * (n_classes - 2)))

    def label(self, kind: str) -> int:
        """The label of a type."""
        at = np.searchsorted(np.cumsum(self.shares), unit_hash(kind, f"{self.salt}/control task"), side="right")
        return int(min(at, max(i for i, share in enumerate(self.shares) if share > 0 or i == 0)))

    def labels(self, kinds: Sequence[str]) -> Int64[np.ndarray, " n"]:
        """The labels of types."""
        known = {kind: self.label(kind) for kind in dict.fromkeys(kinds)}
        return np.array([known[kind] for kind in kinds], np.int64)

    def of_rows(self, block: Block, columns: Sequence[str]) -> Int64[np.ndarray, " n"]:
        """The labels of single tokens whose type some columns of the store name."""
        values, where = np.unique(_table(block, columns), axis=0, return_inverse=True)
        return self.labels([" ".join(map(str, row)) for row in values.tolist()])[where.reshape(-1)]


def _table(block: Block, columns: Sequence[str]) -> Shaped[np.ndarray, "n k"]:
    return np.stack([block.columns[name] for name in columns], axis=1)


@dataclass(frozen=True)
class ControlTasks:
    """All control tasks of a study.

    Attributes:
        tasks: By modality and label column.
        kind: What types of samples are: classes or attributes.
    """

    tasks: Mapping[tuple[Modality, str], ControlTask]
    kind: str

    def kind_of(self, view: str, modality: Modality) -> str:
        """What the types of the rows of a view are."""
        if view != "tokens":
            return self.kind
        if modality == "text":
            return WORD
        return self.kind if self.kind == ATTRIBUTES else POSITION

    def row_columns(self, view: str, modality: Modality) -> tuple[str, ...]:
        """Columns of the store that name the type of each row; none where it is the sample's."""
        return {WORD: TOKEN, POSITION: PLACE}.get(self.kind_of(view, modality), ())

    def codes(
        self, view: str, modality: Modality, column: str, codes: Int64[np.ndarray, " s"], block: Block
    ) -> Int64[np.ndarray, " n"]:
        """The labels of a block's rows in a label column, of a control task or not; -1 where its sample has none."""
        own, columns = codes[block.sample], self.row_columns(view, modality)
        task = self.tasks.get((modality, column)) if columns else None
        return own if task is None else np.where(own >= 0, task.of_rows(block, columns), -1)


def types(values: Mapping[str, Sequence[str | None]], columns: Sequence[str]) -> list[str]:
    """The type of each sample: its values in some columns together."""
    return ["\0".join(f"{values[name][i]}" for name in columns) for i in range(len(values[columns[0]]))]


NONE = ControlTasks({}, CLASSES)
"""Of a study without control tasks."""
