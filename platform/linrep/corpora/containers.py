"""Scanning containers: files that hold many records each (parquet, JSONL, plain text, tar shards)."""

import hashlib
import os
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from linrep.corpora.classes import find_names, read_names, select
from linrep.corpora.config import field_of
from linrep.corpora.files import DEFAULT_LABEL, Context, ScannedFile, format_of, id_of_row, image_paths, scan_file
from linrep.corpora.find import ending, find_files
from linrep.corpora.kinds import Containers, DocumentFiles, ImageParquet, ImageTar, PairFiles, PairTar, Source, TextFiles
from linrep.corpora.names import is_imagenet, numbered_names, numbers_are_imagenets
from linrep.corpora.runs import RUNS, Scan, choose, repeated
from linrep.errors import CorpusError
from linrep.places import Place, redacted
from linrep.repository.address import is_address
from linrep.repository.streamed import open_place

ALLOWED: dict[type, tuple[str, ...]] = {
    ImageParquet: ("parquet",),
    ImageTar: ("tar",),
    TextFiles: ("parquet", "jsonl", "txt"),
    PairFiles: ("parquet", "jsonl"),
    PairTar: ("tar",),
    DocumentFiles: ("parquet", "jsonl"),
}


def scan_containers(key: str, source: Containers) -> Scan:
    """Runs of records of every file, with only those records that the recipe takes.

    Raises:
        CorpusError: There is no file, files of several formats, one cannot be read or lacks a column, two records have one
            id, or a wanted class is unknown.
    """
    allowed = ALLOWED[type(source)]
    kinds = " or ".join("." + kind for kind in allowed)

    def unfit(path: str) -> str | None:
        return None if format_of(path) in allowed else f"no {kinds} file ({ending(path)})"

    found = find_files(source.path, unfit)
    formats = sorted({format_of(path) for path, _ in found.files})
    if not formats:
        raise CorpusError(f"no {kinds} file at {redacted(source.path)}")
    if len(formats) > 1:
        raise CorpusError(
            f"{found.root} holds {' and '.join(formats)} files: take one kind with a glob such as "
            f"{found.root / f'*.{formats[0]}'}"
        )
    facts: dict[str, Any] = {"kind": source.kind, "format": formats[0], **_columns(key, source, found.root)}
    context = Context(key, source, found.root, Counter())
    files = [scan_file(context, path, size) for path, size in found.files]
    runs = [run for file in files for run in file.runs]
    n = sum(run.n_records for run in runs)
    if not n:
        raise CorpusError(f"no record in {redacted(source.path)}: its {len(files)} {formats[0]} file(s) are empty")
    if all(file.unreadable or not file.runs for file in files):
        first = next(file for file in files if file.unreadable)
        raise CorpusError(f"no record of {found.root / first.path} can be read: {first.unreadable}")
    order = np.concatenate([run.order for run in runs])
    _refuse_repeated(key, source, found.root, files, order)
    taken = np.ones(n, dtype=bool)
    labels, classes = None, ()
    if isinstance(source, ImageParquet | ImageTar):
        labels, classes = _labels(source, files, found.root)
        if source.classes is not None:
            taken = labels >= 0
    per_class = getattr(source, "per_class", None)
    if source.max_samples or per_class or source.weight < 1:
        left = np.flatnonzero(taken)
        own = None if labels is None else labels[left]
        taken[left] = choose(order[left], own, per_class, source.max_samples, source.weight)
    facts["ids"] = hashlib.sha256(order.astype("<u8").tobytes()).hexdigest()
    table = _table(files, taken, labels if classes else None)
    left_out = {"files": found.left_out, "records": Counter(), "members": context.members}
    if n_other := int((~taken).sum()):
        left_out["records"]["not chosen"] = n_other
    if n_without := len(files) - len(table["path"].unique()):
        left_out["files"]["without a record that is taken"] = n_without
    return Scan(table, classes, facts, {what: dict(sorted(counts.items())) for what, counts in left_out.items() if counts})


