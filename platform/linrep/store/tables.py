"""Result tables: a schema from `schemas`, a whole parquet file each, visible only when complete."""

import pyarrow as pa
import pyarrow.parquet as pq

from linrep.errors import StoreError
from linrep.places import Place
from linrep.store.commit import WrittenFile
from linrep.store.sealed import SealedWriter, one_line, sealed, without_seal


def write_table(place: Place, path: str, table: pa.Table) -> WrittenFile:
    """Write a result table under a folder; the file appears whole, or not at all, and knows whether it is as it was written.

    Args:
        place: The folder of the artefact.
        path: Name of the file in it.
        table: The rows, in a schema of `schemas`.
    """
    with (place / path).writing() as stream:
        writer = SealedWriter(stream, table.schema, compression="zstd")
        try:
            writer.add(table)
            size, seal = writer.close()
        except BaseException:
            writer.abandon()
            raise
    return WrittenFile(path, len(table), size, seal)


def read_table(
    place: Place,
    path: str,
    columns: list[str] | None = None,
    repair: str | None = None,
    written: WrittenFile | str | None = None,
    schema: pa.Schema | None = None,
) -> pa.Table:
    """The table that `write_table` wrote there.

    Args:
        place: The folder of the artefact.
        path: Name of the file in it.
        columns: Columns to read, None for all.
        repair: What to do where it is damaged, for the error; None to delete the folder.
        written: What was written, where a commit says so, or its seal: another file in its place is refused.
        schema: Its columns and their types, where they are known.

    Raises:
        StoreError: There is no such file, or it is not as it was written.
    """
    file = place / path
    repair = repair or f"delete {place} and run the job that made it again"
    seal, size, n = (
        (written.seal, written.bytes, written.rows) if isinstance(written, WrittenFile) else (written or None, None, None)
    )
    with sealed(file, repair, seal, size) as parquet:
        found = parquet.schema_arrow
        lacking = [name for name in columns or () if name not in found.names]
        other = schema is not None and not found.equals(schema)
        if lacking or other or (n is not None and parquet.metadata.num_rows != n):
            what = f"it has no column {lacking[0]}" if lacking else f"it has {parquet.metadata.num_rows} rows"
            what = f"its columns are {', '.join(found.names)}" if other else what
            raise StoreError(f"{file} is another table than was written ({what}): {repair}")
        return without_seal(parquet.read(columns=columns))


def read_foreign(file: Place, columns: list[str] | None = None) -> pa.Table:
    """A parquet table that anybody may have written, such as a user's labels.

    Raises:
        StoreError: There is no such file, or it is not parquet.
    """
    if not file.is_file():
        raise StoreError(f"no table at {file}")
    try:
        with file.open() as stream:
            return without_seal(pq.read_table(stream, columns=columns))
    except (pa.ArrowException, OSError, KeyError) as error:
        if file.may_pass(error):
            raise
        raise StoreError(f"{file} is not a parquet table: {one_line(error)}") from None


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
