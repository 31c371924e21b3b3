"""Records in files of lines: JSONL, and plain text with one document a line; either may be compressed.

A line ends at a line feed, a carriage return, or both; blank lines are no records. Other separators (U+2028) end nothing. Records
are counted from 0. A file that is compressed, or not in UTF-8, cannot be entered in its middle: reading its last chunk reads all.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, NamedTuple

from linrep.corpora.runs import Piece
from linrep.corpora.streams import COMPRESSIONS, NUL, as_utf8
from linrep.errors import CorpusError
from linrep.places import Place

STRIDE = 1024  # records between two byte offsets in the index: a reader parses at most this many lines too many
LONGEST = 64 << 20  # bytes of a line that is read at all: a file without line ends must not fill the memory
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20
_FIRST = 4096  # bytes of a file in which a zero byte says that it is no text at all


class Record(NamedTuple):
    """One record of a container: its columns, or why they could not be read."""

    row: int
    values: dict[str, Any]
    trouble: str | None = None


class LineRun(NamedTuple):
    """Up to `STRIDE` successive records, and where the first of them starts."""

    start: int
    offset: int
    records: list[Record]


@dataclass
class Encoding:
    """What the lines of one file say of its encoding, which is decided once for all of them.

    Attributes:
        n_other: Lines that are not UTF-8.
        n_beyond_ascii: Lines that are, and hold more than ASCII.
        first: Why the first of the former is none.
        has_zeros: Whether a zero byte lies near the beginning.
    """

    n_other: int = 0
    n_beyond_ascii: int = 0
    first: str = ""
    has_zeros: bool = False

    def trouble(self, plain: bool) -> str | None:
        """Why no line of the file is taken, though some may be read; None if each stands for itself.

        One line that is not UTF-8 among others beyond ASCII that are is damaged, and skipped alone. Where none is UTF-8, the file
        is in another encoding. JSONL is UTF-8 by definition, so there one such line says nothing yet.
        """
        if self.has_zeros:
            return f"the file {NUL}"
        if self.n_other >= (1 if plain else 2) and not self.n_beyond_ascii:
            return f"the file is not UTF-8 ({self.first}; {self.n_other:,} such lines): write it as UTF-8"
        return None


def is_plain(name: str) -> bool:
    """Whether a file of lines is plain text, with a document a line; else it is JSONL."""
    for compression in COMPRESSIONS:
        name = name.lower().removesuffix(compression)
    return name.endswith(".txt")


def scan_lines(file: Place, column: str, content: "hashlib._Hash", encoding: Encoding) -> Iterator[LineRun]:
    """All records of a file in one streamed pass.

    Args:
        file: The file.
        column: What the text is called in the records of a plain file.
        content: Takes in every byte, decompressed and as UTF-8.
        encoding: Takes in what the lines say of the encoding.

    Raises:
        CorpusError: The file cannot be read, or its compression is damaged.
    """
    run = LineRun(0, 0, [])
    row = 0
    plain = is_plain(file.name)
    with as_utf8(file) as stream:
        for offset, line in _lines(stream, 0, content, encoding):
            if len(run.records) == STRIDE:
                yield run
                run = LineRun(row, offset, [])
            elif not run.records:
                run = LineRun(row, offset, [])
            record = _record(row, line, plain, column)
            if record.trouble is not None and record.trouble.startswith("not UTF-8"):
                encoding.first = encoding.first or record.trouble.removeprefix("not UTF-8: ")
                encoding.n_other += 1
            elif not line.isascii():
                encoding.n_beyond_ascii += 1
            run.records.append(record)
            row += 1
    if run.records:
        yield run


def read_lines(file: Place, wanted: list[Piece], column: str) -> Iterator[Record]:
    """Exactly one record for every row of every piece, in order.

    Raises:
        CorpusError: The file cannot be read, or ends before a wanted row.
    """
    plain = is_plain(file.name)
    with as_utf8(file) as stream:
        for piece in wanted:
            numbered = enumerate((line for _, line in _lines(stream, piece.offset or 0)), start=piece.start)
            for row in piece.rows:
                line = next((line for number, line in numbered if number == row), None)
                if line is None:
                    changed = "it changed since it was indexed; build the index anew (--reindex)"
                    raise CorpusError(f"{file} ends before record {row}: {changed}")
                yield _record(row, line, plain, column)


def _lines(
    stream: BufferedIOBase, offset: int, content: "hashlib._Hash | None" = None, encoding: Encoding | None = None
) -> Iterator[tuple[int, bytes]]:
    """Where each line starts, and the line without its end; of a longer one its first `LONGEST` bytes. None is blank."""
    stream.seek(offset)
    rest, dropped = b"", 0
    while block := stream.read(_BLOCK):
        if content is not None:
            content.update(block)
        if encoding is not None and offset == 0 and not rest:
            encoding.has_zeros = b"\0" in block[:_FIRST]
        *lines, last = (rest + block).splitlines(keepends=True)
        if block.endswith(b"\n"):
            lines, last = [*lines, last], b""
        for line in lines:
            if (text := line.strip(b"\r\n")) and not text.isspace():
                yield offset, text
            offset += len(line) + dropped
            dropped = 0
        rest = last if len(last) <= LONGEST + 1 else last[:LONGEST] + last[-1:]  # its end may be half of a line's end
        dropped += len(last) - len(rest)
    if rest.strip():
        yield offset, rest.strip(b"\r\n")


def _record(row: int, line: bytes, plain: bool, column: str) -> Record:
    if len(line) > LONGEST:
        return Record(row, {}, f"a line of more than {LONGEST} bytes")
    try:
        text = line.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        return Record(row, {}, f"not UTF-8: {error.reason} at byte {error.start}")
    if plain:
        return Record(row, {column: text})
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Record(row, {}, f"not JSON: {error}")
    return Record(row, values) if isinstance(values, dict) else Record(row, {}, f"not a JSON object: {text[:40]}")
