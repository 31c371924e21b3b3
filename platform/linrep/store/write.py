"""Write one chunk: files grow under temporary names, get their names together (in a store many at once), the commit follows."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped

from linrep.ahead import in_order
from linrep.errors import StoreError
from linrep.places import PendingFile, Place
from linrep.store.commit import Commit, TakenFiles, WrittenFile, repair, write_commit
from linrep.store.layout import NO_LAYER, STATISTICS, Folder, Modality, parse_folder, samples_file, statistics_file, vectors_file
from linrep.store.sealed import SealedWriter, verify
from linrep.store.statistics import Sums, to_table
from linrep.store.tables import write_table
from schemas import SAMPLES

ROW_GROUP_BYTES = 32 * 2**20
"""Vectors wait in memory until a row group of this size is full: large enough to read fast, small enough to shuffle by."""


class ChunkWriter:
    """Takes the rows of one chunk and commits them as a whole; see `writing_chunk`."""

    def __init__(self, place: Place, chunk: int, schema: pa.Schema) -> None:
        """Prepare to write; no file is made yet.

        Args:
            place: The store.
            chunk: Number of the chunk.
            schema: Contract of the vector tables; those of the vision tower bring their own.
        """
        self._place, self._chunk, self._schema = place, chunk, schema
        self._files: dict[str, _ParquetFile] = {}
        self._taken: list[WrittenFile] = []
        self._waiting: dict[str, list[pa.Table]] = defaultdict(list)

    def vectors(self, folder: Folder, layer: int, modality: Modality, table: pa.Table) -> None:
        """Add rows to one view of a site, of one layer and modality."""
        if not len(table):
            return
        name = vectors_file(folder, layer, modality, self._chunk)
        waiting = self._waiting[name]
        waiting.append(table)
        if sum(t.nbytes for t in waiting) >= ROW_GROUP_BYTES:
            self._flush(name)

    def take(self, other: Place, file: WrittenFile) -> None:
        """Take a file of vectors of another store as it is, by the name that it has here. There it stays.

        Raises:
            StoreError: It is missing there, or not as it was written.
        """
        found = parse_folder(file.path)
        assert found is not None, file.path
        own, again = replace(file, path=vectors_file(*found, self._chunk)), repair(other, file)
        # Where a file of this name was left without a commit, somebody may have found it damaged, and have deleted the commit.
        verify(other / file.path, again, file.seal, file.bytes, whole=(self._place / own.path).is_file())
        try:
            (other / file.path).copy_to(self._place / own.path)
        except FileNotFoundError:
            raise StoreError(f"{other / file.path} is missing: {again}") from None
        self._taken.append(own)

    def _flush(self, name: str) -> None:
        tables, found = self._waiting.pop(name), parse_folder(name)
        if name not in self._files:
            schema = tables[0].schema if found is not None and found[1] == NO_LAYER else self._schema
            self._files[name] = _ParquetFile(self._place, name, schema)
        self._files[name].add(pa.concat_tables(tables))

    def commit(
        self,
        samples: pa.Table,
        sums: dict[tuple[int, str], Sums],
        n_samples: int,
        n_tokens: int,
        skipped: tuple[tuple[str, str], ...],
        seconds: float,
        precision: str,
        taken: tuple[TakenFiles, ...] = (),
    ) -> Commit:
        """Write what is left, give all files their names, and record the commit last."""
        for name in list(self._waiting):
            self._flush(name)
        statistics = to_table(sums)
        for name, table in ((samples_file(self._chunk), samples), (statistics_file(self._chunk), statistics)):
            self._files[name] = _ParquetFile(self._place, name, table.schema)
            self._files[name].add(table)
        published = in_order(_ParquetFile.publish, self._files.values(), self._place.at_once)
        files = (*self._taken, *published)
        commit = Commit(self._chunk, files, n_samples, n_tokens, skipped, seconds, precision, taken)
        write_commit(self._place, commit)
        return commit

    def discard(self) -> None:
        """Leave no unfinished file behind."""
        for file in self._files.values():
            file.discard()


@contextlib.contextmanager
def writing_chunk(place: Place, chunk: int, schema: pa.Schema) -> Iterator[ChunkWriter]:
    """A chunk to write; what was not committed when the block ends is discarded."""
    writer = ChunkWriter(place, chunk, schema)
    try:
        yield writer
    finally:
        writer.discard()


class _ParquetFile:
    """One parquet file on its way to its name."""

    def __init__(self, place: Place, name: str, schema: pa.Schema) -> None:
        self._pending = PendingFile(place / name)
        self._name, self._rows, self._published = name, 0, False
        plain = [field.name for field in schema if field.name != "vector"]
        # Dictionary, compression and min-max statistics cost time on vectors and gain nothing.
        self._writer = SealedWriter(
            self._pending.stream,
            schema,
            compression={name: "NONE" if name == "vector" else "ZSTD" for name in schema.names},
            use_dictionary=[name for name in plain if name != "norm"],
            write_statistics=plain,
            data_page_size=8 * 2**20,
            store_schema=True,
        )

    def add(self, table: pa.Table) -> None:
        """Write a row group."""
        self._writer.add(table, row_group_size=max(len(table), 1))
        self._rows += len(table)

    def publish(self) -> WrittenFile:
        """Finish the file and give it its name."""
        size, seal = self._writer.close()
        self._pending.publish()
        self._published = True
        return WrittenFile(self._name, self._rows, size, seal)

    def discard(self) -> None:
        """Remove the file unless it was published; never raises, as `PendingFile.discard`."""
        if not self._published:
            self._writer.abandon()
            self._pending.discard()


def write_statistics(place: Place, sums: dict[tuple[int, str], Sums]) -> str:
    """Write the sums over the whole store; gives the file's seal."""
    return write_table(place, STATISTICS, to_table(sums)).seal


def samples_table(rows: list[dict[str, object]]) -> pa.Table:
    """Rows of the samples contract as a table."""
    return pa.Table.from_pylist(rows, schema=SAMPLES)


def vector_column(vectors: Shaped[np.ndarray, "n d"]) -> pa.Array:
    """Vectors as a fixed-size binary column, without a copy where the array is contiguous."""
    flat = np.ascontiguousarray(vectors)
    width = flat.dtype.itemsize * flat.shape[1]
    return pa.Array.from_buffers(pa.binary(width), len(flat), [None, pa.py_buffer(flat)])
