"""Result tables: a schema from `schemas`, a whole parquet file each, visible only when complete."""

import pyarrow as pa
import pyarrow.parquet as pq

from linrep.errors import StoreError
from linrep.places import Place


def write_table(place: Place, path: str, table: pa.Table) -> None:
    """Write a result table under a folder; the file appears whole, or not at all.

    Args:
        place: The folder of the artefact.
        path: Name of the file in it.
        table: The rows, in a schema of `schemas`.
    """
    with (place / path).writing() as stream:
        pq.write_table(table, stream, compression="zstd")


def read_table(place: Place, path: str, columns: list[str] | None = None) -> pa.Table:
    """The table that lies there.

    Args:
        place: The folder of the artefact.
        path: Name of the file in it.
        columns: Columns to read, None for all.

    Raises:
        StoreError: There is no such file, or it is not parquet.
    """
    file = place / path
    if not file.is_file():
        raise StoreError(f"no table at {file}")
    try:
        with file.open() as stream:
            return pq.read_table(stream, columns=columns)
    except pa.ArrowInvalid as error:
        raise StoreError(f"{file} is not a parquet table: {error}") from None


def table_of(rows: list[dict[str, object]], schema: pa.Schema) -> pa.Table:
    """Rows of plain values as a table of the schema; a column that a row lacks is null.

    Raises:
        StoreError: A row has a field that the schema lacks, or lacks one that must not be null.
    """
    names, needed = set(schema.names), {field.name for field in schema if not field.nullable}
    for row in rows:
        unknown = sorted(row.keys() - names)
        missing = sorted(name for name in needed if row.get(name) is None)
        if unknown or missing:
            raise StoreError(f"a row does not fit its schema: unknown {unknown}, missing {missing}")
    return pa.Table.from_pylist(rows, schema=schema)
