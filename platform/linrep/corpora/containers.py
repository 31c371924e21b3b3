"""Scanning containers: files that hold many records each (parquet, JSONL, plain text, tar shards)."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from linrep.corpora import shards
from linrep.corpora.classes import find_names, read_names, select
from linrep.corpora.columns import column_type, is_picture, is_text, label_names, opened
from linrep.corpora.config import Containers, ImageParquet, ImageTar, PairFiles, PairTar, Source, TextFiles
from linrep.corpora.find import encodes, find
from linrep.corpora.lines import scan_lines
from linrep.corpora.runs import MAX_RUN, RUNS, Scan, choose, hashes, repeated
from linrep.errors import CorpusError
from linrep.places import Place, redacted

FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "txt", ".tar": "tar"}
ALLOWED: dict[type, tuple[str, ...]] = {
    ImageParquet: ("parquet",),
    ImageTar: ("tar",),
    TextFiles: ("parquet", "jsonl", "txt"),
    PairFiles: ("parquet", "jsonl"),
    PairTar: ("tar",),
}
T = TypeVar("T")
_BLOCK, _N_BLOCKS = 1 << 16, 16  # a parquet file's content is known by its size, its footer and a sample of its bytes


class _Run(NamedTuple):
    start: int
    offset: int | None
    n_records: int
    order: np.ndarray | None
    labels: list[str | None] | None


class _File(NamedTuple):
    path: str
    size: int
    content: str
    runs: list[_Run]
    names: dict[str, str]


def record_id(corpus: str, path: str, row: int, given: Any) -> str:
    """The id of a sample: the one given, if it is a number or a text, else the file and the row."""
    if isinstance(given, int | str) and not isinstance(given, bool) and given != "":
        name = str(given)
        if encodes(name):
            return f"{corpus}/{name}"
    return f"{corpus}/{path}:{row}"


def format_of(path: str) -> str:
    """Which format a file's ending promises: parquet, jsonl, txt or tar; empty for none of them."""
    return next((kind for ending, kind in FORMATS.items() if path.lower().removesuffix(".gz").endswith(ending)), "")


def scan_containers(corpus: str, source: Containers) -> Scan:
    """Runs of records of every file, with only those records that the recipe takes.

    Raises:
        CorpusError: There is no file, files of several formats, one cannot be read or lacks a column, two records have one
            id, or a wanted class is unknown.
    """
    root, found = find(source.path)
    allowed = ALLOWED[type(source)]
    listed = [(path, size, format_of(path)) for path, size in found if format_of(path) in allowed]
    formats = sorted({kind for _, _, kind in listed})
    if not formats:
        raise CorpusError(f"no {' or '.join('.' + kind for kind in allowed)} file at {redacted(source.path)}")
    if len(formats) > 1:
        raise CorpusError(
            f"{root} holds {' and '.join(formats)} files: take one kind with a glob such as {root / f'*.{formats[0]}'}"
        )
    scan = {"parquet": _scan_parquet, "tar": _scan_tar}.get(formats[0], _scan_text)
    files = [_File(path, size, *scan(corpus, source, root, path)) for path, size, _ in listed]
    runs = [run for file in files for run in file.runs]
    n = sum(run.n_records for run in runs)
    if not n:
        raise CorpusError(f"no record in {redacted(source.path)}: its {len(files)} {formats[0]} file(s) are empty")
    order = None
    if runs[0].order is not None:
        order = np.concatenate([run.order for run in runs if run.order is not None])
        _refuse_repeated(corpus, source, root, files, order)
    taken = np.ones(n, dtype=bool)
    labels, classes = None, ()
    if isinstance(source, ImageParquet | ImageTar):
        labels, classes = _labels(source, files, root)
        if source.classes is not None:
            taken = labels >= 0
    if order is not None and (source.max_samples or getattr(source, "per_class", None)):
        left = np.flatnonzero(taken)
        per_class = getattr(source, "per_class", None)
        taken[left] = choose(order[left], None if labels is None else labels[left], per_class, source.max_samples)
    facts = {"kind": source.kind, "format": formats[0], **_columns(source)}
    facts["ids"] = None if order is None else hashlib.sha256(order.astype("<u8").tobytes()).hexdigest()
    return Scan(_table(files, taken, labels if classes else None), classes, facts)


