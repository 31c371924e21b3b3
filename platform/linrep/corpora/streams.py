"""Files as plain bytes: decompressed on the way where they are compressed, and texts as UTF-8 whatever their encoding.

How a file is compressed, and how it is encoded, is read off its first bytes, never off its name, and once for the whole file.
"""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from io import BufferedIOBase, BufferedReader
from typing import Any, cast

import pyarrow as pa

from linrep.errors import CorpusError
from linrep.places import Place

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_MARKS = (  # the longer ones first: UTF-32's mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_HEAD = 16
_BLOCK = 1 << 16
_BACK = 16 << 20  # bytes that are kept decompressed: an archive is read a step back, again and again, and each may begin anew
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)


class Rewound(io.RawIOBase):
    """A stream that can only be read on, made seekable: going back begins anew.

    Args:
        begin: Starts from the first byte and returns a function that gives the next bytes, as many as asked for at most.
    """

    def __init__(self, begin: Callable[[], Callable[[int], bytes]]) -> None:
        self._begin, self._next, self._at = begin, begin(), 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes read so far."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """The next bytes."""
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte counted from the first one, or from here; the end itself, if it comes before."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("a stream has no end to count from")
        offset += self._at if whence == io.SEEK_CUR else 0
        if offset < self._at:
            self._next, self._at = self._begin(), 0
        while self._at < offset and (data := self._next(min(_BLOCK, offset - self._at))):
            self._at += len(data)
        return self._at


@contextlib.contextmanager
def uncompressed(file: Place) -> Iterator[BufferedIOBase]:
    """The file for reading, seekable, and decompressed on the way if it is compressed with gzip, bzip2, xz or zstandard.

    Raises:
        CorpusError: It cannot be read, or its compression is damaged.
    """
    try:
        with file.open() as raw:
            head = raw.read(_HEAD)
            raw.seek(0)
            with _decompressed(raw, head) as stream:
                yield stream
    except _DAMAGE as error:
        if file.may_pass(error):
            raise
        raise CorpusError(f"cannot read {file}: {error}") from error


@contextlib.contextmanager
def as_utf8(file: Place) -> Iterator[BufferedIOBase]:
    """The text file for reading, seekable, decompressed likewise, and as UTF-8 where its mark says UTF-16 or UTF-32.

    What has no mark, or that of UTF-8, is given as it is.

    Raises:
        CorpusError: It cannot be read, its compression is damaged, or it is not what its mark says.
    """
    with uncompressed(file) as raw:
        encoding = marked(raw.read(4))
        raw.seek(0)
        if encoding is None or encoding == "utf-8-sig":
            yield raw
            return
        try:
            with BufferedReader(Rewound(lambda: _transcoded(raw, encoding))) as stream:
                yield stream
        except UnicodeDecodeError as error:
            raise CorpusError(f"{file} has the mark of {encoding.upper()} and is damaged: {error.reason}") from error


def unpacked(data: bytes, most: int) -> bytes:
    """All of a file from its bytes, decompressed likewise.

    Raises:
        ValueError: Its compression is damaged, or more than `most` bytes come out.
    """
    try:
        with io.BytesIO(data) as raw, _decompressed(raw, data[:_HEAD]) as stream:
            found = stream.read(most + 1)
    except _DAMAGE as error:
        raise ValueError(f"is damaged: {error}") from None
    if len(found) > most:
        raise ValueError(f"has more than {most} bytes: it is not read")
    return found


def marked(head: bytes) -> str | None:
    """The encoding that the mark at the beginning of a text names; None where there is no mark."""
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)


def decoded(data: bytes) -> str:
    """A whole text from its bytes: UTF-8, or what its mark names.

    Raises:
        ValueError: It is neither, or holds zero bytes as UTF-16 without a mark does.
    """
    encoding = marked(data[:4]) or "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding.upper().removesuffix('-SIG')}: {error.reason} at byte {error.start}") from None
    if "\0" in text:
        raise ValueError(NUL)
    return text


NUL = "holds zero bytes, as UTF-16 without a mark does: write it as UTF-8"


def _decompressed(raw: BufferedReader | io.BytesIO, head: bytes) -> BufferedIOBase:
    stream: Any = None
    if head.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=raw)
    elif head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):  # a block, or the end of an empty stream
        stream = bz2.BZ2File(raw)
    elif head.startswith(b"\xfd7zXZ\0"):
        stream = lzma.LZMAFile(raw)  # noqa: SIM115
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        stream = Rewound(lambda: _zstandard(raw))
    return raw if stream is None else BufferedReader(stream, _BACK)


def _zstandard(raw: BufferedIOBase) -> Callable[[int], bytes]:
    raw.seek(0)
    file = pa.PythonFile(_Unclosed(raw), mode="r")
    return cast(Callable[[int], bytes], pa.CompressedInputStream(file, "zstd").read)


class _Unclosed:
    """The stream for pyarrow, which would close it."""

    closed = False

    def __init__(self, raw: BufferedIOBase) -> None:
        self.read, self.seek, self.tell = raw.read, raw.seek, raw.tell

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _transcoded(raw: BufferedIOBase, encoding: str) -> Callable[[int], bytes]:
    raw.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)()
    waiting = b""

    def read(size: int) -> bytes:
        nonlocal waiting
        while not waiting and (data := raw.read(_BLOCK)):
            waiting = decoder.decode(data).encode()
        if not waiting:
            waiting = decoder.decode(b"", final=True).encode()
        data, waiting = waiting[:size], waiting[size:]
        return data

    return read
