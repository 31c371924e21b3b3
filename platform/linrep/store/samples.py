"""What analyses know of a store's samples: whose rows count, what they show, and their classes, captions' from images."""

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
        role: Which rows count: "image" (image samples; pairs where the store has none), "text" (texts and
            captions read alone) or "": a caption read under its image, or a document, knows the image, and a failed sample has no
            rows.
        image_path: Path of the image that each sample shows or describes, empty where there is none or many lie in one file.
        drawn_as: What a bootstrap draws each sample as: an image by its own name, for folders of classes often number their
            files alike; what was made from pairs by the whole path of the pair's image, so that all captions of one
            image go together, or by the pair's name where many images lie in one file.
    """

    ids: tuple[str, ...]
    split: Int64[np.ndarray, " s"]
    role: tuple[str, ...]
    image_path: tuple[str, ...]
    drawn_as: tuple[str, ...]

    @property
    def image_name(self) -> tuple[str, ...]:
        """File names of the images."""
        return tuple(path.rsplit("/", 1)[-1] for path in self.image_path)

    def of(self, modality: Modality, split: str | None = None) -> Bool[np.ndarray, " s"]:
        """Samples whose rows of this modality take part."""
        chosen = np.array([role == modality for role in self.role], bool)
        return chosen if split is None else chosen & (self.split == SPLITS.index(split))

    @property
    def clusters(self) -> Int64[np.ndarray, " s"]:
        """What a bootstrap draws: samples, and all captions of one image together; never an image and a text together."""
        keys = [f"{role}:{name}" for role, name in zip(self.role, self.drawn_as, strict=True)]
        return np.unique(keys, return_inverse=True)[1].astype(np.int64) if keys else np.empty(0, np.int64)


def read_samples(table: pa.Table) -> Samples:
    """The samples of a store's samples table."""
    rows = {name: table[name].to_pylist() for name in ("sample_id", "modality", "uri", "pair_id", "split", "error")}
    alone = "image" in rows["modality"]
    role = []
    for modality, error in zip(rows["modality"], rows["error"], strict=True):
        kind = "image" if modality == ("image" if alone else "pair") else "text" if modality == "text" else ""
        role.append("" if error is not None else kind)
    paths = zip(rows["pair_id"], rows["uri"], rows["modality"], strict=True)
    shown = {pair: _own_path(uri) for pair, uri, modality in paths if modality == "pair"}
    image_path, drawn_as = [], []
    for name, modality, uri, pair in zip(rows["sample_id"], rows["modality"], rows["uri"], rows["pair_id"], strict=True):
        path = _own_path(uri) if modality == "image" else shown.get(pair, "") if pair else ""
        image_path.append(path)
        drawn_as.append((path or pair) if pair else name)
    split = np.array([SPLITS.index(s) for s in rows["split"]], np.int64)
    return Samples(tuple(rows["sample_id"]), split, tuple(role), tuple(image_path), tuple(drawn_as))


def _own_path(uri: str) -> str:
    """The image's path; none where many images lie in one file."""
    return "" if uri.lower().endswith(CONTAINERS) else uri


def class_values(table: pa.Table, samples: Samples) -> list[str | None]:
    """The class of each sample in words: its own, or the one of the image that it shows or describes.

    Different classes have different names: where ImageNet gives two classes one name, "crane", their numbers separate them,
    "crane (134)"; whoever names classes beside the probes asks this function. A caption's image is the one whose path ends
    most like its own image's: the file name must be the same, and images that fit alike but differ in their class give it
    to nobody.
    """
    own = [
        None if label is None else (name if name is not None else str(label))
        for label, name in zip(table["label"].to_pylist(), table["class_name"].to_pylist(), strict=True)
    ]
    labels = {label: name for label, name in zip(table["label"].to_pylist(), own, strict=True) if label is not None}
    if len(set(labels.values())) < len(labels):  # two classes of one name, as ImageNet has: the number separates them
        numbers = table["label"].to_pylist()
        twice = {name for name in labels.values() if list(labels.values()).count(name) > 1}
        own = [f"{name} ({n})" if name in twice else name for name, n in zip(own, numbers, strict=True)]
    by_end: dict[str, str | None] = {}
    for path, value in zip(samples.image_path, own, strict=True):
        for end in _ends(path) if value is not None else ():
            by_end[end] = value if by_end.get(end, value) == value else None
    return [
        value if value is not None else next((by_end[end] for end in _ends(path) if end in by_end), None)
        for value, path in zip(own, samples.image_path, strict=True)
    ]


def _ends(path: str) -> list[str]:
    """a/b/c.jpg, b/c.jpg and c.jpg of a/b/c.jpg."""
    folders = path.split("/")
    return ["/".join(folders[i:]) for i in range(len(folders))] if path else []
