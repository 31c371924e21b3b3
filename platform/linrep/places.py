"""Folders that may lie on a disk or in an object store, behind one small interface.

A file appears whole or not at all: on a disk by a temporary name and a rename, in an object store by its own atomic upload.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs


@dataclass(frozen=True)
class Place:
    """A folder: a file system and a path within it. Picklable.

    Attributes:
        fs: Where.
        root: Path in `fs`, without a slash at the end.
    """

    fs: pafs.FileSystem
    root: str

    @classmethod
    def at(cls, uri: str | Path) -> "Place":
        """The folder that a path or a URI (s3://, gs://, file://) names; it need not exist.

        Raises:
            ValueError: The URI's scheme is not one that can be written to.
        """
        text = str(uri)
        if "://" not in text:
            return cls(pafs.LocalFileSystem(), str(Path(text).expanduser().absolute()))
        try:
            fs, root = pafs.FileSystem.from_uri(text)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"cannot open {text!r}: {error}") from None
        return cls(fs, root.rstrip("/"))

    def __truediv__(self, name: str) -> "Place":
        return Place(self.fs, f"{self.root}/{name}")

    def __str__(self) -> str:
        return self.root if self.local is not None else f"{self.fs.type_name}://{self.root}"

    @property
    def local(self) -> Path | None:
        """The folder as a local path, None in an object store."""
        return Path(self.root) if isinstance(self.fs, pafs.LocalFileSystem) else None

    def has(self, name: str) -> bool:
        """Whether a file or folder of this name is here."""
        return self.fs.get_file_info(f"{self.root}/{name}").type != pafs.FileType.NotFound

    def names(self, folder: str = "") -> list[str]:
        """The names in the folder, sorted, without unfinished files; none where the folder does not exist."""
        selector = pafs.FileSelector(f"{self.root}/{folder}".rstrip("/"), allow_not_found=True)
        return sorted(info.base_name for info in self.fs.get_file_info(selector) if not info.base_name.startswith("."))

    def read(self, name: str) -> bytes:
        """The whole content of a file."""
        with self.fs.open_input_stream(f"{self.root}/{name}") as stream:
            return stream.read()

    def read_json(self, name: str) -> Any:
        """A JSON file's value."""
        return json.loads(self.read(name))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[pa.NativeFile]:
        """A stream for a file that appears under its name when the block ends well, and not at all when it fails."""
        file = PendingFile.start(self, name)
        try:
            yield file.stream
        except BaseException:
            file.discard()
            raise
        file.publish()

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file at once."""
        with self.writing(name) as stream:
            stream.write(data)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON."""
        self.write(name, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


@dataclass
class PendingFile:
    """A file being written that is not yet there under its name.

    Attributes:
        place: The folder.
        name: The name that it will have.
        stream: Where its content goes.
    """

    place: Place
    name: str
    stream: pa.NativeFile
    temporary: Path | None

    @classmethod
    def start(cls, place: Place, name: str) -> "PendingFile":
        """Open a file; its folders are made where there are folders to make."""
        if place.local is None:
            return cls(place, name, place.fs.open_output_stream(f"{place.root}/{name}"), None)
        target = place.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        return cls(place, name, pa.OSFile(str(temporary), "wb"), temporary)

    def publish(self) -> None:
        """Give the file its name."""
        self.stream.close()
        if self.temporary is not None:
            assert self.place.local is not None
            os.replace(self.temporary, self.place.local / self.name)

    def discard(self) -> None:
        """Leave nothing behind; an object store's unfinished upload is abandoned, never completed."""
        if self.temporary is not None:
            self.stream.close()
            self.temporary.unlink(missing_ok=True)
