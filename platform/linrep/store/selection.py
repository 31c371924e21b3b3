"""Rows of a store that were chosen, read when asked for: as torch, numpy or polars, or batch by batch."""

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Shaped

from linrep.errors import StoreError
from linrep.places import Place
from linrep.sample import Split
from linrep.store.commit import WrittenFile, repair
from linrep.store.layout import StoredSite
from linrep.store.sealed import Opened, sealed
from schemas.activations import vectors_of

if TYPE_CHECKING:
    import polars as pl
    import torch

PIECE_BYTES = 4 * 2**20
"""Vectors decoded at a time on their way to a tensor."""


@dataclass(frozen=True)
class Selection:
    """Some rows of a store, read when asked for.

    Attributes:
        place: The store.
        files: Parquet files, in the order of chunks.
        width: Dimensions of a vector (d).
        dtype: Number format of the vectors on disk.
        split: Rows of other splits are left out.
        special: Rows that are (or are not) start, prompt and template tokens are left out, see `Store.select`.
        high_norm: Where a file has a limit, whether rows above it are taken alone, or left out.
        limits: Norm above which a row is high, by path of the file: each source has its own.
        site: Where in the model the rows were recorded.
    """

    place: Place
    files: tuple[WrittenFile, ...]
    width: int
    dtype: str
    split: Split | None
    special: bool | None = None
    high_norm: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    site: StoredSite = "residual"

    @property
    def schema(self) -> pa.Schema:
        """The contract of its rows."""
        return vectors_of(self.site, self.width, self.dtype)

    def __len__(self) -> int:
        return self._n_rows

    @cached_property
    def _n_rows(self) -> int:
        if not self._asked and not self.limits:
            return sum(file.rows for file in self.files)
        return len(self.table(["split"]))

    @property
    def _asked(self) -> dict[str, pc.Expression]:
        """What rows must fulfil, by the column that says so."""
        asked = {}
        if self.split is not None:
            asked["split"] = pc.field("split") == self.split
        if self.special is not None:
            marked = pc.field("is_special")
            asked["is_special"] = marked if self.special else marked.is_null() | ~marked
        return asked

    def _asked_of(self, file: WrittenFile, parquet: pq.ParquetFile) -> dict[str, pc.Expression]:
        """What rows of a file must fulfil; its footer says whether any of its norms can be high."""
        limit = self.limits.get(file.path)
        if limit is None or (not self.high_norm and _largest(parquet, "norm") <= limit):
            return self._asked
        norm = pc.field("norm")
        # What is not finite is broken, not high, and is reported as such by those who look for it.
        high = (norm > limit) & (norm < float("inf"))
        return {**self._asked, "norm": high if self.high_norm else ~high}

    def takes(self, file: WrittenFile, norms: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which rows of a file it takes as far as their norms say."""
        high = (norms > self.limits.get(file.path, float("inf"))) & np.isfinite(norms)
        return high if self.high_norm else ~high

    def batches(self, columns: Sequence[str] | None = None, batch_size: int = 8192) -> Iterator[pa.RecordBatch]:
        """The rows in order, in pieces, without holding more than a piece.

        Args:
            columns: Columns to read, None for all.
            batch_size: Rows in a piece, at most.
        """
        wanted = None if columns is None else list(columns)
        for file in self.files:
            with self.open_file(file) as parquet:
                asked = self._asked_of(file, parquet)
                read = None if wanted is None else list(dict.fromkeys([*wanted, *asked]))
                for batch in parquet.iter_batches(batch_size, columns=read, use_threads=True):
                    kept = batch.filter(_all(asked)) if asked else batch
                    yield kept if wanted is None else kept.select(wanted)

    @contextmanager
    def open_file(
        self, file: WrittenFile, span: tuple[int, int] | None = None, opened: Opened | None = None
    ) -> Iterator[pq.ParquetFile]:
        """One of the files, held against its commit and the manifest; what is read of it is checked.

        Args:
            file: Which.
            span: See `linrep.store.sealed.sealed`.
            opened: Likewise.

        Raises:
            StoreError: It is missing, is not as it was written, or holds vectors of another width or number format.
        """
        where, again = self.place / file.path, repair(self.place, file)
        with sealed(where, again, file.seal, file.bytes, span, opened) as parquet:
            wanted, found = self.schema, parquet.schema_arrow
            at = found.get_field_index("vector")
            if at < 0 or found.field(at).type != wanted.field("vector").type:
                kind = found.field(at).type if at >= 0 else "nothing"
                raise StoreError(
                    f"{where} holds vectors of type {kind}, but the manifest says width {self.width} in {self.dtype} "
                    f"({wanted.field('vector').type}): {again}"
                )
            said = (found.field(at).metadata or {}).get(b"dtype", b"").decode()
            if said != self.dtype or not found.equals(wanted):
                what = (
                    f"in {said}, but the manifest says {self.dtype}"
                    if said != self.dtype
                    else "in other columns than this version"
                )
                raise StoreError(f"{where} holds vectors {what}: {again}")
            if parquet.metadata.num_rows != file.rows:
                raise StoreError(f"{where} holds {parquet.metadata.num_rows:,} rows, but its commit says {file.rows:,}: {again}")
            yield parquet

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows as an Arrow table; vectors stay bytes, see `numpy` and `torch`."""
        schema = self.schema.remove_metadata()
        names = schema.names if columns is None else list(columns)
        empty = pa.schema([schema.field(name) for name in names]).empty_table()
        tables = [self._table(file, names) for file in self.files]
        return pa.concat_tables(tables) if tables else empty

    def _table(self, file: WrittenFile, names: list[str]) -> pa.Table:
        with self.open_file(file) as parquet:
            asked = self._asked_of(file, parquet)
            table = parquet.read(columns=list(dict.fromkeys([*names, *asked]))).replace_schema_metadata()
        return table.filter(_all(asked)).select(names) if asked else table

    def numpy(self) -> Float[np.ndarray, "n d"]:
        """The vectors; bfloat16, which numpy lacks, comes as float32."""
        raw = self._raw()
        if self.dtype == "bfloat16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw

    def torch(self) -> "Float[torch.Tensor, 'n d']":
        """The vectors, in the number format of the store."""
        return as_tensor(self._raw(), self.dtype)

    def _raw(self) -> Shaped[np.ndarray, "n d"]:
        kind = raw_kind(self.dtype)
        out = np.empty((len(self), self.width), kind)
        start = 0
        # Piece by piece: one stays in the cache, and its memory is used again; a whole table takes new memory.
        for batch in self.batches(["vector"], max(PIECE_BYTES // (self.width * kind.itemsize), 1)):
            out[start : start + len(batch)] = as_array(batch["vector"], self.width, kind)
            start += len(batch)
        assert start == len(out), "every file holds the rows that its commit says"
        return out

    def scan(self) -> "pl.LazyFrame":
        """The rows as a lazy polars frame; vectors are binary."""
        import polars as pl
        from polars.io.plugins import register_io_source

        empty = pl.DataFrame(pl.from_arrow(self.schema.empty_table()))

        # Our own reader under polars' lazy frame: what polars reads is checked as everything else is.
        def read(
            columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
        ) -> Iterator[pl.DataFrame]:
            for batch in self.batches(columns, batch_size or 8192):
                if n_rows is not None:
                    batch, n_rows = batch.slice(0, n_rows), max(0, n_rows - len(batch))
                frame = pl.DataFrame(pl.from_arrow(batch))
                yield frame if predicate is None else frame.filter(predicate)
                if n_rows == 0:
                    break

        return register_io_source(read, schema=empty.schema)

    def polars(self) -> "pl.DataFrame":
        """The rows as a polars frame; vectors are binary."""
        return self.scan().collect()


def _all(asked: dict[str, pc.Expression]) -> pc.Expression:
    return functools.reduce(operator.and_, asked.values())


def _largest(parquet: pq.ParquetFile, column: str) -> float:
    """The largest value of a column that the footer gives; infinite where it does not."""
    largest = 0.0
    for i in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(i)
        found = next((c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column), None)
        if found is None or not found.is_stats_set or not found.statistics.has_min_max:
            return float("inf")
        largest = max(largest, float(found.statistics.max))
    return largest


def raw_kind(dtype: str) -> np.dtype:
    """How numpy holds vectors of a store's number format: bfloat16, which it lacks, as 16 bits."""
    return np.dtype("<u2" if dtype == "bfloat16" else np.dtype(dtype).newbyteorder("<"))


def as_tensor(raw: Shaped[np.ndarray, "n d"], dtype: str) -> "Shaped[torch.Tensor, 'n d']":
    """Vectors that numpy holds as `raw_kind` says, as torch has them: the same memory, which must be writable."""
    import torch

    return torch.from_numpy(raw.view(np.int16)).view(torch.bfloat16) if dtype == "bfloat16" else torch.from_numpy(raw)


def as_array(column: pa.FixedSizeBinaryArray, width: int, kind: np.dtype) -> Shaped[np.ndarray, "n d"]:
    """A view of a vector column's memory: no copy."""
    size = width * kind.itemsize
    data = column.buffers()[1]
    if data is None:
        return np.empty((0, width), kind)
    return np.frombuffer(data, kind, len(column) * width, column.offset * size).reshape(-1, width)
