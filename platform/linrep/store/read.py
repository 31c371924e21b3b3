"""Read a store: choose view, layer, modality and split, then take the rows as torch, numpy or polars, lazily."""

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Shaped

from linrep.errors import StoreError
from linrep.places import Place, place
from linrep.records import SUMMARY, only_artefact
from linrep.sample import Split
from linrep.store.commit import PART, Commit, WrittenFile, read_commits, repair, strange_commits
from linrep.store.layout import (
    HIGH_NORM,
    LOCK,
    MANIFEST,
    STATISTICS,
    Modality,
    View,
    commit_file,
    parse_folder,
    samples_file,
    statistics_file,
    vectors_file,
)
from linrep.store.limits import from_records, group_of, limit_of, norm_limits
from linrep.store.manifest import Manifest, read_manifest
from linrep.store.sealed import sealed
from linrep.store.statistics import Sums, from_table, merge
from linrep.store.summary import summary
from linrep.store.tables import read_table
from linrep.store.verify import Verified, verify_store
from schemas import SAMPLES, vectors
from schemas import STATISTICS as STATISTICS_SCHEMA

if TYPE_CHECKING:
    import polars as pl
    import torch

PIECE_BYTES = 4 * 2**20
"""Vectors decoded at a time on their way to a tensor."""


def open(path: str) -> "Store":
    """The activation store in a folder; a workspace that holds just one harvest will do.

    Args:
        path: Local path or URI.

    Raises:
        StoreError: There is no store, or there are several to choose from.
    """
    return read_store(only_artefact(place(path), "harvests", "harvests"))


def read_store(here: Place, to_mend: bool = False) -> "Store":
    """The store in just this folder.

    Args:
        here: The folder.
        to_mend: Whether a complete store that has lost a commit will do: for who harvests its chunk again.

    Raises:
        StoreError: There is none, or its manifest or a commit is damaged or lost.
    """
    manifest = read_manifest(here)
    store = Store(here, manifest, read_commits(here, manifest.n_chunks))
    store.check_files()
    if manifest.status == "complete" and not store.complete and not to_mend:
        lost = next(here / commit_file(chunk) for chunk in range(manifest.n_chunks) if chunk not in store.commits)
        raise StoreError(
            f"{lost} is missing, though {MANIFEST} says that the store of {manifest.n_chunks:,} chunks is complete: "
            "run jobs/harvest.py with the same recipe again"
        )
    return store


