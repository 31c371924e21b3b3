"""What a repository of the hub holds, and its files on this machine: through the hub's cache, each one verified.

What others have put there is taken for hostile: names that lead out of a folder and more bytes than were reckoned with are
refused before anything is fetched, and a file counts once its digest is the one that the hub lists.
"""

import glob
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from linrep.errors import HubError
from linrep.records import is_inside
from linrep.repository.address import Address, parse
from linrep.repository.refusals import hub_errors

MOST_BYTES = 20 * 10**9
"""Bytes that are fetched of a repository, unless more are asked for."""
MOST_FILES = 20_000
_PIECE = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        path: Where it lies there.
        size: Bytes.
        digest: SHA-256 of a large file, else git's SHA-1, in hexadecimal digits.
    """

    path: str
    size: int
    digest: str

    def is_same(self, content: Path | bytes) -> bool:
        """Whether a file on this machine, or some bytes, are its content."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size != self.size:
            return False
        found = hashlib.sha256() if len(self.digest) == 64 else hashlib.sha1(b"blob %d\0" % size)
        for piece in _pieces(content):
            found.update(piece)
        return found.hexdigest() == self.digest


@dataclass(frozen=True)
class Listing:
    """What a repository holds at a commit.

    Attributes:
        commit: The commit.
        private: Whether only its owner sees it.
        files: Its files by path.
    """

    commit: str
    private: bool
    files: dict[str, RemoteFile] = field(repr=False)


@dataclass(frozen=True)
class Fetched:
    """Files of a repository on this machine.

    Attributes:
        folder: Where they lie, as they lie in the repository.
        commit: Which commit they are of.
        files: Their paths, sorted.
        left: Files of the repository that are of no kind that is fetched.
    """

    folder: Path
    commit: str
    files: tuple[str, ...]
    left: tuple[str, ...]


def pinned(path: str) -> str:
    """The address with the commit that its revision stands for now: whoever reads it later, or elsewhere, reads the same.

    Raises:
        HubError: There is no such repository, or neither the hub nor its cache knows it.
    """
    address = parse(path)
    return str(replace(address, revision=_commit(address)))


def listing(address: Address) -> Listing | None:
    """What a repository holds; None where there is none that this machine's token may see.

    Raises:
        HubError: The hub does not answer.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    with hub_errors(address):
        try:
            return _listing(address, address.revision)
        except RepositoryNotFoundError:
            return None


def fetched(address: Address, takes: Callable[[str], bool], most_bytes: int = MOST_BYTES) -> Fetched:
    """Files of a repository, from the hub's cache or through it, each verified.

    A fetch that was stopped goes on where it was. Where the hub cannot be reached, what the cache holds of the revision will do:
    it was verified when it came.

    Args:
        address: The repository, or a folder of it.
        takes: Whether a file is one to fetch, by its path in the repository.
        most_bytes: Bytes of these files, at most.

    Raises:
        HubError: There is no such repository or nothing in it to fetch, a name in it leads astray, it is too large, a file is
            not what the hub says, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    commit = _commit(address)
    found = _asked(address, commit)
    wanted = _cached(address, commit, takes) if found is None else _chosen(address, found.files, takes, most_bytes)
    own: dict[str, Any] = {"repo_type": address.kind, "revision": commit, "local_files_only": found is None}
    with hub_errors(address):
        folder = Path(snapshot_download(address.name, allow_patterns=[glob.escape(path) for path in wanted], **own))
        if found is not None and (damaged := _damaged(folder, wanted, found.files)):  # the cache was changed since they came
            patterns = [glob.escape(path) for path in damaged]
            snapshot_download(address.name, allow_patterns=patterns, force_download=True, **own)
            for path in _damaged(folder, damaged, found.files):
                raise HubError(f"{path} of {address} is not what the hub says that it is: nothing of it was taken")
    left = () if found is None else tuple(path for path in sorted(found.files) if path not in wanted and not _is_hidden(path))
    return Fetched(folder, commit, tuple(wanted), left)


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(library_name="linrep")


def _commit(address: Address) -> str:
    """The commit of a revision, as the hub says, or as it said when it was last asked."""
    with hub_errors(address):
        return _api().resolve_revision(address.name, repo_type=address.kind, revision=address.revision).resolved


def _asked(address: Address, commit: str) -> Listing | None:
    """What the hub says that a repository holds at a commit; None where it cannot be reached."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    with hub_errors(address):
        try:
            return _listing(address, commit)
        except (httpx2.TransportError, OfflineModeIsEnabled):
            return None


def _cached(address: Address, commit: str, takes: Callable[[str], bool]) -> list[str]:
    """The files to take of a commit, as the cache knows them."""
    from huggingface_hub import get_cached_repo_tree

    with hub_errors(address):
        there = get_cached_repo_tree(address.name, repo_type=address.kind, revision=commit)
    return _wanted([file.path for file in there], takes)


def _damaged(folder: Path, paths: Sequence[str], there: dict[str, RemoteFile]) -> list[str]:
    return [path for path in paths if not (folder / path).is_file() or not there[path].is_same(folder / path)]


def _listing(address: Address, revision: str | None) -> Listing:
    info = _api().repo_info(address.name, repo_type=address.kind, revision=revision, files_metadata=True)
    if len(info.siblings or ()) > MOST_FILES:
        raise HubError(f"{address} holds more than {MOST_FILES:,} files: that is none of what is shared here")
    files: dict[str, RemoteFile] = {}
    for own in info.siblings or ():
        size, digest = (own.size, own.blob_id) if own.lfs is None else (own.lfs.size, own.lfs.sha256)
        files[own.rfilename] = RemoteFile(own.rfilename, int(size or 0), str(digest))
    return Listing(str(info.sha), bool(info.private), files)


def _chosen(address: Address, there: dict[str, RemoteFile], takes: Callable[[str], bool], most_bytes: int) -> list[str]:
    """The files to fetch, once it is clear that all can be written below a folder."""
    astray = next((path for path in there if not is_safe(path)), None)
    if astray is not None:
        raise HubError(f"{address} holds a file that leads astray ({astray!r:.100}): nothing of it was taken")
    wanted = _wanted(there, takes)
    if len({path.casefold() for path in wanted}) < len(wanted):
        raise HubError(f"{address} holds files whose names differ only in case: nothing of it was taken")
    size = sum(there[path].size for path in wanted)
    if size > most_bytes:
        raise HubError(f"{address} holds {size / 1e9:,.1f} GB, more than the {most_bytes / 1e9:,.1f} GB that are taken at most")
    if not wanted:
        seen = [path for path in there if path.startswith(address.folder) and not _is_hidden(path)][:5]
        raise HubError(f"{address} holds no file of a kind that is fetched: there is {', '.join(seen) or 'none'}")
    return wanted


def is_safe(path: str) -> bool:
    """Whether a path can be written below a folder of any system: no way out of it, no character that cannot be seen."""
    return is_inside(path) and path.isprintable() and not any(part.endswith((" ", ".")) for part in path.split("/"))


def _wanted(there: Iterable[str], takes: Callable[[str], bool]) -> list[str]:
    return [path for path in sorted(there) if not _is_hidden(path) and takes(path)]


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _pieces(content: Path | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
