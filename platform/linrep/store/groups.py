"""Row groups of a store's files: found from footers, checked against the manifest, read with only the rows that count."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int64, Shaped

from linrep.ahead import in_order
from linrep.sample import Split
from linrep.store.commit import WrittenFile
from linrep.store.sealed import Opened
from linrep.store.selection import Selection, as_array

EXPONENTS = {"float16": ("<u2", 0x7C00), "bfloat16": ("<u2", 0x7F80), "float32": ("<u4", 0x7F800000)}
"""Integers of the same size, and the bits that are all set in what is infinite or no number."""
READ = ("split", "is_special", "norm", "vector")
"""Columns that say which rows count, and what they are: neighbours in a file, but for the null ones between them."""
AT_ONCE = 16
"""Files whose footers and small columns are read at once."""
LOOKED_AT = 32
"""Files whose rows are counted one by one; of more, the others are taken to be like these."""


@dataclass(frozen=True)
class RowGroup:
    """A row group.

    Attributes:
        file: Its file in the store.
        number: Its number there.
        rows: Its rows before anything is left out.
        span: Where in the file `read_group` reads: bytes from and up to.
    """

    file: WrittenFile
    number: int
    rows: int
    span: tuple[int, int]

    @property
    def path(self) -> str:
        """Of its file."""
        return self.file.path


@dataclass(frozen=True)
class Keep:
    """Which rows count.

    Attributes:
        split: Rows of other splits are passed over; None takes all.
        special: Whether start, prompt and template tokens count.
        limit: Rows of a larger norm are left out, or scaled down to it; infinite where there is no limit.
        clip: Whether they are scaled down.
        limits: The limit of each file, by its path, where files have their own.
    """

    split: Split | None = None
    special: bool = False
    limit: float = float("inf")
    clip: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)

    def of(self, table: pa.Table) -> tuple[Bool[np.ndarray, " n"], int]:
        """The rows of the split that count, whatever their vectors; and how many of the split's are special and do not."""
        here = np.ones(len(table), bool)
        if self.split is not None:
            here = np.asarray(table["split"].to_numpy(zero_copy_only=False)) == self.split
        if self.special:
            return here, 0
        marked = table["is_special"].fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
        return here & ~marked, int((here & marked).sum())

    def limit_of(self, path: str) -> float:
        """The limit of a file's rows."""
        return self.limits.get(path, self.limit)


@dataclass(frozen=True)
class GroupRows:
    """The rows of one group that count.

    Attributes:
        vectors: In the number format of the store; bfloat16 as its 16 bits.
        factors: What to multiply each row by, to bring it down to the largest norm; None where no row needs it.
        left_out: Rows of the split that do not count, by reason.
        first_nonfinite: Where the first row that is not finite stands, in words.
    """

    vectors: Shaped[np.ndarray, "n d"]
    factors: Float[np.ndarray, " n"] | None
    left_out: dict[str, int]
    first_nonfinite: str | None = None


def row_groups(selection: Selection) -> tuple[RowGroup, ...]:
    """The row groups of a selection's files, in their order; nothing but footers is read.

    Raises:
        StoreError: A file is missing, is not as it was written, or holds vectors of another width than the manifest says.
    """
    found = in_order(lambda file: _groups(selection, file), selection.files, AT_ONCE)
    return tuple(group for groups in found for group in groups)


def _groups(selection: Selection, file: WrittenFile) -> list[RowGroup]:
    with selection.open_file(file) as parquet:
        groups = map(parquet.metadata.row_group, range(parquet.num_row_groups))
        return [RowGroup(file, i, group.num_rows, _span(group)) for i, group in enumerate(groups)]


def _span(group: pq.RowGroupMetaData) -> tuple[int, int]:
    columns = [column for column in map(group.column, range(group.num_columns)) if column.path_in_schema in READ]
    starts = [min(filter(None, (column.data_page_offset, column.dictionary_page_offset))) for column in columns]
    return min(starts), max(start + column.total_compressed_size for start, column in zip(starts, columns, strict=True))