def _columns(key: str, source: Source, root: Place) -> dict[str, Any]:
    """What decides how records are read. Of a folder of images, where it lies seen from the list: absolute paths differ."""
    facts = {name: value for name, value in source.model_dump(mode="json").items() if "column" in name or name == "caption_alone"}
    if isinstance(source, DocumentFiles):
        facts["max_images"] = source.max_images
    if isinstance(source, PairFiles | DocumentFiles):
        facts["outside"] = source.outside
        if source.image_root is not None:
            images = open_place(source.image_root)
            if not images.is_folder():
                raise CorpusError(f"no folder of images at {images}: it is {field_of(key)}.image_root")
            beside = (images.local and root.local) or (images.files == root.files and is_address(source.image_root))
            facts["image_root"] = os.path.relpath(images.path, root.path) if beside else str(images)
    return facts


def _labels(source: ImageParquet | ImageTar, files: list[ScannedFile], root: Place) -> tuple[np.ndarray, Any]:
    values = [label for file in files for run in file.runs for label in run.labels or [None] * run.n_records]
    if source.names is not None:
        names = read_names(source.names)
    elif isinstance(source, ImageTar):
        names = find_names(root)
    else:
        names = _written_names(files, root)
        if is_imagenet(names) or (not names and _paths_name_imagenets_classes(source, files, root)):
            names = numbered_names()
    present = {value for value in values if value is not None}
    if not present and isinstance(source, ImageTar) and source.label_column != DEFAULT_LABEL:
        raise CorpusError(
            f"no record of {redacted(source.path)} has a class: neither a .cls nor a {source.label_column!r} in .json"
        )
    classes = select(present, names, source.classes, redacted(source.path))
    number: dict[str | None, int] = {known.id: i for i, known in enumerate(classes)}
    return np.fromiter((number.get(value, -1) for value in values), dtype=np.int32, count=len(values)), classes


def _written_names(files: list[ScannedFile], root: Place) -> dict[str, str]:
    """Names of the labels, which all files that have any must agree on."""
    names: dict[str, str] = {}
    first: dict[str, str] = {}
    for file in files:
        for label, name in file.names.items():
            if names.setdefault(label, name) != name:
                raise CorpusError(
                    f"label {label} is {names[label]!r} in {root / first[label]} and {name!r} in {root / file.path}: "
                    f"take one of them with a glob, or give corpora.images.names"
                )
            first.setdefault(label, file.path)
    return names


def _paths_name_imagenets_classes(source: ImageParquet, files: list[ScannedFile], root: Place) -> bool:
    """Whether the first images that have a class say, by the wnid in their file's name, that it is a number of ILSVRC-2012."""
    first = next((file for file in files if file.runs and any(file.runs[0].labels or ())), None)
    if first is None:
        return False
    return numbers_are_imagenets(first.runs[0].labels or (), image_paths(root / first.path, source.image_column))


def _refuse_repeated(key: str, source: Any, root: Place, files: list[ScannedFile], order: np.ndarray) -> None:
    for pair in repeated(order):
        (one, first), (other, second) = (_id_at(key, source, root, files, record) for record in pair)
        if one == other:
            how = "as a key" if isinstance(source, ImageTar | PairTar) else f"in column {source.id_column!r}"
            raise CorpusError(f"id {one.partition('/')[2]!r} {how} is given twice: in {first} and {second}")


def _id_at(key: str, source: Any, root: Place, files: list[ScannedFile], record: int) -> tuple[str, str]:
    for file in files:
        for run in file.runs:
            if record < run.n_records:
                row = run.start + record
                return id_of_row(key, source, root / file.path, file.path, row), f"{file.path} record {row}"
            record -= run.n_records
    raise IndexError(record)


def _table(files: list[ScannedFile], taken: np.ndarray, labels: np.ndarray | None) -> pa.Table:
    rows, at = [], 0
    for file in files:
        for run in file.runs:
            own, known = taken[at : at + run.n_records], None if labels is None else labels[at : at + run.n_records]
            at += run.n_records
            if own.any():
                rows.append(
                    {
                        "path": file.path,
                        "size": file.size,
                        "content": file.content,
                        "start": run.start,
                        "offset": run.offset,
                        "count": int(own.sum()),
                        "rows": None if own.all() else np.flatnonzero(own).tolist(),
                        "labels": None if known is None else [None if x < 0 else x for x in known[own].tolist()],
                        "trouble": run.trouble,
                    }
                )
    return pa.Table.from_pylist(rows, schema=RUNS)
