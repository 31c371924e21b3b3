"""Who belongs to which class: samples' own labels, those that captions have from their photographs, and a table of attributes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from linrep.config import digest
from linrep.errors import CorpusError, RecipeError
from linrep.places import place
from linrep.probe.config import Attributes
from linrep.sample import unit_hash
from linrep.store.layout import MODALITIES, Modality
from linrep.store.tables import read_table

CLASS = "class"
SPLITS = ("train", "val", "test")
CONTAINERS = (".parquet", ".jsonl", ".ndjson", ".gz", ".txt", ".tar")
"""Endings of files that hold many samples."""


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


@dataclass(frozen=True)
class Samples:
    """What the probes know of a store's samples.

    Attributes:
        ids: Names of the samples, in the order of the store.
        split: Index into `SPLITS`.
        role: Which rows count: "image" (photographs; pairs where the store has no photographs of their own), "text" (texts and
            captions read alone) or "": a caption read under its picture knows the picture, and a failed sample has no rows.
        photograph: File name of the picture that each sample shows or describes, empty where there is none.
    """

    ids: tuple[str, ...]
    split: Int64[np.ndarray, " s"]
    role: tuple[str, ...]
    photograph: tuple[str, ...]

    def of(self, modality: Modality, split: str | None = None) -> Bool[np.ndarray, " s"]:
        """Samples whose rows of this modality take part."""
        chosen = np.array([role == modality for role in self.role], bool)
        return chosen if split is None else chosen & (self.split == SPLITS.index(split))

    @property
    def clusters(self) -> Int64[np.ndarray, " s"]:
        """What a bootstrap draws: samples, and all captions of one photograph together."""
        keys = [f"{role}:{photo or name}" for role, photo, name in zip(self.role, self.photograph, self.ids, strict=True)]
        return np.unique(keys, return_inverse=True)[1].astype(np.int64) if keys else np.empty(0, np.int64)


def read_samples(table: pa.Table) -> Samples:
    """The samples of a store's samples table."""
    rows = {name: table[name].to_pylist() for name in ("sample_id", "modality", "uri", "pair_id", "split", "error")}
    alone = "image" in rows["modality"]
    role = []
    for modality, error in zip(rows["modality"], rows["error"], strict=True):
        kind = "image" if modality == ("image" if alone else "pair") else "text" if modality == "text" else ""
        role.append("" if error is not None else kind)
    shown = {
        pair: _file_name(uri)
        for pair, uri, modality in zip(rows["pair_id"], rows["uri"], rows["modality"], strict=True)
        if modality == "pair"
    }
    photograph = [
        _file_name(uri) if modality == "image" else shown.get(pair, "") if pair else ""
        for uri, modality, pair in zip(rows["uri"], rows["modality"], rows["pair_id"], strict=True)
    ]
    split = np.array([SPLITS.index(s) for s in rows["split"]], np.int64)
    return Samples(tuple(rows["sample_id"]), split, tuple(role), tuple(photograph))


def _file_name(uri: str) -> str:
    """The photograph's file name; none where many photographs lie in one file."""
    return "" if uri.lower().endswith(CONTAINERS) else uri.rsplit("/", 1)[-1]


def class_values(table: pa.Table, samples: Samples) -> list[str | None]:
    """The class of each sample in words: its own, or the one of the photograph that it shows or describes.

    Two photographs of one file name and different classes give theirs to nobody.
    """
    own = [
        None if label is None else (name if name is not None else str(label))
        for label, name in zip(table["label"].to_pylist(), table["class_name"].to_pylist(), strict=True)
    ]
    labels = {label: name for label, name in zip(table["label"].to_pylist(), own, strict=True) if label is not None}
    if len(set(labels.values())) < len(labels):  # two classes of one name, as ImageNet has: the number tells them apart
        numbers = table["label"].to_pylist()
        twice = {name for name in labels.values() if list(labels.values()).count(name) > 1}
        own = [f"{name} ({n})" if name in twice else name for name, n in zip(own, numbers, strict=True)]
    by_photograph: dict[str, str | None] = {}
    for photo, value in zip(samples.photograph, own, strict=True):
        if photo and value is not None:
            by_photograph[photo] = value if by_photograph.get(photo, value) == value else None
    return [
        value if value is not None else by_photograph.get(photo) for value, photo in zip(own, samples.photograph, strict=True)
    ]


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
        return read_table(file.parent, file.name).to_pylist()
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
    for name, pair, photo in zip(samples.ids, table["pair_id"].to_pylist(), samples.photograph, strict=True):
        called = (name, name.partition("/")[2], pair, pair and pair.partition("/")[2], photo, photo.rpartition(".")[0])
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
    """Only n training samples of each class, those of smaller n among those of larger; other splits as they are."""
    codes = labelled.codes.copy()
    for c in range(labelled.n_classes):
        members = np.flatnonzero((labelled.codes == c) & (samples.split == 0))
        drawn = sorted(members, key=lambda i: unit_hash(samples.ids[i], f"{seed}/curve"))
        codes[np.array(drawn[n_per_class:], np.int64)] = -1
    return Labelled(labelled.attribute, labelled.modality, labelled.names, codes, np.where(codes < 0, -1, labelled.shuffled))


def check(labelled: Labelled, samples: Samples, min_per_class: int) -> None:
    """See to it that there is something to learn and something to score.

    Raises:
        RecipeError: One class only, a class with too few training samples, or an empty split.
    """
    what = f"{labelled.attribute} of {labelled.modality} samples"
    if labelled.n_classes < 2:
        raise RecipeError(f"probe: {what} has one class only ({labelled.names[0]}): there is nothing to tell apart")
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