def _columns(source: Source) -> dict[str, Any]:
    return {name: value for name, value in source.model_dump(mode="json").items() if "column" in name or name == "caption_alone"}


def _scan_tar(corpus: str, source: Any, root: Place, path: str) -> tuple[str, list[_Run], dict[str, str]]:
    file, content = root / path, hashlib.sha256()
    runs: list[_Run] = []
    for scanned in batched(shards.scan_shard(file, source), shards.STRIDE):
        first = scanned[0][0]
        names = [record_id(corpus, path, group.row, shards.shard_id(path, group.key)) for group, _, _ in scanned]
        runs.append(_Run(first.row, first.offset, len(names), hashes(names), [label for _, label, _ in scanned]))
        for _, _, seen in scanned:
            content.update(seen)
    content.update(_sampled(file).encode())
    return content.hexdigest(), runs, {}


def _scan_text(
    corpus: str, source: TextFiles | PairFiles | ImageParquet, root: Place, path: str
) -> tuple[str, list[_Run], dict[str, str]]:
    text = source.column if isinstance(source, TextFiles) else getattr(source, "text_column", "text")
    needed = [text, source.image_column] if isinstance(source, PairFiles) else [text]
    content = hashlib.sha256()
    runs, seen, trouble = [], set(), "it is empty"
    for run in scan_lines(root / path, text, content):
        ids = [record_id(corpus, path, record.row, record.values.get(source.id_column)) for record in run.records]
        runs.append(_Run(run.start, run.offset, len(ids), hashes(ids), None))
        seen.update(*(record.values for record in run.records))
        trouble = next((record.trouble for record in run.records if record.trouble), trouble)
    if runs and not seen:
        raise CorpusError(f"no record of {root / path} can be read: {trouble}")
    for column in needed:
        if runs and column not in seen:
            raise CorpusError(f"no column {column!r} in {root / path}: it has {', '.join(sorted(seen)[:20])}")
    return content.hexdigest(), runs, {}


def _scan_parquet(
    corpus: str, source: TextFiles | PairFiles | ImageParquet, root: Place, path: str
) -> tuple[str, list[_Run], dict[str, str]]:
    file = root / path
    with opened(file) as parquet:
        _check_columns(file, parquet, source)
        label = source.label_column if isinstance(source, ImageParquet) and column_type(parquet, source.label_column) else None
        named = column_type(parquet, source.id_column) is not None
        columns = [name for name in (source.id_column if named else None, label) if name]
        runs: list[_Run] = []
        start = 0
        for group in range(parquet.num_row_groups):
            end = start + parquet.metadata.row_group(group).num_rows
            table = _read_group(file, parquet, group, columns)
            for first in range(start, end, MAX_RUN):
                last = min(first + MAX_RUN, end)
                part = table.slice(first - start, last - first) if columns else None
                given = part[source.id_column].to_pylist() if part is not None and named else [None] * (last - first)
                ids = (record_id(corpus, path, row, one) for row, one in enumerate(given, start=first))
                labels = None if part is None or not label else [None if x is None else str(x) for x in part[label].to_pylist()]
                runs.append(_Run(first, None, last - first, hashes(ids), labels))
            start = end
        names = label_names(parquet, label) if label else {}
    return _sampled(file), runs, names


def _read_group(file: Place, parquet: Any, group: int, columns: list[str]) -> pa.Table:
    try:
        return parquet.read_row_group(group, columns=columns)
    except (pa.ArrowException, OSError) as error:
        if file.may_pass(error):
            raise
        raise CorpusError(f"cannot read {', '.join(columns)} of {file}, row group {group}: {error}") from error