@dataclass(frozen=True)
class Store:
    """An activation store: what its commits name, and nothing else.

    Attributes:
        place: Where it lies.
        manifest: What it is.
        commits: What was written, by chunk.
    """

    place: Place
    manifest: Manifest
    commits: dict[int, Commit]

    @property
    def complete(self) -> bool:
        """Whether every chunk is committed."""
        return all(chunk in self.commits for chunk in range(self.manifest.n_chunks))

    def select(
        self,
        view: View,
        layer: int,
        modality: Modality | None = None,
        split: Split | None = None,
        special: bool | None = None,
        high_norm: bool | None = False,
    ) -> "Selection":
        """The rows of one view and layer; nothing is read yet.

        Args:
            view: pooled, tokens or last.
            layer: Layer k, the residual stream entering block k.
            modality: image or text; None for both, image first. What is no patch and no newline stands under text, so in the
                tokens view that holds also the start, prompt and template tokens of photographs.
            split: train, val or test; None for all.
            special: False leaves out start, prompt and template tokens, True all others; None takes all. Means hold none.
            high_norm: False leaves out tokens above the store's limit (attention sinks), True all others; None takes all. Means
                hold none.

        Raises:
            StoreError: The store lacks this view or layer.
        """
        if view not in self.manifest.views:
            raise StoreError(f"no view {view!r} in {self.place}: it has {', '.join(self.manifest.views)}")
        if layer not in self.manifest.layers:
            raise StoreError(f"no layer {layer} in {self.place}: it has {', '.join(map(str, self.manifest.layers))}")
        if split not in (None, *get_args(Split)):
            raise StoreError(f"no split {split!r}: there are train, val and test")
        if modality not in (None, *get_args(Modality)):
            raise StoreError(f"no modality {modality!r}: there are image and text")
        modalities = get_args(Modality) if modality is None else (modality,)
        files = [file for m in modalities for file in self._files(f"{view}/layer={layer}/modality={m}/")]
        return self.reading(files, split, special, high_norm)

    def reading(
        self,
        files: Sequence[WrittenFile],
        split: Split | None = None,
        special: bool | None = None,
        high_norm: bool | None = False,
    ) -> "Selection":
        """The rows of some files of vectors, as `select` gives them."""
        folders = {file.path.rsplit("/", 1)[0]: file.path for file in files} if high_norm is not None else {}
        limits = {folder: self.limit(*found) for folder, path in folders.items() if (found := parse_folder(path)) is not None}
        if not high_norm:
            limits = {folder: limit for folder, limit in limits.items() if limit < float("inf")}
        manifest = self.manifest
        return Selection(self.place, tuple(files), manifest.width, manifest.dtype, split, special, bool(high_norm), limits)

    def limit(self, view: View, layer: int, modality: Modality) -> float:
        """The norm above which a row is kept apart; infinite where none is.

        The manifest says it. A store without limits there is measured by its statistics, or else by the norms of its rows.
        """
        group, factor = group_of(view, modality), self.manifest.harvest.get("high_norm", HIGH_NORM)
        if group is None or factor is None:
            return float("inf")
        key = (layer, group)
        if self.manifest.limits:
            return self._limits.get(key, float("inf"))
        if key not in self._limits:
            files = self._files(f"{view}/layer={layer}/modality={modality}/")
            whole = Selection(self.place, tuple(files), self.manifest.width, self.manifest.dtype, None)
            self._limits[key] = limit_of(whole.table(["norm", "is_special"]), factor)
        return self._limits[key]

    @cached_property
    def _limits(self) -> dict[tuple[int, str], float]:
        if self.manifest.limits or (self.manifest.status == "complete" and not (self.place / STATISTICS).is_file()):
            return from_records(self.manifest.limits)
        return dict(norm_limits(self.statistics(), self.manifest.harvest.get("high_norm", HIGH_NORM)))

    def samples(self) -> pa.Table:
        """The samples of all committed chunks, skipped ones included (their `error` says why)."""
        tables = [self.samples_of(chunk) for chunk in sorted(self.commits)]
        return pa.concat_tables(tables) if tables else SAMPLES.empty_table()

    def samples_of(self, chunk: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The samples of one committed chunk.

        Args:
            chunk: Its number.
            columns: Columns to read, None for all.
        """
        file = self._file(chunk, samples_file(chunk))
        names = None if columns is None else list(columns)
        return read_table(self.place, file.path, names, repair(self.place, file), file, SAMPLES)

    def statistics(self) -> dict[tuple[int, str], Sums]:
        """Sums by layer and group over all tokens, drawn for the tokens view or not; those of high norm are only counted."""
        if self.manifest.status == "complete":
            again = "delete it and run jobs/harvest.py with the same recipe again: it only adds up the chunks' own"
            sums = from_table(read_table(self.place, STATISTICS, None, again, self.manifest.statistics_seal, STATISTICS_SCHEMA))
            listed = {(s["layer"], s["group"]): s["n"] for s in self.manifest.statistics}
            if listed and listed != {key: own.n for key, own in sums.items()}:
                raise StoreError(f"{self.place / STATISTICS} is of another store than {self.place / MANIFEST}: {again}")
            return sums
        files = [self._file(chunk, statistics_file(chunk)) for chunk in sorted(self.commits)]
        return merge(from_table(read_table(self.place, f.path, None, repair(self.place, f), f, STATISTICS_SCHEMA)) for f in files)

    def _files(self, prefix: str) -> list[WrittenFile]:
        return [file for _, commit in sorted(self.commits.items()) for file in commit.files if file.path.startswith(prefix)]

    def _file(self, chunk: int, path: str) -> WrittenFile:
        return next(file for file in self.commits[chunk].files if file.path == path)

    def check_files(self) -> None:
        """Hold what the commits name against the layout: nothing is opened.

        Raises:
            StoreError: A commit lacks its samples or sums, or names a file that the manifest has no place for.
        """
        for chunk, commit in self.commits.items():
            own, known = {samples_file(chunk), statistics_file(chunk)}, self._layout(chunk)
            named = {file.path for file in commit.files}
            for paths, what in ((named - known, "names {}, which manifest.json has no place for"), (own - named, "lacks {}")):
                if paths:
                    again = "delete it and run the same job again: it makes the chunk anew"
                    raise StoreError(f"{self.place / commit_file(chunk)} {what.format(min(paths))}: {again}")

    def _layout(self, chunk: int) -> set[str]:
        """Every file that a chunk of this store may have."""
        views, layers = self.manifest.views, self.manifest.layers
        known = {vectors_file(view, layer, m, chunk) for view in views for layer in layers for m in get_args(Modality)}
        return known | {samples_file(chunk), statistics_file(chunk)}

    def strangers(self) -> list[str]:
        """Files in the store that it does not know, which no reader reads: paths from its folder, sorted.

        Files of chunks that are not committed yet do not count.
        """
        known = {MANIFEST, STATISTICS, SUMMARY, LOCK, *(file.path for commit in self.commits.values() for file in commit.files)}
        known |= {commit_file(chunk) for chunk in self.commits}
        return sorted(path for path, _ in self.place.walk() if path not in known and not self._pending(path))

    def _pending(self, path: str) -> bool:
        """Whether a path is that of a file of a chunk that is not committed yet."""
        found = PART.search(path)
        chunk = int(found.group(1)) if found else -1
        return 0 <= chunk < self.manifest.n_chunks and chunk not in self.commits and path in self._layout(chunk)

    def verify(self) -> "Verified":
        """Read every file whole and hold it against the sums that were taken when it was written."""
        return verify_store(self)

    def __repr__(self) -> str:
        strange = self.strangers() if self.place.local else strange_commits(self.place, self.manifest.n_chunks)
        return summary(str(self.place), self.manifest, self.commits, strange)

    __str__ = __repr__


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
        high_norm: Where a folder has a limit, whether rows above it are taken alone, or left out.
        limits: Norm above which a row is high, by folder.
    """

    place: Place
    files: tuple[WrittenFile, ...]
    width: int
    dtype: str
    split: Split | None
    special: bool | None = None
    high_norm: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)

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
        limit = self.limits.get(file.path.rsplit("/", 1)[0])
        if limit is None or (not self.high_norm and _largest(parquet, "norm") <= limit):
            return self._asked
        norm = pc.field("norm")
        # What is not finite is broken, not high, and is told as such by those who look for it.
        high = (norm > limit) & (norm < float("inf"))
        return {**self._asked, "norm": high if self.high_norm else ~high}

    def takes(self, file: WrittenFile, norms: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which rows of a file it takes as far as their norms say."""
        high = (norms > self.limits.get(file.path.rsplit("/", 1)[0], float("inf"))) & np.isfinite(norms)
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
    def open_file(self, file: WrittenFile) -> Iterator[pq.ParquetFile]:
        """One of the files, held against its commit and the manifest; what is read of it is checked.

        Raises:
            StoreError: It is missing, is not as it was written, or holds vectors of another width or number format.
        """
        where, again = self.place / file.path, repair(self.place, file)
        with sealed(where, again, file.seal, file.bytes) as parquet:
            wanted, found = vectors(self.width, self.dtype), parquet.schema_arrow
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
        schema = vectors(self.width, self.dtype).remove_metadata()
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
        import torch

        raw = self._raw()
        return torch.from_numpy(raw.view(np.int16)).view(torch.bfloat16) if self.dtype == "bfloat16" else torch.from_numpy(raw)

    def _raw(self) -> Shaped[np.ndarray, "n d"]:
        kind = np.dtype("<u2" if self.dtype == "bfloat16" else np.dtype(self.dtype).newbyteorder("<"))
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

        empty = pl.DataFrame(pl.from_arrow(vectors(self.width, self.dtype).empty_table()))

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
    """The largest value of a column that the footer tells; infinite where it does not."""
    largest = 0.0
    for i in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(i)
        found = next((c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column), None)
        if found is None or not found.is_stats_set or not found.statistics.has_min_max:
            return float("inf")
        largest = max(largest, float(found.statistics.max))
    return largest


def as_array(column: pa.FixedSizeBinaryArray, width: int, kind: np.dtype) -> Shaped[np.ndarray, "n d"]:
    """A view of a vector column's memory: no copy."""
    size = width * kind.itemsize
    data = column.buffers()[1]
    if data is None:
        return np.empty((0, width), kind)
    return np.frombuffer(data, kind, len(column) * width, column.offset * size).reshape(-1, width)
