"""Samples on their way to the model: a chunk is read in parts, and a part travels in parcels.

A chunk is the unit of commit; what travels, and what anybody holds of it, does not grow with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

from linrep.corpora import Corpora
from linrep.corpora.index import Chunk
from linrep.corpora.narrow import narrow
from linrep.corpora.read import read
from linrep.harvest.clock import Clock, Work
from linrep.retry import resumed
from linrep.sample import Sample, Skipped
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared

PARCEL_BYTES = 64 * 10**6
"""Most bytes of a parcel's prepared samples; a single sample that is larger is a parcel by itself."""

PART_RECORDS = 64
"""Records of a part where records hold images: many readers work on a chunk, and a container is opened a few times."""


@dataclass(frozen=True)
class Parcel:
    """Samples that travel together, in the chunk's order.

    Attributes:
        samples: Prepared, or skipped with the reason.
        seconds: What they took, see `linrep.harvest.clock.Work`.
    """

    samples: tuple[Prepared | Skipped, ...]
    seconds: Mapping[Work, float]


def parts_of(chunk: Chunk) -> list[Chunk]:
    """A chunk in parts, in its order. Texts are one part: they weigh little, and their containers have large row groups."""
    if chunk.corpus == "text" or chunk.n_records <= PART_RECORDS:
        return [chunk]
    starts = range(0, chunk.n_records, PART_RECORDS)
    return [narrow(chunk, range(start, min(start + PART_RECORDS, chunk.n_records))) for start in starts]


def read_parcels(part: Chunk, corpora: Corpora, preparer: Preparer, pauses: Sequence[float] = ()) -> Iterator[Parcel]:
    """Every sample of a part, ready for the model or skipped with the reason. The samples alone decide where a parcel ends.

    Args:
        part: A chunk, or a part of one.
        corpora: Where it lies.
        preparer: Prepares samples.
        pauses: Seconds before each further try of what could not be read; what is prepared already stays.

    Raises:
        CorpusError: As `read`.
        OSError: It could not be read, also not in the last try.
    """
    clock, held, n_bytes = Clock(), list[Prepared | Skipped](), 0
    found = resumed(lambda n: islice(read(part, corpora), n, None), pauses, lambda error: isinstance(error, OSError))
    while True:
        with clock.measure("read"):
            sample = next(found, None)
        if sample is None:
            break
        one = sample if isinstance(sample, Skipped) else _prepared(sample, preparer, clock)
        more = one.n_bytes if isinstance(one, Prepared) else 0
        if held and n_bytes + more > PARCEL_BYTES:
            parcel = Parcel(tuple(held), clock.seconds)
            clock, held, n_bytes = Clock(), [], 0
            yield parcel
            del parcel  # it must not stay in memory beside the next one
        held.append(one)
        n_bytes += more
    if held:
        yield Parcel(tuple(held), clock.seconds)


def _prepared(sample: Sample, preparer: Preparer, clock: Clock) -> Prepared | Skipped:
    """What a preparer makes of a sample; decoding is counted apart from the rest."""
    preparer.decoding = lambda: clock.measure("decode", within="prepare")
    try:
        with clock.measure("prepare"):
            return preparer(sample)
    finally:
        preparer.decoding = nullcontext