def _check_columns(file: Place, parquet: Any, source: TextFiles | PairFiles | ImageParquet) -> None:
    if isinstance(source, TextFiles):
        needed = {source.column: ("text", is_text)}
    elif isinstance(source, PairFiles):
        needed = {
            source.text_column: ("text", is_text),
            source.image_column: ("a path or bytes", lambda t: is_text(t) or is_picture(t)),
        }
    else:
        needed = {source.image_column: ("bytes", is_picture)}
    for column, (what, fits) in needed.items():
        kind = column_type(parquet, column)
        if kind is None:
            raise CorpusError(f"no column {column!r} in {file}: it has {', '.join(parquet.schema_arrow.names[:20])}")
        if not fits(kind):
            raise CorpusError(f"column {column!r} of {file} should hold {what}, not {kind}")


def _sampled(file: Place) -> str:
    """Hash of the first, the last and evenly spaced blocks, all of a file that is small enough."""
    seen, size = hashlib.sha256(), file.size()
    with file.open() as raw:
        if size <= _BLOCK * _N_BLOCKS:
            seen.update(raw.read())
            return seen.hexdigest()
        for i in range(_N_BLOCKS):
            raw.seek((size - _BLOCK) * i // (_N_BLOCKS - 1))
            seen.update(raw.read(_BLOCK))
    return seen.hexdigest()


def _labels(source: ImageParquet | ImageTar, files: list[_File], root: Place) -> tuple[np.ndarray, Any]:
    values = [label for file in files for run in file.runs for label in run.labels or [None] * run.n_records]
    if source.names is not None:
        names = read_names(source.names)
    elif isinstance(source, ImageTar):
        names = find_names(root)
    else:
        names = {key: name for file in files for key, name in file.names.items()}
    classes = select({value for value in values if value is not None}, names, source.classes, redacted(source.path))
    number: dict[str | None, int] = {known.id: i for i, known in enumerate(classes)}
    return np.fromiter((number.get(value, -1) for value in values), dtype=np.int32, count=len(values)), classes


def _refuse_repeated(corpus: str, source: Any, root: Place, files: list[_File], order: np.ndarray) -> None:
    for pair in repeated(order):
        (one, first), (other, second) = (_id_at(corpus, source, root, files, record) for record in pair)
        if one == other:
            how = "as a key" if isinstance(source, ImageTar | PairTar) else f"in column {source.id_column!r}"
            raise CorpusError(f"id {one.partition('/')[2]!r} {how} is given twice: in {first} and {second}")


def _id_at(corpus: str, source: Any, root: Place, files: list[_File], record: int) -> tuple[str, str]:
    for file in files:
        for run in file.runs:
            if record < run.n_records:
                row = run.start + record
                return _id_of_row(corpus, source, root / file.path, file.path, row), f"{file.path} record {row}"
            record -= run.n_records
    raise IndexError(record)


def _id_of_row(corpus: str, source: Any, file: Place, path: str, row: int) -> str:
    if format_of(path) == "tar":
        groups = (group for group, _, _ in shards.scan_shard(file, source))
        return record_id(corpus, path, row, shards.shard_id(path, next(group.key for group in groups if group.row == row)))
    if format_of(path) != "parquet":
        records = (record for run in scan_lines(file, "", hashlib.sha256()) for record in run.records)
        return record_id(corpus, path, row, next(r for r in records if r.row == row).values.get(source.id_column))
    with opened(file) as parquet:
        if column_type(parquet, source.id_column) is None:
            return record_id(corpus, path, row, None)
        return record_id(corpus, path, row, parquet.read(columns=[source.id_column])[source.id_column][row].as_py())


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last one shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _table(files: list[_File], taken: np.ndarray, labels: np.ndarray | None) -> pa.Table:
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
                    }
                )
    return pa.Table.from_pylist(rows, schema=RUNS)
