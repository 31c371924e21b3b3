"""Records in tar shards: neighbouring members that share a key are one record, each under its own ending.

`a/0012.jpg`, `a/0012.cls` and `a/0012.json` are the record `a/0012`. A header says where the next one begins, so a shard can be
entered in its middle, and one photograph at a time is in memory. A shard may be compressed with gzip, and is then decompressed
from its beginning for every chunk.

Source: Aizman, Maltby & Breuel, "High Performance I/O For Large Scale Deep Learning", 2019 (the WebDataset format).
"""

import json
import tarfile
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, NamedTuple

from linrep.corpora.config import ImageTar, PairTar
from linrep.corpora.lines import Record, uncompressed
from linrep.corpora.runs import Piece
from linrep.errors import CorpusError
from linrep.places import Place

STRIDE = 64  # records between two byte offsets in the index: a reader passes over at most this many headers too many
PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
LARGEST = 256 << 20  # bytes of a member that is read at all: a damaged size must not fill the memory
SMALL = 1 << 16  # bytes of a member that counts with its content in the index, where it is no photograph


class Group(NamedTuple):
    """One record of a shard.

    Attributes:
        row: Its number in the shard.
        offset: Byte at which its first member's header begins.
        key: What its members' names have in common, the path included.
        members: Where each of them lies, by its ending in lower case.
    """

    row: int
    offset: int
    key: str
    members: dict[str, tarfile.TarInfo]

    @property
    def picture(self) -> tarfile.TarInfo | None:
        """Its photograph."""
        return next((self.members[ending] for ending in PICTURES if ending in self.members), None)


class _Bad(ValueError):
    """Why a record cannot be used."""


def scan_shard(file: Place, source: ImageTar | PairTar) -> Iterator[tuple[Group, str | None, bytes]]:
    """Every record of a shard with its class, and bytes that change when the record does.

    Of a photograph, and of what is longer than `SMALL`, only name and size count. The class is None where there is none, or where
    it cannot be read: the record is then skipped, with the reason, when its turn comes.

    Raises:
        CorpusError: It is no tar file, or is damaged between members, so that the rest cannot be found.
    """
    with uncompressed(file) as raw:
        for group in _groups(file, raw, 0, 0):
            seen = [f"{member.name}\0{member.size}\0{member.offset_data}\n" for member in group.members.values()]
            small = [m for ending, m in group.members.items() if ending not in PICTURES and m.size <= SMALL]
            label = None
            try:
                contents = [_content(raw, member) for member in small]
                label = _label(raw, group, source.label_column) if isinstance(source, ImageTar) else None
            except _Bad:
                contents = []
            yield group, label, b"".join(["".join(seen).encode(errors="surrogateescape"), *contents])


def read_shard(file: Place, path: str, wanted: list[Piece], source: ImageTar | PairTar) -> Iterator[Record]:
    """Exactly one record for every row of every piece, in order, under the columns that `source` names.

    Args:
        file: The shard.
        path: The same, relative to the corpus: shards may repeat each other's keys, so it is part of the id.
        wanted: Which records.
        source: Where labels or captions are found.

    Raises:
        CorpusError: The shard cannot be read, or ends before a wanted row.
    """
    with uncompressed(file) as raw:
        for piece in wanted:
            found = _groups(file, raw, piece.start, piece.offset or 0)
            for row in piece.rows:
                group = next((group for group in found if group.row == row), None)
                if group is None:
                    raise CorpusError(f"{file} ends before record {row}: it changed; build the index anew (--reindex)")
                yield _record(raw, group, path, source)


def shard_id(path: str, key: str) -> str:
    """The id of a record within its corpus."""
    return f"{path}/{key}"


def _record(raw: BufferedIOBase, group: Group, path: str, source: ImageTar | PairTar) -> Record:
    values: dict[str, Any] = {source.id_column: shard_id(path, group.key)}
    try:
        if isinstance(source, ImageTar):
            _label(raw, group, source.label_column)  # known from the index, but one that cannot be read must be said
        else:
            values[source.text_column] = _caption(raw, group, source.text_column)
        picture = group.picture
        if picture is None:
            raise _Bad(f"no photograph (.jpg, .png, ...) under key {group.key!r}")
        values[source.image_column] = {"bytes": _content(raw, picture), "path": f"{path}/{picture.name}"}
    except _Bad as reason:
        return Record(group.row, values, str(reason))
    return Record(group.row, values)


def _groups(file: Place, raw: BufferedIOBase, row: int, offset: int) -> Iterator[Group]:
    """The records from a byte on, where one begins; the first is counted as `row`."""
    group: Group | None = None
    for member in _members(file, raw, offset):
        key, ending = _parts(member.name)
        if not member.isreg() or not ending:
            continue
        if group is not None and key != group.key:
            yield group
            row, group = row + 1, None
        if group is None:
            group = Group(row, member.offset, key, {})
        group.members.setdefault(ending, member)
    if group is not None:
        yield group


def _members(file: Place, raw: BufferedIOBase, offset: int) -> Iterator[tarfile.TarInfo]:
    """Headers one by one. `TarFile.next` would take a damaged header for the end of the archive, and keep what it has seen."""
    raw.seek(offset)
    try:
        archive = tarfile.TarFile(fileobj=raw)
    except tarfile.ReadError as error:
        raise CorpusError(f"{file} is not a tar file: {error}") from error
    archive.offset = offset
    while True:
        raw.seek(archive.offset)
        try:
            yield tarfile.TarInfo.fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ in ("EOFHeaderError", "EmptyHeaderError"):  # many writers leave out the zeros at the end
                return
            where = f"{file} is damaged at byte {archive.offset} ({error})"
            raise CorpusError(f"{where}: what follows cannot be found; write it anew, or leave it out with a glob") from error


def _parts(name: str) -> tuple[str, str]:
    """Key and ending: the name up to the first dot of its last part, and the rest. Names that begin with a dot have no ending."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower() if stem else ""


def _content(raw: BufferedIOBase, member: tarfile.TarInfo) -> bytes:
    if member.size > LARGEST:
        raise _Bad(f"{member.name} has {member.size} bytes: more than {LARGEST} are not read")
    raw.seek(member.offset_data)
    data = raw.read(member.size)
    if len(data) < member.size:
        raise _Bad(f"{member.name} is cut short: {len(data)} of {member.size} bytes")
    return data


def _label(raw: BufferedIOBase, group: Group, column: str) -> str | None:
    """The class: all of the .cls member, else a field of the .json one."""
    if "cls" in group.members:
        value: Any = _text(raw, group.members["cls"]).strip()
    else:
        value = _field(raw, group, column)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _Bad(f"field {column!r} of {group.members['json'].name} holds {type(value).__name__}, not a class")
    return str(value)


def _caption(raw: BufferedIOBase, group: Group, column: str) -> Any:
    """The caption: all of the .txt member, else a field of the .json one."""
    return _text(raw, group.members["txt"]) if "txt" in group.members else _field(raw, group, column)


def _text(raw: BufferedIOBase, member: tarfile.TarInfo) -> str:
    try:
        return _content(raw, member).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Bad(f"{member.name} is not UTF-8: {error.reason} at byte {error.start}") from None


def _field(raw: BufferedIOBase, group: Group, column: str) -> Any:
    member = group.members.get("json")
    if member is None:
        return None
    try:
        values = json.loads(_text(raw, member))
    except (json.JSONDecodeError, RecursionError) as error:
        raise _Bad(f"{member.name} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise _Bad(f"{member.name} is not a JSON object")
    return values.get(column)
