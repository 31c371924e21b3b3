"""Records in parquet files: the schema from the footer, then only the columns and row groups that are asked for."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from linrep.corpora.lines import Record
from linrep.corpora.runs import Piece
from linrep.errors import CorpusError
from linrep.places import Place

_FEW, _MANY = 64, 4096  # rows decoded at a time: images are large, texts are passed over faster in large batches
_AHEAD = 1 << 16  # bytes read at once at least: a column of labels lies in small pieces between the images
_BUFFER = 8 << 20  # bytes read at a time, so that a large column chunk is never held whole


@contextlib.contextmanager
def opened(file: Place) -> Iterator[pq.ParquetFile]:
    """The parquet file, its footer read.

    Raises:
        CorpusError: It is missing, or no parquet file.
    """
    try:
        raw = file.open(_AHEAD)
    except OSError as error:
        if file.may_pass(error):
            raise
        raise CorpusError(f"cannot read {file}: {error}") from error
    with raw:
        try:
            parquet = pq.ParquetFile(raw, buffer_size=_BUFFER)
        except (pa.ArrowException, OSError) as error:
            if file.may_pass(error):
                raise
            raise CorpusError(f"{file} is not a parquet file: {error}") from error
        with parquet:
            yield parquet


def read_columns(file: Place, wanted: list[Piece], columns: Sequence[str]) -> Iterator[Record]:
    """Exactly one record for every row of every piece, in order; rows of a damaged page come with the trouble.

    Columns that the file lacks are left out of the records.

    Raises:
        CorpusError: The file cannot be opened, or has fewer rows than the pieces say.
    """
    rows = [row for piece in wanted for row in piece.rows]
    with opened(file) as parquet:
        n_rows = parquet.metadata.num_rows
        if rows and rows[-1] >= n_rows:
            raise CorpusError(
                f"{file} has {n_rows} rows, not {rows[-1] + 1}: it changed since it was indexed; build the index anew (--reindex)"
            )
        present = [column for column in columns if column in parquet.schema_arrow.names]
        first, at = 0, 0
        for group in range(parquet.num_row_groups):
            last = first + parquet.metadata.row_group(group).num_rows
            until = at
            while until < len(rows) and rows[until] < last:
                until += 1
            if until > at:
                yield from _group(file, parquet, group, first, rows[at:until], present)
            first, at = last, until


def _group(file: Place, parquet: pq.ParquetFile, group: int, first: int, rows: list[int], columns: list[str]) -> Iterator[Record]:
    kinds = [kind for name in columns if (kind := column_type(parquet, name)) is not None]
    large = any(is_image(element_type(kind) or kind) for kind in kinds)
    done = 0
    try:
        for batch in parquet.iter_batches(_FEW if large else _MANY, row_groups=[group], columns=columns):
            own = [row for row in rows[done : done + len(batch)] if row < first + len(batch)]
            # Value by value: `take` knows no string_view, and one value that is not UTF-8 must not cost the others.
            held = {name: batch.column(name) for name in batch.schema.names}
            for row in own:
                yield Record(row, {name: plain(column[row - first]) for name, column in held.items()})
            first, done = first + len(batch), done + len(own)
            if done == len(rows):
                return
        damage: Exception = EOFError("the row group ends early")
    except pa.ArrowNotImplementedError as error:
        raise CorpusError(f"cannot read {', '.join(columns)} of {file}, row group {group}: {error}") from error
    except (pa.ArrowException, OSError) as error:
        if file.may_pass(error):
            raise
        damage = error
    for row in rows[done:]:
        yield Record(row, {}, f"damaged parquet page in row group {group}: {damage}")


def plain(value: Any) -> Any:
    """A Python value of an Arrow scalar; a text that is not UTF-8 stays bytes, and the reader says so."""
    try:
        return value.as_py()
    except UnicodeDecodeError:
        pass
    if pa.types.is_dictionary(value.type):
        value = value.value
    if pa.types.is_struct(value.type):
        return {name: plain(part) for name, part in value.items()}
    if element_type(value.type) is not None:
        return [plain(one) for one in value.values]
    return value.as_buffer().to_pybytes() if is_text(value.type) else None


def column_type(parquet: pq.ParquetFile, name: str) -> pa.DataType | None:
    """Type of a column, without its dictionary encoding or extension; None if the file has no such column."""
    schema = parquet.schema_arrow
    if name not in schema.names:
        return None
    if schema.names.count(name) > 1:
        raise CorpusError(f"column {name!r} is given {schema.names.count(name)} times in one file: rename all but one")
    return _plain_type(schema.field(name).type)


def element_type(kind: pa.DataType) -> pa.DataType | None:
    """Type of the values in a list, likewise; None of what is no list."""
    of = pa.types
    is_list = of.is_list(kind) or of.is_large_list(kind) or of.is_fixed_size_list(kind)
    return _plain_type(kind.value_type) if is_list or of.is_list_view(kind) or of.is_large_list_view(kind) else None


def _plain_type(kind: pa.DataType) -> pa.DataType:
    while isinstance(kind, pa.BaseExtensionType | pa.DictionaryType):
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
    return kind


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are texts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Whether values of this type are bytes."""
    known = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return known or pa.types.is_fixed_size_binary(kind)


def is_written(kind: pa.DataType) -> bool:
    """Whether values of this type are texts, or bytes that may be UTF-8; a column without a value has no type."""
    return is_text(kind) or is_binary(kind) or pa.types.is_null(kind)


def is_image(kind: pa.DataType) -> bool:
    """Whether values of this type can be encoded images: bytes, or the hub's struct of bytes and path."""
    if not pa.types.is_struct(kind):
        return is_binary(kind)
    parts = {name: kind.field(name).type for name in ("bytes", "path") if kind.get_field_index(name) >= 0}
    fits = {"bytes": is_binary, "path": is_text}
    return bool(parts) and all(fits[name](part) or pa.types.is_null(part) for name, part in parts.items())


def is_label(kind: pa.DataType) -> bool:
    """Whether values of this type can name a class: numbers that may be integral, and texts."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or is_written(kind)


def label_names(parquet: pq.ParquetFile, column: str) -> dict[str, str]:
    """Names of integer labels that the hub's `datasets` wrote into the schema; empty if it did not.

    The hub's list of ImageNet gives all words of a synset, "tench, Tinca tinca": the first is taken if it names one class only.
    """
    written = (parquet.schema_arrow.metadata or {}).get(b"huggingface")
    if not written:
        return {}
    try:
        names = json.loads(written)["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return {}
    first = [name.split(",")[0].strip().replace("_", " ") or name for name in names]
    times = Counter(first)
    return {str(i): one if times[one] == 1 else name for i, (one, name) in enumerate(zip(first, names, strict=True))}
