"""Parquet files that know whether they are whole: a sum of every block, and a seal over the footer that holds the sums.

Any parquet reader reads them. The footer's metadata holds, under `linrep.seal`, how many bytes the sums cover and one XXH3-64 sum
for each block of 256 KiB. The seal itself is the sum of all that follows those bytes, taken with zeros in its own place. So a
file that is opened is checked at the cost of its footer, and each block when it is first read: about 12 GB/s on one core.
"""

import base64
import io
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from linrep.errors import StoreError
from linrep.places import Place

BLOCK = 1 << 18
"""Bytes under one sum: few enough that small columns are read alone, enough that the sums of a file are a 30,000th of it."""
_KEY = "linrep.seal"
_SEAL = re.compile(rb"linrep\.seal:([0-9a-f]{16}):([0-9a-f]{16}):([A-Za-z0-9+/=]*):")
_ZEROS = b"0" * 16
_TAIL = 1 << 16
"""Bytes read first when a file is opened: most footers fit."""
_KEPT = 64 * 2**20


class SealedWriter:
    """Writes one parquet file and seals it.

    Args:
        stream: Where the bytes go; the caller closes it.
        schema: Of the tables.
        options: Of `pyarrow.parquet.ParquetWriter`.
    """

    def __init__(self, stream: Any, schema: pa.Schema, **options: Any) -> None:
        self._sink = _Sink(stream)
        kept = {key: value for key, value in (schema.metadata or {}).items() if key != _KEY.encode()}
        schema = schema.with_metadata(kept or None)  # of a table that was read from a sealed file
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), schema, **options)

    def add(self, table: pa.Table, **options: Any) -> None:
        """Write a table, see `ParquetWriter.write_table`."""
        self._writer.write_table(table, **options)

    def close(self) -> tuple[int, str]:
        """Write the footer; gives the file's bytes and its seal."""
        covered, sums = self._sink.covered()
        head = f"{_KEY}:{_ZEROS.decode()}:{covered:016x}:{base64.b64encode(sums).decode()}:"
        self._writer.add_key_value_metadata({_KEY: head})
        self._writer.close()
        return self._sink.seal()

    def abandon(self) -> None:
        """Give up; nothing more reaches the stream. Never raises, as `PendingFile.discard`."""
        self._sink.covered()
        with suppress(OSError, pa.ArrowException):
            self._writer.close()


class _Sink(io.RawIOBase):
    """Passes bytes on and sums them; the last ones, from `covered` on, wait until they are sealed."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._n, self._sums = stream, 0, bytearray()
        self._block = xxhash.xxh3_64()
        self._tail: bytearray | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._tail is not None:
            self._tail += view
            return len(view)
        start = 0
        while start < len(view):
            end = min(len(view), start + BLOCK - (self._n + start) % BLOCK)
            self._block.update(view[start:end])
            if (self._n + end) % BLOCK == 0:
                self._sums += self._block.digest()
                self._block.reset()
            start = end
        self._stream.write(data)
        self._n += len(view)
        return len(view)

    def tell(self) -> int:
        return self._n + len(self._tail or b"")

    def covered(self) -> tuple[int, bytes]:
        """How many bytes there are so far, and their sums."""
        self._tail = bytearray()
        return self._n, bytes(self._sums) + (self._block.digest() if self._n % BLOCK else b"")

    def seal(self) -> tuple[int, str]:
        assert self._tail is not None
        at = list(_SEAL.finditer(self._tail))
        assert len(at) == 1, "the footer holds one seal"
        seal = xxhash.xxh3_64_hexdigest(bytes(self._tail))
        self._tail[at[0].start(1) : at[0].end(1)] = seal.encode()
        self._stream.write(bytes(self._tail))
        return self._n + len(self._tail), seal


class Opened:
    """Handles and footers of an object store's files that are read again and again: kept, they cost no request the second time.

    Holds up to 64 MB of footers; those that came first go first. For use by several threads.
    """

    def __init__(self) -> None:
        self._files: dict[str, tuple[Any, int, pa.Buffer]] = {}
        self._bytes, self._lock = 0, threading.Lock()

    def find(self, file: Place) -> tuple[Any, int, pa.Buffer] | None:
        """A file's handle, and the place and the bytes of its footer."""
        return self._files.get(file.path)

    def keep(self, file: Place, handle: Any, start: int, footer: pa.Buffer) -> None:
        """Remember them."""
        with self._lock:
            if file.path not in self._files:
                self._files[file.path] = handle, start, footer
                self._bytes += len(footer)
            while self._bytes > _KEPT:
                self._bytes -= len(self._files.pop(next(iter(self._files)))[2])


