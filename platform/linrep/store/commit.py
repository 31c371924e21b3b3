"""The commit record: written last, it makes a chunk's files part of the store."""

import functools
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

import xxhash

from linrep.ahead import in_order
from linrep.errors import StoreError
from linrep.places import Place
from linrep.records import CHECK, is_inside, parse_record, write_record
from linrep.store.layout import commit_file
from linrep.store.packs import packed_commits

AT_ONCE = 16
"""Small files that are read at once."""
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
    try:
        data = (place / commit_file(chunk)).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    return parse_commit(place, chunk, data)


def parse_commit(place: Place, chunk: int, data: bytes) -> Commit:
    """The commit that the bytes of a chunk's record are.

    Raises:
        StoreError: As `read_commit`.
    """
    file = place / commit_file(chunk)
    again = "delete it and run the same job again: it makes the chunk anew"
    commit = parse_record(data, file, Commit, again)
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
    packed = packed_commits(place) if chunks else {}
    if strange:
        _warn(f"{place / 'commits'} holds {len(strange)} files that are no commits, which are ignored: {', '.join(strange[:20])}")
    known = {chunk: _unpacked(chunk, *packed[chunk], size) for chunk, size in chunks.items() if chunk in packed}
    rest = [chunk for chunk in chunks if known.get(chunk) is None]
    read = dict(zip(rest, in_order(lambda chunk: read_commit(place, chunk), rest, AT_ONCE), strict=True))
    found = {chunk: known.get(chunk) or read[chunk] for chunk in chunks}
    return {chunk: commit for chunk, commit in found.items() if commit is not None}


def committed(place: Place) -> dict[int, int]:
    """Chunks that have a commit, with the bytes of its file; nothing is opened."""
    return _sort(place, None)[0]


def sum_of(commits: Mapping[int, Commit]) -> str:
    """Names what some commits name: chunks, files and their seals."""
    total = xxhash.xxh3_64()
    for chunk, commit in sorted(commits.items()):
        total.update(f"{chunk} {' '.join(f'{file.path} {file.seal}' for file in commit.files)} ".encode())
    return total.hexdigest()


def strange_commits(place: Place, n_chunks: int | None = None) -> list[str]:
    """Names in the folder of commits that are no commits: copies by other tools, chunks that the store does not have."""
    return _sort(place, n_chunks)[1]


def _sort(place: Place, n_chunks: int | None) -> tuple[dict[int, int], list[str]]:
    chunks, strange = {}, []
    for name, size in sorted((place / "commits").sizes().items()):
        found = _RECORD.fullmatch(name)
        chunk = int(found.group(1)) if found else -1
        if chunk < 0 or commit_file(chunk) != f"commits/{name}" or (n_chunks is not None and chunk >= n_chunks):
            strange.append(name)
        else:
            chunks[chunk] = size or 0
    return chunks, strange


def _unpacked(chunk: int, packed: int, text: str, size: int) -> Commit | None:
    """A commit from a pack, whose sums say that it was whole when it was packed; None where its file is another now."""
    if packed != size:
        return None
    value = json.loads(text)
    value.pop(CHECK, None)
    try:
        files = tuple(WrittenFile(**file) for file in value.pop("files"))
        skipped, taken = tuple(map(tuple, value.pop("skipped"))), tuple(TakenFiles(**one) for one in value.pop("taken"))
        commit = Commit(**value, files=files, skipped=skipped, taken=taken)  # pyright: ignore[reportArgumentType]
    except (KeyError, TypeError):  # a record of another version
        return None
    return commit if _wrong(commit, chunk) is None else None


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
