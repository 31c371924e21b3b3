"""Files of a repository read where they lie, without a download: a place like any other, of which only what is wanted comes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from pyarrow import PythonFile
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType, PyFileSystem

from linrep.errors import HubError
from linrep.places import Place, place
from linrep.repository.address import Address, is_address, parse
from linrep.repository.refusals import hub_errors


def open_place(where: str | Place) -> Place:
    """The place that a local path, a URI or an address of the hub names. Nothing is asked of the hub yet.

    Raises:
        HubError: It begins like an address of the hub, and is none.
        PlaceError: It names no place.
    """
    if not (isinstance(where, str) and is_address(where)):
        return place(where)
    address = parse(where)
    handler = RepositoryHandler(Address(address.kind, address.name, address.revision))
    path = f"{handler.root}/{address.folder}".rstrip("/")
    return Place(PyFileSystem(handler), path, local=False)


class RepositoryHandler(FileSystemHandler):
    """What pyarrow asks of a file system, answered by the hub for one repository at one revision; nothing is written.

    What may pass (a hub that does not answer) is an OSError, so that whoever reads tries again; what will not is a HubError.

    Args:
        address: The repository.
    """

    def __init__(self, address: Address) -> None:
        from huggingface_hub import HfFileSystem

        self._address = address
        self._hub = HfFileSystem()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._address,)  # neither a token nor what was listed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RepositoryHandler) and self._address == other._address

    def __hash__(self) -> int:
        return hash(self._address)

    @property
    def root(self) -> str:
        """The path of the repository's own folder."""
        revision = self._address.revision
        at = "" if revision is None else f"@{quote(revision, safe='')}"  # refs/pr/1 is one part of a path
        return f"{'datasets/' * (self._address.kind == 'dataset')}{self._address.name}{at}"

    def get_type_name(self) -> str:
        """The scheme of its addresses."""
        return "hf"

    def normalize_path(self, path: str) -> str:
        """The path as it is."""
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[FileInfo]:
        """What lies at each path."""
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        """What lies in a folder."""
        base = selector.base_dir.strip("/")
        if self._info(base).type != FileType.Directory:
            if selector.allow_not_found:
                return []
            raise FileNotFoundError(f"no folder at hf://{base}")
        with self._asking():
            found: Any = self._hub.find(base, maxdepth=None if selector.recursive else 1, withdirs=True, detail=True)
        return [_file_info(path, about) for path, about in found.items() if path.strip("/") != base]

    def open_input_file(self, path: str) -> PythonFile:
        """The file for reading anywhere in it: each read is one request for the bytes that are asked for."""
        if self._info(path).type != FileType.File:
            raise FileNotFoundError(f"no file at hf://{path}")
        from linrep.repository.ranges import Ranges

        with self._asking():
            return PythonFile(Ranges(self._hub, path, self._asking), mode="r")

    open_input_stream = open_input_file

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise PermissionError(f"{self._address} is read and never written: give a folder or an object store")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _refuse
    move = copy_file = open_output_stream = open_append_stream = _refuse

    def _info(self, path: str) -> FileInfo:
        if path != self.root and not path.startswith(f"{self.root}/"):  # above the repository there is nothing
            return FileInfo(path, FileType.NotFound)
        try:
            with self._asking():
                return _file_info(path, self._hub.info(path))
        except FileNotFoundError:
            return FileInfo(path, FileType.NotFound)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            try:
                with hub_errors(self._address):
                    raise
            except HubError as line:
                if _may_pass(error):
                    raise OSError(str(line)) from None
                raise


def _file_info(path: str, about: dict[str, Any]) -> FileInfo:
    if about["type"] == "directory":
        return FileInfo(path, FileType.Directory)
    return FileInfo(path, FileType.File, size=int(about["size"]))


def _may_pass(error: BaseException) -> bool:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, httpx2.TransportError)
