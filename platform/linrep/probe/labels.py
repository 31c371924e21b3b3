"""Who belongs to which class of an attribute, and who to which under shuffled labels: the control."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from linrep.config import digest
from linrep.errors import CorpusError, RecipeError
from linrep.places import place
from linrep.probe.config import Attributes
from linrep.sample import unit_hash
from linrep.store.layout import MODALITIES, Modality
from linrep.store.samples import SPLITS, Samples
from linrep.store.tables import read_foreign


@dataclass(frozen=True)
class Labelled:
    """The classes of all s samples of a store, for one attribute and one modality.

    Attributes:
        attribute: class, or a column of the attributes' table.
        modality: Which rows of the samples are meant; both for the modality probe itself.
        names: The classes in words, in the order of their numbers.
        codes: Class number of each sample, -1 where it has none or takes no part.
        shuffled: The same labels dealt out anew within each split, by a hash of the samples: the control.
    """

    attribute: str
    modality: str
    names: tuple[str, ...]
    codes: Int64[np.ndarray, " s"]
    shuffled: Int64[np.ndarray, " s"]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.names)


def read_attributes(config: Attributes, path: str) -> tuple[dict[str, dict[str, str]], str]:
    """The attributes' table by key, every value as text, and a digest of it.

    Args:
        config: Which columns.
        path: Where the table lies, demo:// resolved.

    Raises:
        CorpusError: The table is missing, damaged, or lacks a column.
    """
    rows = _rows(path)
    wanted = (config.key, *config.columns)
    missing = [name for name in wanted if not any(name in row for row in rows)]
    if missing:
        there = ", ".join(sorted({name for row in rows[:100] for name in row}))
        raise CorpusError(f"probe.attributes: {path} has no column {missing[0]!r}: it has {there}")
    table = {
        str(row[config.key]): {name: str(row[name]) for name in config.columns if row.get(name) is not None}
        for row in rows
        if row.get(config.key) is not None
    }
    return table, digest(table)


def _rows(path: str) -> list[dict]:
    file = place(path)
    if not file.is_file():
        raise CorpusError(f"probe.attributes: no file at {file}")
    if path.endswith(".parquet"):
        return read_foreign(file).to_pylist()
    rows = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            raise CorpusError(f"probe.attributes: line {number} of {file} is not JSON") from None
        if not isinstance(row, dict):
            raise CorpusError(f"probe.attributes: line {number} of {file} is no record")
        rows.append(row)
    return rows


def attribute_values(
    attributes: Mapping[str, Mapping[str, str]], column: str, table: pa.Table, samples: Samples
) -> list[str | None]:
    """The value of an attribute for each sample, None where the attributes' table does not name it."""
    values: list[str | None] = []
    for name, pair, image in zip(samples.ids, table["pair_id"].to_pylist(), samples.image_name, strict=True):
        called = (name, name.partition("/")[2], pair, pair and pair.partition("/")[2], image, image.rpartition(".")[0])
        row = next((attributes[key] for key in called if key and key in attributes), {})
        values.append(row.get(column))
    return values


def label(
    attribute: str, modality: Modality, values: Sequence[str | None], names: Sequence[str], samples: Samples, seed: int
) -> Labelled:
    """Class numbers of the samples of a modality, and the shuffled control; values that are not among the names count as none."""
    number = {name: i for i, name in enumerate(names)}
    takes_part = samples.of(modality)
    codes = np.array([number.get(v or "", -1) if t else -1 for v, t in zip(values, takes_part, strict=True)], np.int64)
    return Labelled(attribute, modality, tuple(names), codes, shuffle(codes, samples, f"{seed}/{attribute}"))


def shuffle(codes: Int64[np.ndarray, " s"], samples: Samples, salt: str) -> Int64[np.ndarray, " s"]:
    """The labels dealt out anew among the labelled samples of each split; each class keeps its size.

    Source: Hewitt & Liang, "Designing and Interpreting Probes with Control Tasks", 2019.
    """
    shuffled = codes.copy()
    for split in range(len(SPLITS)):
        members = np.flatnonzero((codes >= 0) & (samples.split == split))
        drawn = sorted(members, key=lambda i: unit_hash(samples.ids[i], salt))
        shuffled[members] = codes[np.array(drawn, np.int64)]
    return shuffled


def modality_labels(samples: Samples, seed: int) -> dict[Modality, Labelled]:
    """Image or text: as many samples of the one as of the other in each split, chosen by hash; none where one is missing."""
    codes = {m: np.full(len(samples.ids), -1, np.int64) for m in MODALITIES}
    shuffled = {m: np.full(len(samples.ids), -1, np.int64) for m in MODALITIES}
    for split in SPLITS:
        members = {m: np.flatnonzero(samples.of(m, split)) for m in MODALITIES}
        n = min(map(len, members.values()))
        drawn = {m: sorted(members[m], key=lambda i: unit_hash(samples.ids[i], f"{seed}/balance"))[:n] for m in MODALITIES}
        for c, m in enumerate(MODALITIES):
            codes[m][drawn[m]] = c
        everyone = sorted([*drawn["image"], *drawn["text"]], key=lambda i: unit_hash(samples.ids[i], f"{seed}/modality"))
        dealt = dict(zip(everyone, [0] * n + [1] * n, strict=True))
        for m in MODALITIES:
            shuffled[m][drawn[m]] = [dealt[i] for i in drawn[m]]
    return {m: Labelled("modality", m, MODALITIES, codes[m], shuffled[m]) for m in MODALITIES}


def subset(labelled: Labelled, samples: Samples, n_per_class: int, seed: int) -> Labelled:
    """Only n training samples of each class, those of smaller n among those of larger; other splits as they are.

    Their control deals the labels out among them, so that it has n samples of each class, too.
    """
    codes = labelled.codes.copy()
    for c in range(labelled.n_classes):
        members = np.flatnonzero((labelled.codes == c) & (samples.split == 0))
        drawn = sorted(members, key=lambda i: unit_hash(samples.ids[i], f"{seed}/curve"))
        codes[np.array(drawn[n_per_class:], np.int64)] = -1
    shuffled = shuffle(codes, samples, f"{seed}/{labelled.attribute}")
    return Labelled(labelled.attribute, labelled.modality, labelled.names, codes, shuffled)


def check(labelled: Labelled, samples: Samples, min_per_class: int) -> None:
    """Make sure that there is something to learn and something to score.

    Raises:
        RecipeError: One class only, a class with too few training samples, or an empty split.
    """
    what = f"{labelled.attribute} of {labelled.modality} samples"
    if labelled.n_classes < 2:
        raise RecipeError(f"probe: {what} has one class only ({labelled.names[0]}): there is nothing to separate")
    train = np.bincount(labelled.codes[(labelled.codes >= 0) & (samples.split == 0)], minlength=labelled.n_classes)
    fewest = int(train.argmin())
    if train[fewest] < min_per_class:
        raise RecipeError(
            f"probe: {what}: class {labelled.names[fewest]!r} has {train[fewest]} training samples, at least {min_per_class} are "
            "needed: harvest more, leave the class out, or lower probe.min_per_class"
        )
    for split in ("val", "test"):
        if not ((labelled.codes >= 0) & (samples.split == SPLITS.index(split))).any():
            raise RecipeError(f"probe: {what}: no labelled sample in the {split} split: raise corpora.splits.{split}")
