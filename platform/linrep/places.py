"""Files and folders, on local disks or in object stores, behind one small record.

Object stores are reached through `pyarrow.fs`, by URI (s3://, gs://, ...); everything else is a
local path.
"""

import ctypes
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from pyarrow import ArrowException, NativeFile, OSFile, fs

from linrep.errors import PlaceError

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SECRET = re.compile(r"(?<=://)[^/@]*:[^/@]*@|\?.*")
_SHOWN = ("region", "scheme", "endpoint_override", "project_id")
"""Options of a URI that hold no secret; others are not shown."""
_BUFFER = 1 << 20
_REQUESTS = 16
_LARGEST_COPY = 5 * 10**9
"""Bytes that object stores copy in one request; what is larger is read and written."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file or a folder, which need not exist.

    Attributes:
        files: The file system, picklable.
        path: The path within it, with forward slashes; absolute on local disks, starting with the bucket in object stores.
        local: Whether it lies on this machine's own file system (network mounts included).
        key: User and password of the URI that named it, as they were written there; empty where there were none.
        options: The query of that URI.
    """

    files: fs.FileSystem
    path: str
    local: bool
    key: str = field(default="", repr=False)
    options: str = field(default="", repr=False)

    def __truediv__(self, relative: str) -> "Place":
        return replace(self, path=f"{self.path.rstrip('/')}/{relative}")

    def __str__(self) -> str:
        """The address without its secrets: where the key comes from the environment, `place` opens it again."""
        shown = [option for option in self.options.split("&") if option.partition("=")[0] in _SHOWN]
        return self._address("", "&".join(shown))

    @property
    def uri(self) -> str:
        """The whole address: `place` opens it on any machine. It may hold a password, so `str` is what people get to see."""
        return self._address(f"{self.key}@" if self.key else "", self.options)

    def _address(self, key: str, options: str) -> str:
        if self.local:
            return self.path
        scheme = self.files.type_name.removeprefix("py::")
        # Wildcards stay readable. Addresses of the hub are never quoted.
        path = self.path if scheme == "hf" else quote(self.path, safe="/:=,+~*()")
        return f"{scheme}://{key}{path}{'?' if options else ''}{options}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def at_once(self) -> int:
        """Files to read or write at once: a disk is as fast with one, an object store lets each request wait."""
        return 1 if self.local else _REQUESTS

    @property
    def parent(self) -> "Place":
        """The folder that it lies in."""
        return replace(self, path=self.path.rstrip("/").rpartition("/")[0] or ("/" if self.local else ""))

    def within(self, folder: "Place") -> str:
        """The path below a folder, which stays true when the folder is moved; the whole address of what lies elsewhere."""
        base = folder.path.rstrip("/") + "/"
        return self.path.removeprefix(base) if self.local == folder.local and self.path.startswith(base) else str(self)

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

    def walk(self, everything: bool = False) -> Iterator[tuple[str, int]]:
        """Every file below the folder, in no promised order: its path relative to the folder, and its bytes.

        Names that start with a dot, or lie in a folder whose name does, are left out. Links are followed.

        Args:
            everything: Give hidden files too, and with -1 bytes what can be no data: pipes, sockets and devices, and (with a
                slash at its end) a folder that may not be opened.
        """
        return _walk_local(self.path, "", frozenset(), everything) if self.local else self._walk_store(everything)

    def open(self, ahead: int = _BUFFER) -> io.BufferedReader:
        """The file for reading, seekable; the caller closes it.

        Args:
            ahead: Bytes that are read at once at least: few for who wants little of a large file.
        """
        if self.local:
            return io.BufferedReader(io.FileIO(self.path), ahead)
        return io.BufferedReader(cast(Any, self.files.open_input_file(self.path)), ahead)

    def read_bytes(self) -> bytes:
        """All of the file."""
        if self.local:
            with open(self.path, "rb") as file:
                return file.read()
        with self.files.open_input_file(self.path) as file:
            return file.readall()

    def read_json(self) -> Any:
        """The value of a JSON file."""
        return json.loads(self.read_bytes())

    @contextmanager
    def writing(self) -> Iterator[NativeFile]:
        """A stream for the file, which appears whole when the block ends well and not at all when it fails."""
        file = PendingFile(self)
        try:
            yield file.stream
            file.publish()
        except BaseException:
            file.discard()
            raise

    def write_bytes(self, data: bytes) -> None:
        """Write the file at once."""
        with self.writing() as stream:
            stream.write(data)

    def copy_to(self, target: "Place") -> None:
        """Put the file's bytes at another place too, whole or not at all; this one stays as it is.

        On a disk that has hard links both are one file with two names, which takes no room. An object store copies in itself.

        Raises:
            FileNotFoundError: No file is there.
        """
        if self.local and target.local:
            _link(self.path, target)
        elif self.files == target.files and self.size() <= _LARGEST_COPY:
            self.files.copy_file(self.path, target.path)
        else:
            with self.open() as source, target.writing() as stream:
                shutil.copyfileobj(source, stream, _BUFFER)

    def write_json(self, value: Any) -> None:
        """Write a value as indented JSON; NaN, which JSON lacks, is a ValueError."""
        self.write_bytes((json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())

    def names(self) -> list[str]:
        """What lies in the folder, sorted, without names that start with a dot; nothing where there is no folder."""
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int | None]:
        """What lies in the folder likewise, each with its bytes; None for a folder."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        found = [info for info in self.files.get_file_info(selector) if not info.base_name.startswith(".")]
        return {info.base_name: info.size for info in found}

    def exists(self) -> bool:
        """Whether anything is there."""
        return self._info().type != fs.FileType.NotFound

    def may_pass(self, error: BaseException) -> bool:
        """Whether an error in reading may pass on a second try (a store that does not answer), or the file itself is bad."""
        lasting = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
        refused = "ACCESS_DENIED" in str(error)  # of one object: pyarrow has no PermissionError for it
        return isinstance(error, OSError) and not self.local and not isinstance(error, lasting) and not refused

    def _info(self) -> fs.FileInfo:
        return self.files.get_file_info([self.path])[0]

    def _walk_store(self, everything: bool) -> Iterator[tuple[str, int]]:
        base = self.path.rstrip("/") + "/"
        for info in self.files.get_file_info(fs.FileSelector(self.path, recursive=True)):
            relative = info.path.removeprefix(base)
            hidden = any(part.startswith(".") for part in relative.split("/"))
            if info.type == fs.FileType.File and (everything or not hidden):
                yield relative, info.size


class PendingFile:
    """A file being written, which readers see only once it is published; until then what it replaces stays as it is.

    On a disk it grows under another name and is renamed. In an object store the upload completes when it is published, in one
    request where it is small. pyarrow also completes an upload whose stream is dropped, with what was sent so far: a stream is
    therefore kept for ever unless it was published, and what the store holds of its upload goes with the bucket's rule for
    unfinished uploads.

    Nothing is flushed to the disk by force. After a power cut a file may be shorter than it was: readers of the store notice.

    Args:
        target: The file that it will be.

    Attributes:
        target: The same.
        stream: Where its content goes.
    """

    def __init__(self, target: Place) -> None:
        self.target = target
        self._temporary = _temporary(target) if target.local else None
        opened: list[NativeFile] = []
        try:
            if self._temporary is None:
                # By default pyarrow compresses what goes to a name that ends in .gz. Opened and kept in one call: a signal that
                # came during it is raised after it, and would drop the stream.
                opened.extend(map(partial(target.files.open_output_stream, compression=None), [target.path]))
            else:
                os.makedirs(target.parent.path, exist_ok=True)
                opened.append(OSFile(self._temporary, "wb"))
        finally:
            for stream in opened if self._temporary is None else ():
                _keep(stream)
        self.stream = opened[0]

    def publish(self) -> None:
        """Give the file its name."""
        if self._temporary is None:
            self.stream.close()
            _let_go(self.stream)
            return
        self.stream.flush()
        self.stream.close()
        os.replace(self._temporary, self.target.path)

    def discard(self) -> None:
        """Remove what was written. Never raises: it is called for an error, which is the one to be seen."""
        if self._temporary is None:
            return
        with suppress(OSError):
            os.unlink(self._temporary)
        with suppress(OSError, ArrowException):  # a full disk fails here again
            self.stream.close()


def _link(source: str, target: Place) -> None:
    os.makedirs(target.parent.path, exist_ok=True)
    temporary = _temporary(target)
    try:
        try:
            os.link(source, temporary)
        except FileNotFoundError:
            raise
        except OSError:  # no links here, or too many, or another disk
            shutil.copyfile(source, temporary)
        os.replace(temporary, target.path)
    finally:
        with suppress(FileNotFoundError):  # still there after an error, and after a rename between two names of one file
            os.unlink(temporary)


def _temporary(target: Place) -> str:
    """What a file is called until it is whole."""
    return f"{target.parent.path}/.{target.name}.{secrets.token_hex(4)}.part"


def _keep(stream: NativeFile) -> None:
    """Keep an upload from being completed: one reference more than there are, so that it is never dropped, at the end neither."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))


