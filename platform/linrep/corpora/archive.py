"""Members of tar archives, found one by one and read through `tarfile`, so that each kind of member means what it means there.

`tarfile` itself would keep every header in memory, take a damaged header for the end, and stop at the end of the first of several
archives that were written one behind the other.
"""

import tarfile
from collections import Counter
from collections.abc import Iterator
from io import BufferedIOBase
from typing import IO, cast

from linrep.corpora.junk import junk
from linrep.errors import CorpusError
from linrep.places import Place

LARGEST = 256 << 20  # bytes of a member that is read at all: a damaged size must not fill the memory
AFTER_THE_END = "bytes behind the end of the archive"
_BLOCK = 1 << 20
_TROUBLE = (  # what `tarfile` trips over in a damaged header, beside its own errors
    tarfile.TarError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError, MemoryError,
)  # fmt: skip


class BadMember(ValueError):
    """Why a member cannot be read."""


class Archive:
    """A tar archive, entered at any member.

    Args:
        file: Its name, for messages.
        raw: Its bytes, decompressed.
    """

    def __init__(self, file: Place, raw: BufferedIOBase) -> None:
        self._file, self._raw = file, raw
        try:
            self._tar = self._open()
        except _TROUBLE as error:
            raise CorpusError(f"{file} is not a tar file: {error}") from error
        self._all: tarfile.TarFile | None = None
        self.left_out: Counter[str] = Counter()

    @property
    def is_global(self) -> bool:
        """Whether a header of the archive holds for all members that follow: it cannot be entered behind that one."""
        return bool(self._tar.pax_headers)

    def members(self, offset: int) -> Iterator[tarfile.TarInfo]:
        """Every member that may be data, from a header on; what else lies there is counted in `left_out`.

        Raises:
            CorpusError: The archive is damaged between members, so that the rest cannot be found.
        """
        for member in self._headers(self._tar, offset):
            reason = None if member.isdir() else junk(member.name) or _kind(member)
            if reason:
                self.left_out[reason] += 1
            elif not member.isdir():
                yield member

    def read(self, member: tarfile.TarInfo) -> bytes:
        """The bytes of a member; of a link, those of what it leads to within the archive.

        Raises:
            BadMember: It is too large, cut short, or a link to nothing.
        """
        if member.size > LARGEST:
            raise BadMember(f"{member.name} has {member.size} bytes: more than {LARGEST} are not read")
        is_link = member.islnk() or member.issym()
        try:
            stream = self._linked(member) if is_link else self._tar.extractfile(member)
            if stream is None:
                raise BadMember(f"{member.name} leads to {member.linkname}, which is no file")
            data = _bounded(cast(BufferedIOBase, stream))
        except KeyError:
            raise BadMember(f"{member.name} is a link to {member.linkname}, which the archive does not hold") from None
        except RecursionError:
            raise BadMember(f"{member.name} is a link that leads back to itself") from None
        except _TROUBLE as error:
            if isinstance(error, BadMember):
                raise
            self._raw.seek(member.offset_data)
            there = len(self._raw.read(max(0, member.size)))
            how = f"{there} of {member.size} bytes" if member.sparse is None and not is_link else str(error)
            raise BadMember(f"{member.name} is cut short: {how}") from None
        if len(data) > LARGEST or (len(data) != member.size and not is_link):
            raise BadMember(f"{member.name} gives {len(data)} bytes, not {member.size}")
        return data

    def _headers(self, tar: tarfile.TarFile, offset: int) -> Iterator[tarfile.TarInfo]:
        """Headers one by one; those of archives that follow the first one too."""
        tar.offset = offset
        ended = False
        while True:
            at = tar.offset
            self._raw.seek(at)
            try:
                member = tarfile.TarInfo.fromtarfile(tar)
                if tar.offset <= at:
                    raise tarfile.ReadError("a member of negative size")
            except _TROUBLE as error:
                kind = type(error).__name__
                if kind == "EmptyHeaderError":  # many writers leave out the zeros at the end
                    return
                if kind == "EOFHeaderError":
                    ended = True
                    tar.offset = self._past_zeros(at)
                    continue
                if ended:
                    self.left_out[AFTER_THE_END] += tar is self._tar
                    return
                where = f"{self._file} is damaged at byte {at} ({error})"
                raise CorpusError(f"{where}: what follows cannot be found; write it anew, or leave it out with a glob") from error
            ended = False
            after = tar.offset
            yield member
            tar.offset = after

    def _past_zeros(self, offset: int) -> int:
        """The first block from here that holds more than zeros; the end if there is none."""
        self._raw.seek(offset)
        while block := self._raw.read(_BLOCK):
            if (rest := len(block.lstrip(b"\0"))) > 0:
                return offset + (len(block) - rest) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            offset += len(block)
        return offset

    def _linked(self, member: tarfile.TarInfo) -> BufferedIOBase | None:
        """What a link leads to: only links need all headers, since the target may lie anywhere."""
        if self._all is None:
            for _ in self._headers(self._open(), 0):  # `tarfile` takes damage for the end, or never ends
                pass
            self._all = self._open(ignore_zeros=True)
        own = next(one for one in self._all.getmembers() if one.offset == member.offset)
        return cast(BufferedIOBase | None, self._all.extractfile(own))

    def _open(self, ignore_zeros: bool = False) -> tarfile.TarFile:
        self._raw.seek(0)
        raw = cast(IO[bytes], self._raw)
        return tarfile.TarFile(fileobj=raw, encoding="utf-8", errors="surrogateescape", ignore_zeros=ignore_zeros)


def _bounded(stream: BufferedIOBase) -> bytes:
    """All of a stream, or a little more than `LARGEST` bytes of it: the size of what a link leads to is not known before."""
    parts, n = [], 0
    while n <= LARGEST and (part := stream.read(_BLOCK)):
        parts.append(part)
        n += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _kind(member: tarfile.TarInfo) -> str | None:
    """Why a member of its type is no data; types that nobody knows are files, as POSIX has it."""
    return "a device or a pipe" if member.isdev() else None
