"""Tables for people as CSV: nothing in them that a spreadsheet would run or rewrite, and read back from any spreadsheet.

A spreadsheet takes text for a formula, a number, a date or a truth value by how it begins, in CSV too. Such a cell goes out with
an apostrophe in front, and comes back without. What comes back may have other separators, another encoding and damaged rows.
"""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from linrep.errors import RecipeError
from linrep.places import Place

GUARD = "'"
_PLAIN = re.compile(r"[^\W\d_]")
_MONTH = re.compile(r"(?:jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])\w*\.?[\W_]*\d", re.IGNORECASE)
_TRUTH = frozenset({"true", "false", "wahr", "falsch", "vrai", "faux", "verdadero", "falso", "inf", "infinity", "nan"})
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Of two that begin alike the longer one first."""
SEPARATORS = (",", ";", "\t", "|")
LONGEST = 2**24
"""Characters of a cell."""


def guarded(cell: str) -> str:
    """A text as a spreadsheet will take it for text.

    >>> guarded("=1+1"), guarded("a boat"), guarded("1/2"), guarded("'=x")
    ("'=1+1", 'a boat', "'1/2", "''=x")
    """
    return f"{GUARD}{cell}" if _is_live(cell) else cell


def unguarded(cell: str) -> str:
    """What was guarded."""
    return cell[1:] if cell.startswith(GUARD) and _is_live(cell[1:]) else cell


def _is_live(cell: str) -> bool:
    """Whether a spreadsheet may do something with a text: all that does not begin with a letter, and words that it knows.

    Some drop spaces, quotation marks and signs without width in front, and take letters of full width for others.
    """
    if not cell:
        return False
    plain = unicodedata.normalize("NFKC", cell)
    low = plain.strip().lower()
    return not _PLAIN.match(cell) or low in _TRUTH or bool(_MONTH.match(low)) or "\x00" in cell


def write_csv(file: Place, columns: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> None:
    """Write a table; texts are guarded, numbers stand as they are.

    Args:
        file: The CSV, in UTF-8; with a mark in front where it holds more than ASCII, as spreadsheets take it for another encoding
            without.
        columns: Names of the columns.
        rows: Their cells.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")  # then cells with either of them are quoted
    writer.writerow(columns)
    for row in rows:
        writer.writerow([guarded(cell) if isinstance(cell, str) else cell for cell in row])
    text = out.getvalue()
    file.write_bytes((b"" if text.isascii() else codecs.BOM_UTF8) + text.encode("utf-8", "replace"))


@dataclass(frozen=True)
class Row:
    """A row of a sheet.

    Attributes:
        line: Where it begins in the file.
        cells: By column, unguarded.
    """

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """What could be read of a sheet.

    Attributes:
        rows: Those that are whole.
        damaged: A line for each that is not.
    """

    rows: tuple[Row, ...]
    damaged: tuple[str, ...]


def read_csv(file: Place, columns: Sequence[str]) -> Table:
    """Read a sheet that people filled in, whatever separators and encoding their spreadsheet saved it with.

    Args:
        file: The CSV.
        columns: Those that it must have; it may have others, and in any order.

    Raises:
        RecipeError: It cannot be opened or decoded, or is no such sheet.
    """
    try:
        text = _decoded(file.read_bytes())
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot read the sheet {file}: {error}") from None
    skipped = 0
    if re.match(r"sep=.[\r\n]", text, re.IGNORECASE):  # how a sheet names its separator for Excel
        text, skipped = text.split("\n", 1)[-1], 1
    csv.field_size_limit(LONGEST)  # of the whole process; texts are longer than the library thinks
    for separator in SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            names = [unguarded(name.strip()).lower() for name in next(reader, [])]
        except csv.Error:
            continue
        if all(names.count(name.lower()) == 1 for name in columns):
            return _rows(text, separator, names, columns, skipped)
    if text[:4] == "PK\x03\x04" or text[:4] == "\xd0\xcf\x11\xe0":
        raise RecipeError(f"{file} is a workbook: save it as CSV (UTF-8)")
    raise RecipeError(f"{file} is no sheet: it should have the columns {', '.join(columns)}, each once")


def _decoded(data: bytes) -> str:
    """The text of a file, by its mark; without one UTF-8, or UTF-16 if every other byte is zero.

    Raises:
        ValueError: It is in no such encoding.
    """
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        return data[:4].decode("latin-1")
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                raise ValueError(f"it begins as {encoding.upper()} and is not: save it as CSV (UTF-8)") from None
    head = data[:64]
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if len(zeros) > 1 and zeros.count(0) > len(zeros) / 2:
            return data.decode(encoding)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8, the file is in an older encoding: save it as CSV UTF-8") from None


def _rows(text: str, separator: str, names: Sequence[str], columns: Sequence[str], skipped: int) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[Row] = []
    damaged: list[str] = []
    begins = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return Table(tuple(rows), tuple(damaged))
        except csv.Error as error:
            to = f" to {reader.line_num + skipped}" if reader.line_num > begins else ""
            damaged.append(f"line {begins + skipped}{to}: {error}: a quotation mark is missing, or one too many")
            begins = reader.line_num + 1
            continue
        line, begins = begins, reader.line_num + 1
        if line == 1 or not any(cell.strip() for cell in cells):
            continue
        if any(cell.strip() for cell in cells[len(names) :]):
            damaged.append(f"line {line + skipped}: it has {len(cells)} cells, the head has {len(names)}")
            continue
        # Spreadsheets leave out empty cells at a row's end.
        full = dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=False))
        rows.append(Row(line + skipped, {name: unguarded(full[name.lower()]) for name in columns}))
