"""Records in files of lines: JSONL, and plain text with one document a line; either may be compressed with gzip.

A line ends at a line feed only (a carriage return before it is dropped); blank lines are no records. Records are counted
from 0. A gzip file cannot be entered in its middle: reading its last chunk decompresses all of it.
"""

import contextlib
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, NamedTuple

from linrep.corpora.runs import Piece
from linrep.errors import CorpusError
from linrep.places import Place

STRIDE = 1024  # records between two byte offsets in the index: a reader parses at most this many lines too many
_BOM = b"\xef\xbb\xbf"


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


def scan_lines(file: Place, column: str, content: "hashlib._Hash") -> Iterator[LineRun]:
    """All records of a file in one streamed pass.

    Args:
        file: The file.
        column: What the text is called in the records of a plain file.
        content: Takes in every (decompressed) byte.

    Raises:
        CorpusError: The file cannot be read, or its compression is damaged.
    """
    run = LineRun(0, 0, [])
    row = offset = 0
    with uncompressed(file) as lines:
        for line in lines:
            content.update(line)
            if line.strip():
                if len(run.records) == STRIDE:
                    yield run
                    run = LineRun(row, offset, [])
                elif not run.records:
                    run = LineRun(row, offset, [])
                run.records.append(_record(row, line, file.name, column))
                row += 1
            offset += len(line)
    if run.records:
        yield run


def read_lines(file: Place, wanted: list[Piece], column: str) -> Iterator[Record]:
    """Exactly one record for every row of every piece, in order.

    Raises:
        CorpusError: The file cannot be read, or ends before a wanted row.
    """
    with uncompressed(file) as lines:
        for piece in wanted:
            lines.seek(piece.offset or 0)
            numbered = enumerate((line for line in lines if line.strip()), start=piece.start)
            for row in piece.rows:
                line = next((line for number, line in numbered if number == row), None)
                if line is None:
                    changed = "it changed since it was indexed; build the index anew (--reindex)"
                    raise CorpusError(f"{file} ends before record {row}: {changed}")
                yield _record(row, line, file.name, column)


@contextlib.contextmanager
def uncompressed(file: Place) -> Iterator[BufferedIOBase]:
    """The file for reading, seekable, and decompressed on the way if its name ends in .gz.

    Raises:
        CorpusError: It cannot be read, or its compression is damaged.
    """
    try:
        with file.open() as raw:
            if not file.name.endswith(".gz"):
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as lines:
                yield lines
    except (OSError, EOFError, zlib.error) as error:
        if file.may_pass(error):
            raise
        raise CorpusError(f"cannot read {file}: {error}") from error


def _record(row: int, line: bytes, name: str, column: str) -> Record:
    try:
        text = line.removeprefix(_BOM if row == 0 else b"").removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        return Record(row, {}, f"not UTF-8: {error.reason} at byte {error.start}")
    if name.removesuffix(".gz").endswith(".txt"):
        return Record(row, {column: text})
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Record(row, {}, f"not JSON: {error}")
    return Record(row, values) if isinstance(values, dict) else Record(row, {}, f"not a JSON object: {text[:40]}")
