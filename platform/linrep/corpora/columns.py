"""Records in parquet files: the schema from the footer, then only the columns and row groups that are asked for."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from linrep.corpora.lines import Record
from linrep.corpora.runs import Piece
from linrep.errors import CorpusError
from linrep.places import Place

_FEW, _MANY = 64, 4096  # rows decoded at a time: photographs are large, texts are passed over faster in large batches
_BUFFER = 8 << 20  # bytes read at a time, so that a large column chunk is never held whole


@contextlib.contextmanager
def opened(file: Place) -> Iterator[pq.ParquetFile]:
    """The parquet file, its footer read.

    Raises:
        CorpusError: It is missing, or no parquet file.
    """
    try:
        raw = file.open()
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
    large = any(is_picture(kind) for name in columns if (kind := column_type(parquet, name)) is not None)
    done = 0
    try:
        for batch in parquet.iter_batches(_FEW if large else _MANY, row_groups=[group], columns=columns):
            own = [row for row in rows[done : done + len(batch)] if row < first + len(batch)]
            for row, values in zip(own, _values(batch.take([row - first for row in own])) if own else [], strict=True):
                yield Record(row, values)
            first, done = first + len(batch), done + len(own)
            if done == len(rows):
                return
        damage: Exception = EOFError("the row group ends early")
    except (pa.ArrowException, OSError) as error:
        if file.may_pass(error):
            raise
        damage = error
    for row in rows[done:]:
        yield Record(row, {}, f"damaged parquet page in row group {group}: {damage}")


def _values(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:  # a string column with bytes that are not UTF-8: they stay bytes, and the reader says so
        columns = {name: [_plain(value) for value in batch.column(name)] for name in batch.schema.names}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return value.as_buffer().to_pybytes() if is_text(value.type) else None


def column_type(parquet: pq.ParquetFile, name: str) -> pa.DataType | None:
    """Type of a column, without its dictionary encoding; None if the file has no such column."""
    schema = parquet.schema_arrow
    if name not in schema.names:
        return None
    kind = schema.field(name).type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are texts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_picture(kind: pa.DataType) -> bool:
    """Whether values of this type can be encoded photographs: bytes, or the hub's struct of bytes and path."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 or kind.get_field_index("path") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def label_names(parquet: pq.ParquetFile, column: str) -> dict[str, str]:
    """Names of integer labels that the hub's `datasets` wrote into the schema; empty if it did not."""
    written = (parquet.schema_arrow.metadata or {}).get(b"huggingface")
    if not written:
        return {}
    try:
        names = json.loads(written)["info"]["features"][column]["names"]
        return {str(number): str(name) for number, name in enumerate(names)}
    except (ValueError, KeyError, TypeError):
        return {}
