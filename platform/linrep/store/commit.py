"""The commit record: written last, it makes a chunk's files part of the store."""

import functools
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from linrep.errors import StoreError
from linrep.places import Place
from linrep.records import find_record, is_inside, write_record
from linrep.store.layout import commit_file

REPAIR = "delete its commit, {commit}, and run the same job again: it makes the chunk anew"
_RECORD = re.compile(r"([0-9]{6,})\.json")
PART = re.compile(r"part-([0-9]{6,})\.parquet$")


@dataclass(frozen=True)
class WrittenFile:
    """A file of a chunk: its path in the store, its rows, its size in bytes, and its seal (see `linrep.store.sealed`)."""

    path: str
    rows: int
    bytes: int
    seal: str

    @property
    def chunk(self) -> int:
        """The number of its chunk."""
        found = PART.search(self.path)
        assert found is not None, self.path
        return int(found.group(1))


@dataclass(frozen=True)
class TakenFiles:
    """How many of a chunk's files, with how many bytes, were taken from an earlier harvest, which goes by name and digest."""

    harvest: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Commit:
    """What one chunk wrote.

    Attributes:
        chunk: Number of the chunk.
        files: All its files; readers read no others.
        n_samples: Samples harvested.
        n_tokens: Tokens run through the model, padding not counted.
        skipped: Samples left out, id and reason.
        seconds: Time the chunk took, in the process that harvested it.
        precision: Number format that the model ran in.
        taken: Which of its files were not written anew; those harvests may be gone since.
    """

    chunk: int
    files: tuple[WrittenFile, ...]
    n_samples: int
    n_tokens: int
    skipped: tuple[tuple[str, str], ...]
    seconds: float
    precision: str
    taken: tuple[TakenFiles, ...] = ()


def repair(place: Place, file: WrittenFile) -> str:
    """What to do about a damaged file of a chunk."""
    return REPAIR.format(commit=place / commit_file(file.chunk))


def write_commit(place: Place, commit: Commit) -> None:
    """Make the chunk part of the store."""
    write_record(place / commit_file(commit.chunk), commit)


def read_commit(place: Place, chunk: int) -> Commit | None:
    """The commit of a chunk, None where it has none.

    Raises:
        StoreError: The record cannot be read, is of another chunk, or names files that cannot be this chunk's.
    """
    file = place / commit_file(chunk)
    again = "delete it and run the same job again: it makes the chunk anew"
    commit = find_record(file, Commit, again)
    if commit is None:
        return None
    wrong = _wrong(commit, chunk)
    if wrong is not None:
        raise StoreError(f"{file} is damaged ({wrong}): {again}")
    return commit


def read_commits(place: Place, n_chunks: int | None = None) -> dict[int, Commit]:
    """All commits of a store by chunk number; none where nothing was committed yet. Strange files are ignored, and named once.

    Args:
        place: The store.
        n_chunks: Chunks of the whole store, where that is known: commits of others are strange.

    Raises:
        StoreError: A record cannot be read.
    """
    chunks, strange = _sort(place, n_chunks)
    if strange:
        _warn(f"{place / 'commits'} holds {len(strange)} files that are no commits, which are ignored: {', '.join(strange[:20])}")
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda chunk: read_commit(place, chunk), chunks)
        return {commit.chunk: commit for commit in found if commit is not None}


def strange_commits(place: Place, n_chunks: int | None = None) -> list[str]:
    """Names in the folder of commits that are no commits: copies by other tools, chunks that the store does not have."""
    return _sort(place, n_chunks)[1]


def _sort(place: Place, n_chunks: int | None) -> tuple[list[int], list[str]]:
    chunks, strange = [], []
    for name in (place / "commits").names():
        found = _RECORD.fullmatch(name)
        chunk = int(found.group(1)) if found else -1
        if chunk < 0 or commit_file(chunk) != f"commits/{name}" or (n_chunks is not None and chunk >= n_chunks):
            strange.append(name)
        else:
            chunks.append(chunk)
    return chunks, strange


def _wrong(commit: Commit, chunk: int) -> str | None:
    if commit.chunk != chunk:
        return f"it is the commit of chunk {commit.chunk}"
    for file in commit.files:
        if not is_inside(file.path):
            return f"the path {file.path!r:.100} leads out of its folder"
        if not file.path.endswith(f"/part-{chunk:06d}.parquet"):
            return f"{file.path!r:.100} is no file of this chunk"
        if file.rows < 0 or file.bytes < 0:
            return f"{file.path} cannot have {file.rows} rows in {file.bytes} bytes"
    paths = [file.path for file in commit.files]
    return None if len(set(paths)) == len(paths) else "it names a file twice"


@functools.cache
def _warn(message: str) -> None:
    logging.getLogger("linrep.store").warning(message)
