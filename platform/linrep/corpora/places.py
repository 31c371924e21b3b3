"""Files and folders, on local disks or in object stores, behind one small record.

It knows nothing of corpora. Object stores are reached through `pyarrow.fs`, by URI (s3://, gs://, ...); everything else is a
local path.
"""

import io
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any, cast

from pyarrow import ArrowException, fs

from linrep.errors import CorpusError

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SECRET = re.compile(r"(?<=://)[^/@]*:[^/@]*@|\?.*")
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """A file or a folder, which need not exist.

    Attributes:
        files: The file system, picklable.
        path: The path within it, with forward slashes; absolute on local disks, starting with the bucket in object stores.
        local: Whether it lies on this machine's own file system (network mounts included).
    """

    files: fs.FileSystem
    path: str
    local: bool

    def __truediv__(self, relative: str) -> "Place":
        return replace(self, path=f"{self.path.rstrip('/')}/{relative}")

    def __str__(self) -> str:
        return self.path if self.local else f"{self.files.type_name}://{self.path}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def parent(self) -> "Place":
        """The folder that it lies in."""
        return replace(self, path=self.path.rstrip("/").rpartition("/")[0] or ("/" if self.local else ""))

    def is_file(self) -> bool:
        """Whether a file is there."""
        return self._info().type == fs.FileType.File

    def is_folder(self) -> bool:
        """Whether a folder is there; in object stores, whether any key starts with it."""
        return self._info().type == fs.FileType.Directory

    def size(self) -> int:
        """Bytes of the file.

        Raises:
            FileNotFoundError: No file is there.
        """
        info = self._info()
        if info.type != fs.FileType.File:
            raise FileNotFoundError(f"no file at {self}")
        return info.size

    def walk(self) -> Iterator[tuple[str, int]]:
        """Every file below the folder, in no promised order: its path relative to the folder, and its bytes.

        Names that start with a dot, or lie in a folder whose name does, are left out. Links are followed.
        """
        return _walk_local(self.path, "", frozenset()) if self.local else self._walk_store()

    def open(self) -> IO[bytes]:
        """The file for reading, seekable; the caller closes it."""
        if self.local:
            return open(self.path, "rb", buffering=_BUFFER)
        return cast(IO[bytes], io.BufferedReader(cast(Any, self.files.open_input_file(self.path)), _BUFFER))

    def read_bytes(self) -> bytes:
        """All of the file."""
        if self.local:
            with open(self.path, "rb") as file:
                return file.read()
        with self.files.open_input_file(self.path) as file:
            return file.readall()

    def write_bytes(self, data: bytes) -> None:
        """Write the file so that a reader sees all of it or none: a rename on local disks, one upload in object stores."""
        if not self.local:
            with self.files.open_output_stream(self.path) as stream:
                stream.write(data)
            return
        os.makedirs(self.parent.path, exist_ok=True)
        temporary = f"{self.parent.path}/.{self.name}.{secrets.token_hex(4)}.part"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise

    def may_pass(self, error: BaseException) -> bool:
        """Whether an error in reading may pass on a second try (a store that does not answer), or the file itself is bad."""
        lasting = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
        return isinstance(error, OSError) and not self.local and not isinstance(error, lasting)

    def _info(self) -> fs.FileInfo:
        return self.files.get_file_info([self.path])[0]

    def _walk_store(self) -> Iterator[tuple[str, int]]:
        base = self.path.rstrip("/") + "/"
        for info in self.files.get_file_info(fs.FileSelector(self.path, recursive=True)):
            relative = info.path.removeprefix(base)
            if info.type == fs.FileType.File and not any(part.startswith(".") for part in relative.split("/")):
                yield relative, info.size


def place(where: str) -> Place:
    """The place that a local path or a URI names.

    Raises:
        CorpusError: The URI's scheme is unknown, or its store cannot be reached.
    """
    if not _URI.match(where):
        return Place(fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(where)).replace(os.sep, "/"), local=True)
    try:
        files, path = fs.FileSystem.from_uri(where)
    except (ArrowException, OSError, ValueError) as error:
        shown = _SECRET.sub("", where)  # a URI may hold a password, and so may the message about it
        raise CorpusError(f"cannot open {shown!r}: {str(error).replace(where, shown)}") from None
    return Place(files, path.rstrip("/") or "/", local=isinstance(files, fs.LocalFileSystem))


def resolve(root: Place, path: str) -> Place:
    """A path relative to `root`; one that is absolute or a URI stands for itself."""
    return place(path) if _URI.match(path) or (root.local and path.startswith("/")) else root / path


def find(where: str) -> tuple[Place, list[tuple[str, int]]]:
    """The files that a path, a folder or a glob (`*` within a name, `**` over folders, `?`) names.

    Returns:
        The folder that they are relative to (a file's own; for a glob, the last one without a wildcard), and every file's
        relative path and bytes, sorted.

    Raises:
        CorpusError: Nothing is there, or nothing matches.
    """
    root, wild = root_of(where)
    if wild is None:
        return root, sorted(root.walk())
    if (root / wild).is_file():
        return root, [(wild, (root / wild).size())]
    matches = re.compile(_pattern(wild)).fullmatch
    found = sorted((relative, size) for relative, size in root.walk() if matches(relative))
    if not found:
        raise CorpusError(f"no file matches {root / wild}")
    return root, found


def root_of(where: str) -> tuple[Place, str | None]:
    """The folder that the files of a path, a folder or a glob are relative to, and the file or glob within it, if any.

    Raises:
        CorpusError: Nothing is there.
    """
    here = place(where)
    if here.is_file():
        return here.parent, here.name
    if here.is_folder():
        return here, None
    fixed, wild = _before_wildcard(here.path)
    root = replace(here, path=fixed)
    if not wild or not root.is_folder():
        raise CorpusError(f"nothing at {here}: give a file, a folder or a glob")
    return root, wild


def encodes(text: str) -> bool:
    """Whether a text can be written as UTF-8; one with half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _before_wildcard(path: str) -> tuple[str, str]:
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if "*" in part or "?" in part), len(parts))
    return "/".join(parts[:first]) or "/", "/".join(parts[first:])


def _pattern(wild: str) -> str:
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(meaning.get(token) or re.escape(token) for token in re.split(r"(\*\*/|\*\*|\*|\?)", wild))


def _walk_local(folder: str, prefix: str, above: frozenset[str]) -> Iterator[tuple[str, int]]:
    above = above | {os.path.realpath(folder)}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if not (entry.is_symlink() and os.path.realpath(entry.path) in above):  # a link to a folder above never ends
                    yield from _walk_local(entry.path, f"{prefix}{entry.name}/", above)
            elif entry.is_file() or entry.is_symlink():
                # A broken link counts as an empty file: it is then skipped, with a reason, when it is read.
                yield prefix + entry.name, entry.stat().st_size if entry.is_file() else 0
