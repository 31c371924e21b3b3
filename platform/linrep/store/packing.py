"""Bring a store's packs up to date. Whoever drives a harvest does this; nobody else writes packs. See `linrep.store.packs`.

The law that keeps packs true: while a chunk can be committed, no pack holds it. A driver therefore drops packs of chunks that
have no commit (somebody deleted a damaged one) before it begins, and packs only what is committed.
"""

from collections.abc import Iterable, Iterator

from linrep.ahead import in_order
from linrep.errors import StoreError
from linrep.places import Place, remove_file
from linrep.store import packs
from linrep.store.commit import AT_ONCE, committed, parse_commit, repair
from linrep.store.layout import commit_file, pack_file, samples_file
from linrep.store.packs import Packed
from linrep.store.tables import read_table
from schemas import SAMPLES

FEWEST = 64
"""Chunks from which on a store is packed: fewer are read as fast one by one."""
EVERY = 256
"""Chunks that are committed between two packings of a running harvest: so many, at most, a resume reads one by one."""


def drop_stale(place: Place) -> None:
    """Remove packs that hold a chunk without a commit, before anybody may commit it anew."""
    there = committed(place)
    for number in packs.packs_in(place):
        if not packs.packed_chunks(place, number).keys() <= there.keys():
            remove_file(place / pack_file(number))


def pack(place: Place, chunks: Iterable[int] | None = None) -> None:
    """Write the packs that some chunks are missing in; a pack holds all chunks of its run that are committed.

    Killed at any moment it leaves packs that are old or new, and no other file is touched.

    Args:
        place: The store.
        chunks: Chunks that were committed since the last time; None for all.

    Raises:
        OSError: A file cannot be read or written now. Packs are not needed: the store reads the same without.
    """
    there = committed(place)
    known, wanted = packs.packs_in(place), set(there if chunks is None else there.keys() & set(chunks))
    for number in sorted({chunk // packs.CHUNKS for chunk in wanted}):
        run = {c: size for c, size in there.items() if c // packs.CHUNKS == number}
        if number not in known or packs.packed_chunks(place, number) != run:
            packs.write_pack(place, number, _packed(place, sorted(run)))


def _packed(place: Place, chunks: Iterable[int]) -> Iterator[tuple[int, Packed]]:
    """What lies in the chunks' own files; a chunk whose files are damaged is left out, and who reads it is told."""
    for chunk, found in in_order(lambda chunk: (chunk, _chunk(place, chunk)), chunks, AT_ONCE):
        if found is not None:
            yield chunk, found


def _chunk(place: Place, chunk: int) -> Packed | None:
    try:
        data = (place / commit_file(chunk)).read_bytes()
        commit = parse_commit(place, chunk, data)
        file = next(file for file in commit.files if file.path == samples_file(chunk))
        samples = read_table(place, file.path, None, repair(place, file), file, SAMPLES)
    except (StoreError, FileNotFoundError, StopIteration):
        return None
    return Packed(len(data), data.decode(), file.seal, samples)
