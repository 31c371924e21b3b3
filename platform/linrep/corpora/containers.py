"""Scanning containers: files that hold many records each (parquet, JSONL, plain text, tar shards)."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from linrep.corpora import shards
from linrep.corpora.classes import find_names, read_names, select
from linrep.corpora.columns import column_type, is_image, is_label, is_text, is_written, label_names, opened, plain
from linrep.corpora.find import encodes, ending, find_files
from linrep.corpora.kinds import Containers, ImageParquet, ImageTar, PairFiles, PairTar, Source, TextFiles
from linrep.corpora.labels import class_id
from linrep.corpora.lines import Encoding, is_plain, scan_lines
from linrep.corpora.runs import MAX_RUN, RUNS, Scan, choose, hashes, repeated
from linrep.corpora.streams import COMPRESSIONS
from linrep.errors import CorpusError
from linrep.places import Place, place, redacted

FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "txt", ".tar": "tar"}
_SHORT = {".tgz": "tar", ".tbz2": "tar", ".tbz": "tar", ".txz": "tar", ".tzst": "tar"}
ALLOWED: dict[type, tuple[str, ...]] = {
    ImageParquet: ("parquet",),
    ImageTar: ("tar",),
    TextFiles: ("parquet", "jsonl", "txt"),
    PairFiles: ("parquet", "jsonl"),
    PairTar: ("tar",),
}
DEFAULT_LABEL = ImageParquet.model_fields["label_column"].default
T = TypeVar("T")
_BLOCK, _N_BLOCKS = 1 << 16, 16  # a parquet file's content is known by its size, its footer and a sample of its bytes


class _Run(NamedTuple):
    start: int
    offset: int | None
    n_records: int
    order: np.ndarray
    labels: list[str | None] | None
    trouble: str | None = None


class _File(NamedTuple):
    """What one file holds; `unreadable` says why no record of it can be read, where that is so."""

    path: str
    size: int
    content: str
    runs: list[_Run]
    names: dict[str, str]
    unreadable: str | None = None


class _Context(NamedTuple):
    key: str
    source: Any
    root: Place
    members: Counter[str]


def record_id(key: str, path: str, row: int, given: Any) -> str:
    """The id of a sample: the one given, if it is a number or a text, else the file and the row."""
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, bytes):
        given = given.decode(errors="surrogateescape")  # what is not UTF-8 does not encode, so it is no id
    if isinstance(given, int | str) and not isinstance(given, bool) and given != "":
        name = str(given)
        if encodes(name):
            return f"{key}/{name}"
    return f"{key}/{path}:{row}"


def format_of(path: str) -> str:
    """Which format a file's ending promises: parquet, jsonl, txt or tar, compressed or not; empty for none of them."""
    low = path.lower()
    for compression in COMPRESSIONS:
        low = low.removesuffix(compression)
    return next((kind for end, kind in (FORMATS | _SHORT).items() if low.endswith(end)), "")


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
    facts: dict[str, Any] = {"kind": source.kind, "format": formats[0], **_columns(source, found.root)}
    scan = {"parquet": _scan_parquet, "tar": _scan_tar}.get(formats[0], _scan_text)
    context = _Context(key, source, found.root, Counter())
    files = [scan(context, path, size) for path, size in found.files]
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


def _columns(source: Source, root: Place) -> dict[str, Any]:
    """What decides how records are read. Of a folder of images, where it lies seen from the list: absolute paths differ."""
    facts = {name: value for name, value in source.model_dump(mode="json").items() if "column" in name or name == "caption_alone"}
    if isinstance(source, PairFiles):
        facts["outside"] = source.outside
        if source.image_root is not None:
            images = place(source.image_root)
            if not images.is_folder():
                raise CorpusError(f"no folder of images at {images}: it is corpora.pairs.image_root")
            both_local = images.local and root.local
            facts["image_root"] = os.path.relpath(images.path, root.path) if both_local else str(images)
    return facts


def _scan_tar(context: _Context, path: str, size: int) -> _File:
    file, content = context.root / path, hashlib.sha256()
    runs: list[_Run] = []
    for scanned in batched(shards.scan_shard(file, context.source, context.members), shards.STRIDE):
        first = scanned[0][0]
        names = [record_id(context.key, path, group.row, shards.shard_id(path, group.key)) for group, _, _ in scanned]
        runs.append(_Run(first.row, first.offset, len(names), hashes(names), [label for _, label, _ in scanned]))
        for _, _, seen in scanned:
            content.update(seen)
    content.update(_sampled(file).encode())
    return _File(path, size, content.hexdigest(), runs, {})


def _scan_text(context: _Context, path: str, size: int) -> _File:
    source, file = context.source, context.root / path
    text = source.column if isinstance(source, TextFiles) else getattr(source, "text_column", "text")
    needed = [text, source.image_column] if isinstance(source, PairFiles) else [text]
    content, encoding = hashlib.sha256(), Encoding()
    runs, seen, trouble = [], set(), None
    for run in scan_lines(file, text, content, encoding):
        ids = [record_id(context.key, path, record.row, record.values.get(source.id_column)) for record in run.records]
        runs.append(_Run(run.start, run.offset, len(ids), hashes(ids), None))
        seen.update(*(record.values for record in run.records))
        trouble = trouble or next((record.trouble for record in run.records if record.trouble), None)
    whole = encoding.trouble(is_plain(path))
    if whole is not None:  # the file's own ids are read in an encoding that it does not have
        runs = [_by_place(context.key, path, run, whole) for run in runs]
        return _File(path, size, content.hexdigest(), runs, {}, whole)
    if runs and not seen:
        return _File(path, size, content.hexdigest(), runs, {}, trouble or "its records are empty")
    for column in needed:
        if runs and column not in seen:
            raise CorpusError(f"no column {column!r} in {file}: it has {', '.join(sorted(seen)[:20])}")
    return _File(path, size, content.hexdigest(), runs, {})