def _let_go(stream: NativeFile) -> None:
    """Take that reference back, of an upload that is complete."""
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(stream))


def remove_unfinished(folder: Place) -> None:
    """Delete what killed writers left half-written below a folder on a disk; nobody may be writing there."""
    if folder.local:
        for path in Path(folder.path).rglob(".*.part"):
            path.unlink(missing_ok=True)


def remove_file(file: Place) -> None:
    """Delete a file, if it is there."""
    with suppress(FileNotFoundError):
        file.files.delete_file(file.path)


def remove_folder(folder: Place) -> None:
    """Delete a folder and all that lies in it, if it is there."""
    if folder.is_folder():
        folder.files.delete_dir(folder.path)


def redacted(text: str) -> str:
    """A text without the passwords and the queries of the URIs in it."""
    return _SECRET.sub("", text)


def place(where: "str | Path | Place") -> Place:
    """The place that a local path or a URI names; a place stands for itself.

    Raises:
        PlaceError: The URI's scheme is unknown, or its store cannot be reached.
    """
    if isinstance(where, Place):
        return where
    where = str(where)
    try:
        where.encode()
    except UnicodeEncodeError:
        raise PlaceError(f"cannot open {where!r}: names of files must be UTF-8, rename it") from None
    if "\0" in where:
        raise PlaceError(f"cannot open {where!r}: no name holds a zero byte")
    if not URI.match(where):
        return Place(fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(where)).replace(os.sep, "/"), local=True)
    try:
        files, path = _file_system(where)
    except (ArrowException, OSError, ValueError) as error:
        shown = redacted(where)  # a URI may hold a password, and so may the message about it
        raise PlaceError(f"cannot open {shown!r}: {str(error).replace(where, shown)}") from None
    if isinstance(files, fs.LocalFileSystem):
        return Place(files, path.rstrip("/") or "/", local=True)
    host, _, options = where.partition("://")[2].partition("?")
    key = host.partition("/")[0].rpartition("@")[0]
    return Place(files, path.rstrip("/") or "/", local=False, key=key, options=options)


