"""A file of a repository, read piece by piece. Imports the hub's library, which `linrep.repository.streamed` does not."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from fsspec.spec import AbstractBufferedFile
from huggingface_hub import HfFileSystem, HfFileSystemFile


class Ranges(HfFileSystemFile):
    """A file that keeps nothing, and reads no more than it is asked for.

    Args:
        files: The hub.
        path: The file.
        asking: Turns what goes wrong with the hub into errors of ours.
    """

    def __init__(self, files: HfFileSystem, path: str, asking: Callable[[], AbstractContextManager[None]]) -> None:
        self._asking = asking
        super().__init__(files, path, mode="rb", cache_type="none")

    def _fetch_range(self, start: int, end: int) -> bytes:
        end = min(end, int(self.size or 0))  # whoever reads ahead asks beyond the end
        with self._asking():
            data = super()._fetch_range(start, end)
        if len(data) != end - start:
            raise OSError(f"hf://{self.path} gave {len(data)} bytes, not the {end - start} that were asked for")
        return data

    def read(self, length: int = -1) -> Any:
        """The next bytes; all of the rest if the length is negative."""
        return AbstractBufferedFile.read(self, length)  # that of the hub's library fetches a whole file in another way