def count_rows(selection: Selection, keep: Keep) -> tuple[int, bool]:
    """How many rows count, and whether they were all counted or estimated from some of the files.

    High norms and numbers that are not finite are not looked for.
    """
    files = selection.files
    looked_at = files if len(files) <= LOOKED_AT else [files[i] for i in np.linspace(0, len(files) - 1, LOOKED_AT).astype(int)]

    def count(file: WrittenFile) -> int:
        with selection.open_file(file) as parquet:
            return int(keep.of(parquet.read(columns=["split", "is_special"]))[0].sum())

    counted = sum(in_order(count, looked_at, AT_ONCE))
    if len(looked_at) == len(files):
        return counted, True
    share = counted / max(sum(file.rows for file in looked_at), 1)
    return round(share * sum(file.rows for file in files)), False


def read_group(selection: Selection, group: RowGroup, keep: Keep, opened: Opened | None = None) -> GroupRows:
    """The rows of a group that count.

    Args:
        selection: The store's files.
        group: Which group.
        keep: Which rows.
        opened: Files that were opened before, see `linrep.store.sealed.sealed`.

    Raises:
        StoreError: The group cannot be read.
    """
    with selection.open_file(group.file, group.span, opened) as parquet:
        table = parquet.read_row_group(group.number, columns=list(READ), use_threads=False)
    kept, n_special = keep.of(table)
    kind, bits = EXPONENTS[selection.dtype]
    raw = np.concatenate(
        [as_array(chunk, selection.width, np.dtype(kind)) for chunk in table["vector"].chunks] or [_none(selection)]
    )
    # Before norms: an infinite row has an infinite one, and would pass for a row that is only too long.
    broken = kept & ((raw & bits) == bits).any(1)
    first = None
    if broken.any():
        position = int(np.flatnonzero(broken)[0])
        first = f"row {position} of row group {group.number} of {group.path}"
    kept = kept & ~broken
    norms, limit = table["norm"].to_numpy(), keep.limit_of(group.path)
    high = kept & (norms > limit)
    left = {"special": n_special, "high_norm": int(high.sum()), "nonfinite": int(broken.sum())}
    factors = None
    if not keep.clip:
        kept = kept & ~high
    elif left["high_norm"]:
        lengths = norms[kept].astype(np.float32)
        factors = np.minimum(1.0, np.float32(limit) / np.maximum(lengths, np.finfo(np.float32).tiny))
    vectors = raw if kept.all() else raw[kept]
    return GroupRows(vectors, factors, left, first)


def rows_of_samples(
    selection: Selection, numbers: Mapping[str, int]
) -> tuple[Shaped[np.ndarray, "n d"], Int64[np.ndarray, " n"]]:
    """The rows of some samples that the selection takes, finite or not, and the number of the sample of each.

    Vectors are read only where a sample is.

    Args:
        selection: The store's files.
        numbers: A number for each sample that is wanted.
    """
    wanted = pa.array(list(numbers))
    values = np.array(list(numbers.values()), np.int64)
    vectors, owners = [_none(selection)], [np.empty(0, np.int64)]
    for file in selection.files:
        with selection.open_file(file) as parquet:
            for i in range(parquet.num_row_groups):
                known = parquet.read_row_group(i, columns=["sample_id", "norm"])
                places = pc.call_function("index_in", [known["sample_id"]], pc.SetLookupOptions(value_set=wanted))
                found = places.is_valid().to_numpy() & selection.takes(file, known["norm"].to_numpy())
                if not found.any():
                    continue
                column = parquet.read_row_group(i, columns=["vector"])["vector"].combine_chunks()
                kind = np.dtype(EXPONENTS[selection.dtype][0])
                vectors.append(as_array(column, selection.width, kind)[found])
                owners.append(values[places.to_numpy()[found].astype(np.int64)])
    return np.concatenate(vectors), np.concatenate(owners)


def _none(selection: Selection) -> Shaped[np.ndarray, "n d"]:
    return np.empty((0, selection.width), EXPONENTS[selection.dtype][0])