def _file_system(where: str) -> tuple[fs.FileSystem, str]:
    if where.startswith("s3://"):
        with suppress(ArrowException):  # what is wrong with the address is said below; older versions lack the option
            # A small file is then one request, not three.
            return fs.FileSystem.from_uri(f"{where}{'&' if '?' in where else '?'}allow_delayed_open=true")
    return fs.FileSystem.from_uri(where)


def _walk_local(folder: str, prefix: str, above: frozenset[str], everything: bool) -> Iterator[tuple[str, int]]:
    above = above | {os.path.realpath(folder)}
    try:
        opened = os.scandir(folder)
    except PermissionError:
        if not (everything and prefix):
            raise
        yield prefix, -1
        return
    with opened as entries:
        for entry in entries:
            if entry.name.startswith(".") and not everything:
                continue
            if entry.is_dir():
                if not (entry.is_symlink() and os.path.realpath(entry.path) in above):  # a link to a folder above never ends
                    yield from _walk_local(entry.path, f"{prefix}{entry.name}/", above, everything)
            elif entry.is_file():
                yield prefix + entry.name, entry.stat().st_size
            elif entry.is_symlink() and not os.path.exists(entry.path):
                # A broken link counts as an empty file: it is then skipped, with a reason, when it is read.
                yield prefix + entry.name, 0
            elif everything:
                yield prefix + entry.name, -1
