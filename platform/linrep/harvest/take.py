"""What earlier harvests hold of a chunk is taken as it is: files of vectors under a new name, samples and sums by value.

Nothing is computed again, and nothing of the earlier harvest is touched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

import pyarrow as pa

from linrep.corpora.index import Chunk
from linrep.errors import StoreError
from linrep.places import Place
from linrep.store.commit import Commit, TakenFiles, WrittenFile, repair
from linrep.store.layout import (
    GROUPS,
    LAST_GROUPS,
    Folder,
    parse_folder,
    samples_file,
    site_group,
    statistics_file,
    view_and_site,
)
from linrep.store.statistics import Sums, from_table
from linrep.store.tables import read_table
from linrep.store.write import ChunkWriter, writing_chunk
from schemas import SAMPLES, STATISTICS

Part = tuple[int, Folder]
"""A layer and a view of a site: what a chunk has, or lacks, as a whole."""


def groups_of(folder: Folder) -> tuple[str, ...]:
    """The groups of the statistics that a view of a site makes: those of all tokens, and of last positions if it keeps them."""
    view, site = view_and_site(folder)
    return tuple(site_group(group, site) for group in ((*GROUPS, *LAST_GROUPS) if view == "last" else GROUPS))


class OriginLost(StoreError):
    """An earlier harvest does not hold what a chunk was to take of it: the chunk is computed instead."""


@dataclass(frozen=True)
class Origin:
    """A chunk of an earlier harvest with the same samples.

    Attributes:
        harvest: Name and digest of that harvest.
        place: Its store.
        commit: What it holds.
        parts: What is taken of it.
    """

    harvest: str
    place: Place
    commit: Commit
    parts: frozenset[Part]

    @property
    def files(self) -> tuple[WrittenFile, ...]:
        """The files of vectors that are taken."""
        return tuple(
            f for f in self.commit.files if (found := parse_folder(f.path)) is not None and (found[1], found[0]) in self.parts
        )

    @property
    def taken(self) -> TakenFiles:
        """How much that is."""
        return TakenFiles(self.harvest, len(self.files), sum(file.bytes for file in self.files))

    def samples(self) -> pa.Table:
        """The samples, skipped ones included."""
        return self._table(samples_file(self.commit.chunk), SAMPLES)

    def sums(self) -> dict[tuple[int, str], Sums]:
        """The sums of the layers that are taken; those over last positions where their view is taken."""
        wanted = {(layer, group) for layer, folder in self.parts for group in groups_of(folder)}
        found = from_table(self._table(statistics_file(self.commit.chunk), STATISTICS))
        return {key: sums for key, sums in found.items() if key in wanted}

    def _table(self, path: str, schema: pa.Schema) -> pa.Table:
        file = next(file for file in self.commit.files if file.path == path)
        return read_table(self.place, path, None, repair(self.place, file), file, schema)


@dataclass(frozen=True)
class ChunkWork:
    """How a chunk comes to be.

    Attributes:
        chunk: Its samples.
        views: What is computed: views of sites by layer. Empty where all is taken.
        origins: What is taken; of a part there is one.
    """

    chunk: Chunk
    views: Mapping[int, tuple[Folder, ...]]
    origins: tuple[Origin, ...] = ()

    @property
    def depth(self) -> int:
        """The deepest layer that is computed; -1 where none is."""
        return max(self.views, default=-1)


@dataclass(frozen=True)
class TakenRows:
    """What a chunk has been given from earlier harvests.

    Attributes:
        samples: Its samples, as they were then.
        sums: Sums by layer and group.
        files: How many files came from where.
    """

    samples: pa.Table
    sums: dict[tuple[int, str], Sums]
    files: tuple[TakenFiles, ...]


def take(writer: ChunkWriter, origins: Sequence[Origin]) -> TakenRows:
    """Take what some origins hold into the chunk that is being written.

    Raises:
        OriginLost: One of them lacks a file or holds a damaged one, or their samples differ.
    """
    try:
        samples = [origin.samples() for origin in origins]
        sums: dict[tuple[int, str], Sums] = {}
        for origin in origins:
            sums = {**origin.sums(), **sums}
            for file in origin.files:
                writer.take(origin.place, file)
    except StoreError as error:
        raise OriginLost(str(error)) from None
    if not all(table.equals(samples[0]) for table in samples):
        raise OriginLost(f"its samples differ between {', '.join(origin.harvest for origin in origins)}")
    return TakenRows(samples[0], sums, tuple(origin.taken for origin in origins))


def take_chunk(place: Place, work: ChunkWork, schema: pa.Schema) -> Commit:
    """Take a whole chunk from earlier harvests and commit it; no model is needed.

    Args:
        place: The store.
        work: A chunk of which nothing is to be computed.
        schema: Contract of the vector tables.

    Raises:
        OriginLost: See `take`.
    """
    start, first = monotonic(), work.origins[0].commit
    with writing_chunk(place, work.chunk.number, schema) as writer:
        taken = take(writer, work.origins)
        seconds = round(monotonic() - start, 3)
        about = first.n_samples, first.n_tokens, first.skipped, seconds, first.precision
        return writer.commit(taken.samples, taken.sums, *about, taken.files)
