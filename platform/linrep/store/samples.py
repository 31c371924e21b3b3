"""What analyses know of a store's samples: whose rows count, what they show, and their classes, captions' from photographs."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from linrep.store.layout import Modality

CLASS = "class"
SPLITS = ("train", "val", "test")
CONTAINERS = (".parquet", ".jsonl", ".ndjson", ".gz", ".txt", ".tar")
"""Endings of files that hold many samples."""


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
