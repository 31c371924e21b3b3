"""Records in tar shards: neighbouring members that share a key are one record, each under its own ending.

`a/0012.jpg`, `a/0012.cls` and `a/0012.json` are the record `a/0012`. A header says where the next one begins, so a shard can be
entered in its middle, and one image at a time is in memory. A compressed one is decompressed from its beginning for every chunk.

Source: Aizman, Maltby & Breuel, "High Performance I/O For Large Scale Deep Learning", 2019 (the WebDataset format).
"""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from linrep.corpora.archive import LARGEST, Archive, BadMember
from linrep.corpora.find import ending as ending_of
from linrep.corpora.kinds import ImageTar, PairTar
from linrep.corpora.labels import class_id
from linrep.corpora.lines import Record
from linrep.corpora.runs import Piece
from linrep.corpora.streams import decoded, uncompressed
from linrep.errors import CorpusError
from linrep.places import Place
from linrep.sample import IMAGE_ENDINGS

STRIDE = 64  # records between two byte offsets in the index: a reader passes over at most this many headers too many
IMAGE_KEYS = tuple(ending[1:] for ending in IMAGE_ENDINGS)
SMALL = 1 << 16  # bytes of a member that counts with its content in the index, where it is no image

__all__ = ["LARGEST", "Group", "read_shard", "scan_shard", "shard_id"]


class Group(NamedTuple):
    """One record of a shard.

    Attributes:
        row: Its number in the shard.
        offset: Byte at which its first member's header begins; None where the shard cannot be entered there.
        key: What its members' names have in common, the path included.
        members: Where each of them lies, by its ending in lower case.
    """

    row: int
    offset: int | None
    key: str
    members: dict[str, tarfile.TarInfo]

    @property
    def image(self) -> tarfile.TarInfo | None:
        """Its image."""
        return next((self.members[ending] for ending in IMAGE_KEYS if ending in self.members), None)

    def unused(self, source: ImageTar | PairTar) -> list[str]:
        """Why each member is left out that gives the record nothing."""
        text = "cls" if isinstance(source, ImageTar) else "txt"
        meta = text if text in self.members else "json"
        used = {meta, next((ending for ending in IMAGE_KEYS if ending in self.members), "")}
        rest = [ending for ending in self.members if ending not in used]
        return ["a further image under one key" if one in IMAGE_KEYS else f"not used ({ending_of('x.' + one)})" for one in rest]


def scan_shard(file: Place, source: ImageTar | PairTar, left_out: Counter[str]) -> Iterator[tuple[Group, str | None, bytes]]:
    """Every record of a shard with its class, and bytes that change when the record does.

    Of an image, and of what is longer than `SMALL`, only name and size count. The class is None where there is none, or where
    it cannot be read: the record is then skipped, with the reason, when its turn comes.

    Args:
        file: The shard.
        source: Where labels or captions are found.
        left_out: Takes in how many members are no part of a record, by the reason.

    Raises:
        CorpusError: It is no tar file, or is damaged between members, so that the rest cannot be found.
    """
    with uncompressed(file) as raw:
        archive = Archive(file, raw)
        for group in _groups(archive, 0, 0):
            left_out.update(group.unused(source))
            seen = [f"{member.name}\0{member.size}\0{member.offset_data}\n" for member in group.members.values()]
            small = [m for ending, m in group.members.items() if ending not in IMAGE_KEYS and m.size <= SMALL]
            label = None
            try:
                contents = [archive.read(member) for member in small]
                label = _label(archive, group, source.label_column) if isinstance(source, ImageTar) else None
            except BadMember:
                contents = []
            yield group, label, b"".join(["".join(seen).encode(errors="surrogateescape"), *contents])
        left_out.update(archive.left_out)


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
        archive = Archive(file, raw)
        for piece in wanted:
            row, offset = (0, 0) if piece.offset is None else (piece.start, piece.offset)
            found = _groups(archive, row, offset)
            for row in piece.rows:
                group = next((group for group in found if group.row == row), None)
                if group is None:
                    raise CorpusError(f"{file} ends before record {row}: it changed; build the index anew (--reindex)")
                yield _record(archive, group, path, source)


def shard_id(path: str, key: str) -> str:
    """The id of a record within its corpus."""
    return f"{path}/{key}"


def _record(archive: Archive, group: Group, path: str, source: ImageTar | PairTar) -> Record:
    values: dict[str, Any] = {source.id_column: shard_id(path, group.key)}
    try:
        if isinstance(source, ImageTar):
            _label(archive, group, source.label_column)  # known from the index, but one that cannot be read must be said
        else:
            values[source.text_column] = _caption(archive, group, source.text_column)
        image = group.image
        if image is None:
            raise BadMember(f"no image (.jpg, .png, ...) under key {group.key!r}{_others(group)}")
        values[source.image_column] = {"bytes": archive.read(image), "path": f"{path}/{image.name}"}
    except BadMember as reason:
        return Record(group.row, values, str(reason))
    return Record(group.row, values)


def _others(group: Group) -> str:
    """A hint where names hold more dots than keys may: `photo.001.jpg` and `photo.002.jpg` have one key."""
    odd = [ending for ending in group.members if ending.split(".")[0].isdigit() and ending.rsplit(".", 1)[-1] in IMAGE_KEYS]
    return f": a key ends at the first dot of a name, and here follows {', '.join(odd[:5])}" if odd else ""


def _groups(archive: Archive, row: int, offset: int) -> Iterator[Group]:
    """The records from a byte on, where one begins; the first is counted as `row`.

    An ending that comes again begins another record of the same key, which is then refused as given twice.
    """
    group: Group | None = None
    for member in archive.members(offset):
        key, ending = _parts(member.name)
        if not ending:
            archive.left_out["without an ending"] += 1
            continue
        if group is not None and (key != group.key or ending in group.members):
            yield group
            row, group = row + 1, None
        if group is None:
            group = Group(row, None if archive.is_global else member.offset, key, {})
        group.members[ending] = member
    if group is not None:
        yield group


def _parts(name: str) -> tuple[str, str]:
    """Key and ending: the name up to the first dot of its last part, and the rest. Names that begin with a dot have no ending."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower() if stem else ""


def _label(archive: Archive, group: Group, column: str) -> str | None:
    """The class: all of the .cls member, else a field of the .json one."""
    where = "cls" if "cls" in group.members else "json"
    value = _text(archive, group.members["cls"]) if where == "cls" else _field(archive, group, column)
    if isinstance(value, bool) or not isinstance(value, int | float | str | None):
        raise BadMember(f"field {column!r} of {group.members['json'].name} holds {type(value).__name__}, not a class")
    try:
        return class_id(value)
    except ValueError as error:
        raise BadMember(f"{group.members[where].name} has no class: {error}") from None


def _caption(archive: Archive, group: Group, column: str) -> Any:
    """The caption: all of the .txt member, else a field of the .json one."""
    return _text(archive, group.members["txt"]) if "txt" in group.members else _field(archive, group, column)


def _text(archive: Archive, member: tarfile.TarInfo) -> str:
    try:
        return decoded(archive.read(member))
    except BadMember:
        raise
    except ValueError as error:
        raise BadMember(f"{member.name} is {error}" if str(error).startswith("not") else f"{member.name} {error}") from None


def _field(archive: Archive, group: Group, column: str) -> Any:
    member = group.members.get("json")
    if member is None:
        return None
    try:
        values = json.loads(_text(archive, member))
    except BadMember:
        raise
    except (ValueError, RecursionError) as error:
        raise BadMember(f"{member.name} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise BadMember(f"{member.name} is not a JSON object")
    return values.get(column)
