"""One file of records, looked at once: the ids, labels and content of what it holds, whatever its format."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from linrep.corpora import shards
from linrep.corpora.columns import column_type, element_type, is_image, is_label, is_text, is_written, label_names, opened, plain
from linrep.corpora.find import encodes
from linrep.corpora.kinds import DocumentFiles, ImageParquet, PairFiles, TextFiles
from linrep.corpora.labels import class_id
from linrep.corpora.lines import Encoding, is_plain, scan_lines
from linrep.corpora.runs import MAX_RUN, hashes
from linrep.corpora.streams import COMPRESSIONS
from linrep.errors import CorpusError
from linrep.places import Place

FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "txt", ".md": "md", ".tar": "tar"}
_SHORT = {".tgz": "tar", ".tbz2": "tar", ".tbz": "tar", ".txz": "tar", ".tzst": "tar"}
DEFAULT_LABEL = ImageParquet.model_fields["label_column"].default
T = TypeVar("T")
_BLOCK, _N_BLOCKS = 1 << 16, 16  # a parquet file's content is known by its size, its footer and a sample of its bytes


class ScannedRun(NamedTuple):
    """Successive records of a file.

    Attributes:
        start: Number of the first one in its file.
        offset: Its byte, in files of lines and shards.
        n_records: How many.
        order: The hash of each one's id.
        labels: Class id of each; None where the corpus has no classes.
        trouble: Why none of them can be used.
    """

    start: int
    offset: int | None
    n_records: int
    order: np.ndarray
    labels: list[str | None] | None
    trouble: str | None = None


class ScannedFile(NamedTuple):
    """What one file holds.

    Attributes:
        path: Where it lies, relative to the corpus.
        size: Its bytes.
        content: Changes when its content does.
        runs: Its records.
        names: Names of labels that are written in it.
        unreadable: Why no record of it can be read, where that is so.
    """

    path: str
    size: int
    content: str
    runs: list[ScannedRun]
    names: dict[str, str]
    unreadable: str | None = None


class Context(NamedTuple):
    """What all files of a source share.

    Attributes:
        key: The word that ids begin with.
        source: The source.
        root: The folder that its files are relative to.
        members: Takes in how many members of archives are no part of a record, by the reason.
    """

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
    """Which format a file's ending promises: parquet, jsonl, txt, md or tar, compressed or not; empty for none of them."""
    low = path.lower()
    for compression in COMPRESSIONS:
        low = low.removesuffix(compression)
    return next((kind for end, kind in (FORMATS | _SHORT).items() if low.endswith(end)), "")


def scan_file(context: Context, path: str, size: int) -> ScannedFile:
    """What a file holds.

    Raises:
        CorpusError: It cannot be read, or lacks a column.
    """
    scan = {"parquet": _scan_parquet, "tar": _scan_tar}.get(format_of(path), _scan_text)
    return scan(context, path, size)


def id_of_row(key: str, source: Any, file: Place, path: str, row: int) -> str:
    """The id of one record, found by reading the file again."""
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


def _scan_tar(context: Context, path: str, size: int) -> ScannedFile:
    file, content = context.root / path, hashlib.sha256()
    runs: list[ScannedRun] = []
    for scanned in batched(shards.scan_shard(file, context.source, context.members), shards.STRIDE):
        first = scanned[0][0]
        names = [record_id(context.key, path, group.row, shards.shard_id(path, group.key)) for group, _, _ in scanned]
        runs.append(ScannedRun(first.row, first.offset, len(names), hashes(names), [label for _, label, _ in scanned]))
        for _, _, seen in scanned:
            content.update(seen)
    content.update(_sampled(file).encode())
    return ScannedFile(path, size, content.hexdigest(), runs, {})


