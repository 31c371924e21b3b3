"""Runs: the rows of an index. A run is one file of a folder, or up to 4,096 successive records of a container.

Also what every kind of corpus shares when it is scanned: choosing records by hash, and finding ids given twice.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

MAX_RUN = 4096  # bounds what a chunk carries when a corpus is a sparse choice of rows

RUNS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # relative to the corpus, forward slashes
        pa.field("size", pa.int64(), nullable=False),  # bytes of the file
        pa.field("content", pa.string()),  # hash of the container's content; null for single images
        pa.field("start", pa.int64(), nullable=False),  # number of the run's first record in its file
        pa.field("offset", pa.int64()),  # its byte in the (decompressed) file of lines; null elsewhere
        pa.field("count", pa.int32(), nullable=False),  # records taken
        pa.field("rows", pa.list_(pa.int32())),  # which, counted from start; null: all
        pa.field("labels", pa.list_(pa.int32())),  # class number of every record taken; null: the corpus has none
        pa.field("trouble", pa.string()),  # why none of them can be used; null: each stands for itself
    ]
)


class Class(NamedTuple):
    """A class of a corpus: its id (wnid, folder name or label value) and its name in words."""

    id: str
    name: str


class Scan(NamedTuple):
    """What was found in one corpus.

    Attributes:
        runs: Table of schema `RUNS`, sorted by path and start.
        classes: The classes taken, sorted by id; a record's label is its class's place in here.
        facts: What else decides the samples' content (kind, columns, a hash of the ids), as JSON values.
        left_out: How much of what lies there is no sample, by what it is ("files", "records", "members") and why.
    """

    runs: pa.Table
    classes: tuple[Class, ...]
    facts: dict[str, Any]
    left_out: dict[str, dict[str, int]]


class Piece(NamedTuple):
    """What to read of one run.

    Attributes:
        path: The file, relative to the corpus.
        size: Its bytes when it was indexed.
        start: Number of the run's first record.
        offset: Byte at which that record starts, for lines.
        rows: Numbers of the records to read, increasing.
        labels: Their class numbers, None where unknown.
        trouble: Why none of them can be used, None if each stands for itself.
    """

    path: str
    size: int
    start: int
    offset: int | None
    rows: range | list[int]
    labels: list[int | None]
    trouble: str | None = None


def pieces(runs: pa.Table, skip: int, n_records: int) -> Iterator[Piece]:
    """The runs of a chunk, without the first `skip` records, up to `n_records` in all."""
    for run in runs.to_pylist():
        first, last = skip, min(run["count"], skip + n_records)
        skip, n_records = 0, n_records - (last - first)
        start, rows = run["start"], run["rows"]
        yield Piece(
            path=run["path"],
            size=run["size"],
            start=start,
            offset=run["offset"],
            rows=range(start + first, start + last) if rows is None else [start + row for row in rows[first:last]],
            labels=[None] * (last - first) if run["labels"] is None else run["labels"][first:last],
            trouble=run["trouble"],
        )


def numbered(runs: pa.Table, places: list[int]) -> pa.Table:
    """The runs with other class numbers: `places` has the new number of each old one."""
    if places == list(range(len(places))):
        return runs
    labels = [None if own is None else [None if x is None else places[x] for x in own] for own in runs["labels"].to_pylist()]
    at = RUNS.get_field_index("labels")
    return runs.set_column(at, RUNS.field(at), pa.array(labels, RUNS.field(at).type))


def labels_of(runs: pa.Table) -> np.ndarray:
    """Class number of every record that has one, in order."""
    lists = [chunk.flatten().drop_null().to_numpy(zero_copy_only=False) for chunk in runs["labels"].chunks]
    return np.concatenate(lists).astype(np.int64) if lists else np.zeros(0, np.int64)


def hashes(ids: Iterable[str]) -> np.ndarray:
    """A 64-bit number for each id, the same on every machine; small numbers are chosen first."""
    numbers = (int.from_bytes(hashlib.sha256(b"pick\0" + name.encode()).digest()[:8], "big") for name in ids)
    return np.fromiter(numbers, dtype=np.uint64)


def choose(
    order: np.ndarray,
    labels: np.ndarray | None = None,
    per_class: int | None = None,
    max_samples: int | None = None,
    weight: float = 1.0,
) -> np.ndarray:
    """Which records to take: of each class the `per_class` with the smallest hash, of these the `max_samples` smallest.

    A weight leaves only hashes below this share of all numbers, so that it decides on a record whatever others there are.

    Args:
        order: The hash of each record. A larger choice therefore holds every smaller one.
        labels: Class number of each record, -1 where it has none; such records are taken only if `per_class` is None.
        per_class: Records a class at most, None for all.
        max_samples: Records at most, None for all.
        weight: Share of the records to choose from.

    Returns:
        True for each record taken.
    """
    taken = order < weight * 2.0**64 if weight < 1 else np.ones(len(order), dtype=bool)
    if per_class is not None and labels is not None:
        ranked = np.lexsort((order, labels))
        first = np.searchsorted(labels[ranked], labels[ranked], side="left")
        taken[ranked] &= np.arange(len(order)) - first < per_class
        taken &= labels >= 0
    if max_samples is not None and taken.sum() > max_samples:
        left = np.flatnonzero(taken)
        taken[left[np.argsort(order[left], kind="stable")[max_samples:]]] = False
    return taken


def repeated(order: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of record numbers whose hashes are equal: the first occurrence and the next, in order of the latter."""
    ranked = np.argsort(order, kind="stable")
    same = np.flatnonzero(order[ranked][1:] == order[ranked][:-1])
    return sorted(((int(ranked[i]), int(ranked[i + 1])) for i in same), key=lambda pair: pair[1])