def _by_place(key: str, path: str, run: _Run, trouble: str) -> _Run:
    ids = (record_id(key, path, row, None) for row in range(run.start, run.start + run.n_records))
    return run._replace(order=hashes(ids), trouble=trouble)


def _scan_parquet(context: _Context, path: str, size: int) -> _File:
    source, file = context.source, context.root / path
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
                given = _values(part[source.id_column]) if part is not None and named else [None] * (last - first)
                ids = (record_id(context.key, path, row, one) for row, one in enumerate(given, start=first))
                labels = None if part is None or not label else _class_ids(file, label, _values(part[label]), first)
                runs.append(_Run(first, None, last - first, hashes(ids), labels))
            start = end
        names = label_names(parquet, label) if label else {}
    return _File(path, size, _sampled(file), runs, names)


def _values(column: pa.ChunkedArray) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [plain(value) for value in column]


def _class_ids(file: Place, column: str, values: list[Any], first: int) -> list[str | None]:
    known: dict[Any, str | None] = {}
    found: list[str | None] = []
    for row, value in enumerate(values, start=first):
        if value not in known:
            try:
                known[value] = class_id(value)
            except ValueError as error:
                raise CorpusError(f"no class in column {column!r} of {file}, row {row}: {error}") from error
        found.append(known[value])
    return found


def _read_group(file: Place, parquet: Any, group: int, columns: list[str]) -> pa.Table:
    try:
        return parquet.read_row_group(group, columns=columns)
    except (pa.ArrowException, OSError) as error:
        if file.may_pass(error):
            raise
        raise CorpusError(f"cannot read {', '.join(columns)} of {file}, row group {group}: {error}") from error


def _check_columns(file: Place, parquet: Any, source: TextFiles | PairFiles | ImageParquet) -> None:
    if isinstance(source, TextFiles):
        needed = {source.column: ("text", is_written)}
    elif isinstance(source, PairFiles):
        needed = {
            source.text_column: ("text", is_written),
            source.image_column: ("a path or bytes", lambda t: is_text(t) or is_image(t)),
        }
    else:
        needed = {source.image_column: ("bytes", is_image), source.label_column: ("classes (integers or texts)", is_label)}
    for column, (what, fits) in needed.items():
        kind = column_type(parquet, column)
        if kind is not None and not fits(kind):
            raise CorpusError(f"column {column!r} of {file} should hold {what}, not {kind}")
        # A column that the recipe names must be there; "label" is only looked for.
        if kind is None and not (isinstance(source, ImageParquet) and column == source.label_column == DEFAULT_LABEL):
            raise CorpusError(f"no column {column!r} in {file}: it has {', '.join(parquet.schema_arrow.names[:20])}")


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
        names = _written_names(files, root)
    present = {value for value in values if value is not None}
    if not present and isinstance(source, ImageTar) and source.label_column != DEFAULT_LABEL:
        raise CorpusError(
            f"no record of {redacted(source.path)} has a class: neither a .cls nor a {source.label_column!r} in .json"
        )
    classes = select(present, names, source.classes, redacted(source.path))
    number: dict[str | None, int] = {known.id: i for i, known in enumerate(classes)}
    return np.fromiter((number.get(value, -1) for value in values), dtype=np.int32, count=len(values)), classes


def _written_names(files: list[_File], root: Place) -> dict[str, str]:
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


def _refuse_repeated(key: str, source: Any, root: Place, files: list[_File], order: np.ndarray) -> None:
    for pair in repeated(order):
        (one, first), (other, second) = (_id_at(key, source, root, files, record) for record in pair)
        if one == other:
            how = "as a key" if isinstance(source, ImageTar | PairTar) else f"in column {source.id_column!r}"
            raise CorpusError(f"id {one.partition('/')[2]!r} {how} is given twice: in {first} and {second}")


def _id_at(key: str, source: Any, root: Place, files: list[_File], record: int) -> tuple[str, str]:
    for file in files:
        for run in file.runs:
            if record < run.n_records:
                row = run.start + record
                return _id_of_row(key, source, root / file.path, file.path, row), f"{file.path} record {row}"
            record -= run.n_records
    raise IndexError(record)


def _id_of_row(key: str, source: Any, file: Place, path: str, row: int) -> str:
    if format_of(path) == "tar":
        groups = (group for group, _, _ in shards.scan_shard(file, source, Counter()))
        return record_id(key, path, row, shards.shard_id(path, next(group.key for group in groups if group.row == row)))
    if format_of(path) != "parquet":
        records = (record for run in scan_lines(file, "", hashlib.sha256(), Encoding()) for record in run.records)
        return record_id(key, path, row, next(r for r in records if r.row == row).values.get(source.id_column))
    with opened(file) as parquet:
        if column_type(parquet, source.id_column) is None:
            return record_id(key, path, row, None)
        return record_id(key, path, row, plain(parquet.read(columns=[source.id_column])[source.id_column][row]))


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
                        "trouble": run.trouble,
                    }
                )
    return pa.Table.from_pylist(rows, schema=RUNS)