def _scan_text(context: Context, path: str, size: int) -> ScannedFile:
    source, file = context.source, context.root / path
    text = source.column if isinstance(source, TextFiles) else getattr(source, "text_column", "text")
    images = {PairFiles: "image_column", DocumentFiles: "images_column"}.get(type(source))
    needed = [text, *([getattr(source, images)] if images else [])]
    content, encoding = hashlib.sha256(), Encoding()
    runs, seen, trouble = [], set(), None
    for run in scan_lines(file, text, content, encoding):
        ids = [record_id(context.key, path, record.row, record.values.get(source.id_column)) for record in run.records]
        runs.append(ScannedRun(run.start, run.offset, len(ids), hashes(ids), None))
        seen.update(*(record.values for record in run.records))
        trouble = trouble or next((record.trouble for record in run.records if record.trouble), None)
    whole = encoding.trouble(is_plain(path))
    if whole is not None:  # the file's own ids are read in an encoding that it does not have
        runs = [_by_place(context.key, path, run, whole) for run in runs]
        return ScannedFile(path, size, content.hexdigest(), runs, {}, whole)
    if runs and not seen:
        return ScannedFile(path, size, content.hexdigest(), runs, {}, trouble or "its records are empty")
    for column in needed:
        if runs and column not in seen:
            raise CorpusError(f"no column {column!r} in {file}: it has {', '.join(sorted(seen)[:20])}")
    return ScannedFile(path, size, content.hexdigest(), runs, {})


def _by_place(key: str, path: str, run: ScannedRun, trouble: str) -> ScannedRun:
    ids = (record_id(key, path, row, None) for row in range(run.start, run.start + run.n_records))
    return run._replace(order=hashes(ids), trouble=trouble)


def _scan_parquet(context: Context, path: str, size: int) -> ScannedFile:
    source, file = context.source, context.root / path
    with opened(file) as parquet:
        _check_columns(file, parquet, source)
        label = source.label_column if isinstance(source, ImageParquet) and column_type(parquet, source.label_column) else None
        named = column_type(parquet, source.id_column) is not None
        columns = [name for name in (source.id_column if named else None, label) if name]
        runs: list[ScannedRun] = []
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
                runs.append(ScannedRun(first, None, last - first, hashes(ids), labels))
            start = end
        names = label_names(parquet, label) if label else {}
    return ScannedFile(path, size, _sampled(file), runs, names)


def image_paths(file: Place, column: str) -> list[str | None]:
    """The paths beside the images of a file's first row group, as the hub stores them; none where it stores no paths."""
    with opened(file) as parquet:
        kind = column_type(parquet, column)
        if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("path") < 0 or not parquet.num_row_groups:
            return []
        images = _read_group(file, parquet, 0, [f"{column}.path"])[column]
    return [path if isinstance(path, str) else None for path in ((one or {}).get("path") for one in _values(images))]


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


def _check_columns(file: Place, parquet: Any, source: TextFiles | PairFiles | DocumentFiles | ImageParquet) -> None:
    if isinstance(source, TextFiles):
        needed = {source.column: ("text", is_written)}
    elif isinstance(source, PairFiles):
        needed = {
            source.text_column: ("text", is_written),
            source.image_column: ("a path or bytes", _is_listed),
        }
    elif isinstance(source, DocumentFiles):
        needed = {
            source.text_column: ("texts or lists of texts", lambda t: is_written(element_type(t) or t)),
            source.images_column: ("lists of paths or bytes", lambda t: (of := element_type(t)) is not None and _is_listed(of)),
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


def _is_listed(kind: pa.DataType) -> bool:
    """Whether values of this type can say which image is meant: paths, or images themselves; a list of nulls has no type."""
    return is_text(kind) or is_image(kind) or pa.types.is_null(kind)


def _sampled(file: Place) -> str:
    """Hash of the first, the last and evenly spaced blocks, all of a file that is small enough."""
    seen, size = hashlib.sha256(), file.size()
    with file.open(_BLOCK) as raw:
        if size <= _BLOCK * _N_BLOCKS:
            seen.update(raw.read())
            return seen.hexdigest()
        for i in range(_N_BLOCKS):
            raw.seek((size - _BLOCK) * i // (_N_BLOCKS - 1))
            seen.update(raw.read(_BLOCK))
    return seen.hexdigest()


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last one shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
