"""The commit record: written last, it makes a chunk's files part of the store."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from linrep.errors import StoreError
from linrep.places import Place
from linrep.store.layout import commit_file


@dataclass(frozen=True)
class WrittenFile:
    """A file of a chunk: its path in the store, its rows, its size in bytes."""

    path: str
    rows: int
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
    """

    chunk: int
    files: tuple[WrittenFile, ...]
    n_samples: int
    n_tokens: int
    skipped: tuple[tuple[str, str], ...]
    seconds: float
    precision: str

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Commit":
        """The record that `asdict` turned into plain values."""
        files = tuple(WrittenFile(**file) for file in value["files"])
        return cls(**{**value, "files": files, "skipped": tuple((s, r) for s, r in value["skipped"])})


def write_commit(place: Place, commit: Commit) -> None:
    """Make the chunk part of the store."""
    (place / commit_file(commit.chunk)).write_json(asdict(commit))


def read_commit(place: Place, chunk: int) -> Commit | None:
    """The commit of a chunk, None where it has none.

    Raises:
        StoreError: The record cannot be read.
    """
    file = place / commit_file(chunk)
    if not file.is_file():
        return None
    try:
        return Commit.from_json(file.read_json())
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise StoreError(f"{file} is damaged ({error}): delete it to harvest its chunk again") from None


def read_commits(place: Place) -> dict[int, Commit]:
    """All commits of a store by chunk number; none where nothing was committed yet.

    Raises:
        StoreError: A record cannot be read.
    """
    chunks = [int(name.removesuffix(".json")) for name in (place / "commits").names() if name.endswith(".json")]
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda chunk: read_commit(place, chunk), chunks)
        return {commit.chunk: commit for commit in found if commit is not None}