@contextmanager
def sealed(
    file: Place,
    repair: str,
    seal: str | None = None,
    size: int | None = None,
    span: tuple[int, int] | None = None,
    opened: Opened | None = None,
) -> Iterator[pq.ParquetFile]:
    """A sealed parquet file for reading. What is read is checked first, whatever reads it.

    Args:
        file: The file.
        repair: What to do about a damaged one, for the error: "delete it and ...".
        seal: The seal that it must have; None takes any that fits its bytes.
        size: The bytes that it must have.
        span: The bytes that will be read, from and up to: an object store is asked for them at once.
        opened: Files that were opened before, and are kept for the next time.

    Raises:
        StoreError: It is missing, is not sealed, or differs from what was written; so does every read in the block.
    """
    try:
        reader = _open(file, repair, seal, size, span, opened)
        footer = pq.read_metadata(pa.BufferReader(reader.tail))  # was read: pyarrow would ask for 64 KiB at the end once more
        with pq.ParquetFile(pa.PythonFile(reader, mode="r"), metadata=footer, pre_buffer=not file.local) as parquet:
            yield parquet
    except StoreError:
        raise
    except FileNotFoundError:
        raise StoreError(f"{file} is missing: {repair}") from None
    except (pa.ArrowException, OSError, KeyError) as error:
        if file.may_pass(error):
            raise
        raise StoreError(f"cannot read {file} ({one_line(error)}): {repair}") from None


def verify(file: Place, repair: str, seal: str | None = None, size: int | None = None, whole: bool = True) -> int:
    """Hold a sealed file against its sums; gives its bytes.

    Args:
        file: The file.
        repair: As `sealed`.
        seal: Likewise.
        size: Likewise.
        whole: Read it to its end; else the footer alone, which is of that file and no other.

    Raises:
        StoreError: As `sealed`.
    """
    try:
        reader = _open(file, repair, seal, size)
        for start in range(0, reader.covered if whole else 0, 32 * BLOCK):
            reader.checked(start, min(start + 32 * BLOCK, reader.covered))
        return reader.size()
    except FileNotFoundError:
        raise StoreError(f"{file} is missing: {repair}") from None


def without_seal(table: pa.Table) -> pa.Table:
    """A table that was read, without the seal of its file: what is written from it has another."""
    kept = {key: value for key, value in (table.schema.metadata or {}).items() if key != _KEY.encode()}
    return table.replace_schema_metadata(kept or None)


def one_line(error: Exception | str) -> str:
    """An error of another library in one short line."""
    return " ".join(str(error).split())[:200]


