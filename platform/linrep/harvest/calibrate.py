"""Before the first chunk: what norms are usual in this model on these corpora, from a few samples; see `linrep.store.limits`."""

from collections.abc import Mapping, Sequence

import numpy as np

from linrep.corpora import Corpora
from linrep.corpora.index import Chunk
from linrep.corpora.narrow import narrow
from linrep.harvest.chunk import prepare_chunk
from linrep.harvest.harvester import Harvester
from linrep.store.limits import Limits, norm_limits
from linrep.store.statistics import merge
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared

SAMPLES = 64
"""Samples of each source that are measured: thousands of tokens, whose median is far steadier than the limit needs."""
CHUNKS = 16
"""Chunks that these are spread over, so that a source sorted by class is not measured on one class."""
TRIES = 4
"""How many times as many are read where samples are skipped."""


Turns = Mapping[str, Sequence[Sequence[Chunk]]]
"""What is read of each source: some records, then others in case samples are skipped."""


def calibration_turns(chunks: Sequence[Chunk], n: int = SAMPLES) -> Turns:
    """What is read to find usual norms: of each source n records, then n others, in case samples are skipped."""
    sources = dict.fromkeys(chunk.source for chunk in chunks)
    return {source: _turns([chunk for chunk in chunks if chunk.source == source], n) for source in sources}


def calibrate(harvester: Harvester, turns: Turns, corpora: Corpora, preparer: Preparer, n: int = SAMPLES) -> dict[str, Limits]:
    """The limits of each source, from a few of its samples: the same samples on every machine, in one order.

    Args:
        harvester: Holds the model; its own limits are not used.
        turns: What `calibration_turns` gave.
        corpora: Where they lie.
        preparer: Prepares samples.
        n: Samples of each source that are enough.
    """
    limits: dict[str, Limits] = {}
    for source, of_source in turns.items():
        found: list[Prepared] = []
        for turn in of_source:
            if len(found) < n:
                found += [one for part in turn for one in prepare_chunk(part, corpora, preparer) if isinstance(one, Prepared)]
        limits[source] = measure(harvester, found)
    return limits


def measure(harvester: Harvester, prepared: Sequence[Prepared]) -> Limits:
    """The limits that the tokens of some samples of a source give."""
    return norm_limits(merge(rows.sums for rows in harvester.of_last()(prepared)), harvester.config.high_norm)


def _turns(chunks: Sequence[Chunk], n: int) -> list[list[Chunk]]:
    """Parts of some chunks with n records in all, spread over the chunks and within each; and again, with other records."""
    at = np.unique(np.linspace(0, len(chunks) - 1, CHUNKS).round().astype(int))
    each = -(-n // len(at))
    turns: list[list[Chunk]] = [[] for _ in range(TRIES)]
    for chunk in (chunks[i] for i in at):
        records = np.unique(np.linspace(0, chunk.n_records - 1, TRIES * each).round().astype(int)).tolist()
        for turn, parts in enumerate(turns):
            if records[turn::TRIES]:
                parts.append(narrow(chunk, records[turn::TRIES]))
    return turns
