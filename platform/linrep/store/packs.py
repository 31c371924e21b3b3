"""Packs: what a run of chunks committed, in one file, so that a store opens with a few reads and not with one for each chunk.

A pack is derived and holds nothing of its own: the commits of up to 1,024 chunks as they lie in `commits/`, and their samples.
Workers write commits; who drives them writes packs, each whole or not at all (`linrep.store.packing`). A packed commit counts
only where `commits/` has a file of its name and size, packed samples only where their chunk's commit has the seal that they had.
What no pack gives is read from the chunk's own files. So a store without packs, or with some, reads the same.
"""

import functools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from linrep.ahead import in_order
from linrep.errors import StoreError
from linrep.places import Place
from linrep.store.layout import PACKS, pack_file
from linrep.store.sealed import SealedWriter, sealed
from schemas import SAMPLES

CHUNKS = 1024
"""Chunks of a pack: with 512 samples each, a pack of images is some 30 MB."""
MOST_BYTES = 2**28
"""Samples of a row group, in memory. Most packs are one: each column is then one piece of the file, and one request."""
REPAIR = "delete it: a pack holds nothing of its own, and the next harvest job makes it anew"
SCHEMA = pa.schema(
    [
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("commit", pa.string(), nullable=False),
        pa.field("chunk", pa.int32(), nullable=False),  # between both, for it is read with what stands before it or after it
        pa.field("seal", pa.string(), nullable=False),
        pa.field("samples", pa.list_(pa.field("element", pa.struct(list(SAMPLES)), nullable=False)), nullable=False),
    ]
)
WHOLE = 0, 1 << 62
"""All bytes of a file, read with one request."""
_NAME = re.compile(r"part-([0-9]{6,})\.parquet")


@dataclass(frozen=True)
class Packed:
    """What a pack says of a chunk.

    Attributes:
        bytes: Of its commit's file.
        commit: What that file says.
        seal: Of the file of its samples.
        samples: These.
    """

    bytes: int
    commit: str
    seal: str
    samples: pa.Table


def packs_in(place: Place) -> list[int]:
    """The packs of a store: pack k is of chunks 1,024 k and following."""
    found = (_NAME.fullmatch(name) for name in (place / PACKS).sizes())
    return sorted(int(one[1]) for one in found if one and pack_file(int(one[1])) == f"{PACKS}/{one[0]}")


def packed_commits(place: Place) -> dict[int, tuple[int, str]]:
    """Bytes and text of each commit that is packed, by chunk."""
    read = functools.partial(_read, place, columns=("chunk", "bytes", "commit"))
    tables = in_order(read, packs_in(place), 4)
    return {chunk: (size, text) for table in tables for chunk, size, text in _rows(table, "chunk", "bytes", "commit")}


def packed_samples(
    place: Place, number: int, seals: Mapping[int, str], columns: Sequence[str] | None = None
) -> dict[int, pa.Table]:
    """The samples of some chunks, as far as a pack has them.

    Args:
        place: The store.
        number: Of the pack.
        seals: The seal of each chunk's samples, as its commit says.
        columns: Columns to read, None for all.
    """
    schema = SAMPLES if columns is None else pa.schema([SAMPLES.field(name) for name in columns])
    names = ("chunk", "seal", *(f"samples.list.element.{name}" for name in schema.names))
    table = _read(place, number, names, WHOLE if columns is None else None)
    found: dict[int, pa.Table] = {}
    for batch in table.to_batches():
        lists, inner = batch["samples"], batch["samples"].values
        rows = pa.Table.from_arrays([inner.field(name) for name in schema.names], schema=schema)
        starts = lists.offsets.to_numpy()
        for i, (chunk, seal) in enumerate(_rows(batch, "chunk", "seal")):
            if seals.get(chunk) == seal:
                found[chunk] = rows.slice(starts[i], starts[i + 1] - starts[i])
    return found


def packed_chunks(place: Place, number: int) -> dict[int, int]:
    """Bytes of each commit that a pack holds, by chunk; none where it cannot be read."""
    return dict(_rows(_read(place, number, ("chunk", "bytes")), "chunk", "bytes"))


def write_pack(place: Place, number: int, chunks: Iterator[tuple[int, Packed]]) -> None:
    """Write, or replace, a pack.

    Args:
        place: The store.
        number: Of the pack.
        chunks: What it holds, in the order of chunks; taken a few at a time.
    """
    with (place / pack_file(number)).writing() as stream:
        writer = SealedWriter(stream, SCHEMA, compression="zstd")
        try:
            waiting: list[tuple[int, Packed]] = []
            for one in chunks:
                waiting.append(one)
                if sum(own.samples.nbytes for _, own in waiting) > MOST_BYTES:
                    writer.add(_table(waiting))
                    waiting = []
            writer.add(_table(waiting))
            writer.close()
        except BaseException:
            writer.abandon()
            raise


def _table(chunks: Sequence[tuple[int, Packed]]) -> pa.Table:
    samples = pa.concat_tables([SAMPLES.empty_table(), *(own.samples.cast(SAMPLES) for _, own in chunks)]).combine_chunks()
    columns = [column.chunk(0) if column.num_chunks else column.combine_chunks() for column in samples.columns]
    starts = np.concatenate([[0], np.cumsum([len(own.samples) for _, own in chunks])]).astype(np.int32)
    lists = pa.ListArray.from_arrays(
        pa.array(starts), pa.StructArray.from_arrays(columns, fields=list(SAMPLES)), type=SCHEMA.field("samples").type
    )
    plain = [(own.bytes, own.commit, chunk, own.seal) for chunk, own in chunks]
    arrays = [pa.array([row[i] for row in plain], SCHEMA.field(i).type) for i in range(4)]
    return pa.Table.from_arrays([*arrays, lists], schema=SCHEMA)


def _read(place: Place, number: int, columns: Sequence[str], span: tuple[int, int] | None = None) -> pa.Table:
    """Some columns of a pack; no rows where it cannot be read, which is said once."""
    file = place / pack_file(number)
    try:
        with sealed(file, REPAIR, span=span) as parquet:
            if not parquet.schema_arrow.equals(SCHEMA):
                raise StoreError(f"{file} is of another version: {REPAIR}")
            return parquet.read(columns=list(columns))
    except StoreError as error:
        _warn(f"passed over, chunk by chunk is read instead: {error}")
        return SCHEMA.empty_table()


def _rows(table: pa.Table | pa.RecordBatch, *names: str) -> Iterator[tuple]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


@functools.cache
def _warn(message: str) -> None:
    logging.getLogger("linrep.store").warning(message)