class _Reader(io.RawIOBase):
    """The bytes of a sealed file, each block checked before any of it is given out."""

    def __init__(self, file: Place, bytes_of: "_Bytes", covered: int, sums: bytes, tail: pa.Buffer, repair: str) -> None:
        self._file, self._bytes, self._sums, self.tail, self._repair = file, bytes_of, sums, tail, repair
        self.covered, self._at = covered, 0
        self._good = bytearray(len(sums) // 8)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        return self.covered + len(self.tail)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self.size())[whence]
        return self._at

    def read(self, n: int = -1) -> Any:
        end = self.size() if n is None or n < 0 else min(self._at + n, self.size())
        start, self._at = self._at, max(self._at, end)
        if start >= self.covered:
            return self.tail.slice(start - self.covered, max(end - start, 0))
        if end <= self.covered:
            return self.checked(start, end)
        both = self.checked(start, self.covered).to_pybytes() + self.tail.slice(0, end - self.covered).to_pybytes()
        return pa.py_buffer(both)

    read_buffer = read

    def checked(self, start: int, end: int) -> pa.Buffer:
        """Some of the bytes that the sums cover."""
        first, last = start // BLOCK, -(-end // BLOCK)
        here = self._bytes.read(first * BLOCK, min(last * BLOCK, self.covered))
        view = memoryview(here)
        for block in range(first, last):
            if self._good[block]:
                continue
            own = view[(block - first) * BLOCK : (block - first + 1) * BLOCK]
            if xxhash.xxh3_64_digest(own) != self._sums[8 * block : 8 * block + 8]:
                raise StoreError(
                    f"{self._file} is damaged (bytes {block * BLOCK:,} to {block * BLOCK + len(own):,} are not those that were "
                    f"written): {self._repair}"
                )
            self._good[block] = 1
        return here.slice(start - first * BLOCK, end - start)

    def close(self) -> None:
        if not self.closed:
            self._bytes.close()
        super().close()


class _Bytes:
    """The bytes of a file: mapped into memory on a disk, read where they are wanted in an object store."""

    def __init__(self, file: Place, opened: Opened | None) -> None:
        self._ahead: list[tuple[int, pa.Buffer]] = []
        self._file, self._opened, found = file, opened, None
        if file.local:
            self.size = file.size()
            self._stream: Any = pa.memory_map(file.path) if self.size else pa.BufferReader(b"")
            self._mapped = self._stream.read_buffer()
        else:
            found = None if opened is None else opened.find(file)
            self._stream, self._mapped = file.files.open_input_file(file.path) if found is None else found[0], None
            self.size = self._stream.size()
            self._ahead += [] if found is None else [found[1:]]
        self.footer = max(0, self.size - _TAIL) if found is None else found[1]
        """Where the footer begins, or what is read to find it."""

    def read(self, start: int, end: int) -> pa.Buffer:
        if self._mapped is not None:
            return self._mapped.slice(start, end - start)
        for at, there in self._ahead:
            if at <= start and end <= at + len(there):
                return there.slice(start - at, end - start)
        return pa.py_buffer(self._stream.read_at(end - start, start))

    def read_ahead(self, start: int, end: int) -> None:
        """Read a range, which is kept while the file is open: what is read in it needs no further request."""
        if self._mapped is None:
            self._ahead.append((start, self.read(start, end)))

    def keep(self, covered: int) -> None:
        """Keep the file open beyond its end, with its footer."""
        if self._opened is not None and self._mapped is None:
            self._opened.keep(self._file, self._stream, covered, pa.py_buffer(self.read(covered, self.size).to_pybytes()))

    def close(self) -> None:
        if self._opened is None or self._mapped is not None:
            self._stream.close()


def _open(
    file: Place,
    repair: str,
    seal: str | None,
    size: int | None,
    span: tuple[int, int] | None = None,
    opened: Opened | None = None,
) -> _Reader:
    source = _Bytes(file, opened)
    try:
        if size is not None and source.size != size:
            raise StoreError(f"{file} is no whole parquet file ({source.size:,} bytes, {size:,} were written): {repair}")
        first = source.footer
        start, end = (first, first) if span is None else (span[0] // BLOCK * BLOCK, -(-span[1] // BLOCK) * BLOCK)
        # What is wanted just before the footer comes with it, in one piece.
        source.read_ahead(min(start, first) if end >= first else first, source.size)
        tail = source.read(first, source.size)
        length = struct.unpack("<I", tail.slice(len(tail) - 8, 4).to_pybytes())[0] if len(tail) >= 12 else 0
        if not length or length > source.size - 12 or tail.slice(len(tail) - 4).to_pybytes() != b"PAR1":
            raise StoreError(f"{file} is no whole parquet file: {repair}")
        if length + 8 > len(tail):
            tail = source.read(source.size - length - 8, source.size)
        found = list(_SEAL.finditer(memoryview(tail)))
        if len(found) != 1:
            raise StoreError(f"{file} is not as it was written (its seal is gone): {repair}")
        own, covered, sums = found[0].group(1), int(found[0].group(2), 16), base64.b64decode(found[0].group(3))
        if covered > source.size or len(sums) != 8 * -(-covered // BLOCK):
            raise StoreError(f"{file} is damaged (its footer is not as it was written): {repair}")
        if source.size - covered != len(tail):
            tail = source.read(covered, source.size)
        raw = bytearray(tail.to_pybytes())
        at = _SEAL.search(raw)
        if at is not None:
            raw[at.start(1) : at.end(1)] = _ZEROS
        if xxhash.xxh3_64_hexdigest(bytes(raw)).encode() != own:
            raise StoreError(f"{file} is damaged (its footer is not as it was written): {repair}")
        if seal is not None and own != seal.encode():
            raise StoreError(f"{file} is another file than was written (its seal is {own.decode()}, not {seal}): {repair}")
        source.keep(covered)
        if start < covered:
            source.read_ahead(start, min(end, covered))
        return _Reader(file, source, covered, sums, tail, repair)
    except BaseException:
        source.close()
        raise
