"""One chunk from corpus to commit: read and prepare on any machine, then run and write where the model is."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from linrep.corpora import Corpora
from linrep.corpora.index import Chunk
from linrep.harvest.clock import Clock
from linrep.harvest.harvester import Harvester, Rows
from linrep.harvest.parcels import read_parcels
from linrep.harvest.take import Origin, OriginLost, TakenRows, take
from linrep.places import Place
from linrep.sample import Skipped
from linrep.store.commit import Commit
from linrep.store.statistics import Sums, merge
from linrep.store.write import ChunkWriter, samples_table, writing_chunk
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared

WRITES_AHEAD = 4
"""Micro-batches that may wait to be written before the model pauses."""
CHECKED_AT_ONCE = 64
"""Samples that are held against those of an earlier harvest together: a corpus that has changed is noticed on the way."""


def prepare_chunk(chunk: Chunk, corpora: Corpora, preparer: Preparer) -> list[Prepared | Skipped]:
    """Every sample of a chunk, ready for the model or skipped with the reason, in the chunk's order."""
    return [one for parcel in read_parcels(chunk, corpora, preparer) for one in parcel.samples]


def harvest_chunk(
    harvester: Harvester,
    samples: Iterable[Prepared | Skipped],
    place: Place,
    chunk: int,
    origins: Sequence[Origin] = (),
    clock: Clock | None = None,
) -> Commit:
    """Run a chunk through the model, write its files and commit it. It holds some of the samples at a time, never all.

    Args:
        harvester: Holds the model, and keeps what is to be computed.
        samples: All samples of the chunk, in its order; taken as there is room.
        place: The store.
        chunk: Number of the chunk.
        origins: What earlier harvests hold of it, see `linrep.harvest.take`.
        clock: Counts where the time goes.

    Raises:
        OriginLost: They do not hold it any more, or the samples have changed since.
    """
    start = time.monotonic()
    clock = Clock() if clock is None else clock
    with writing_chunk(place, chunk, harvester.schema) as writer:
        taken = take(writer, origins) if origins else None
        seen = _SamplesSeen(taken, origins[0].harvest if origins else "")
        sums, n_tokens = _write_all(harvester(seen.usable(samples), clock), writer, clock)
        seconds = round(time.monotonic() - start, 3)
        sums |= taken.sums if taken else {}
        about = len(seen.rows) - len(seen.skipped), n_tokens, tuple(seen.skipped), seconds, harvester.precision
        with clock.measure("write"):
            return writer.commit(samples_table(seen.rows), sums, *about, taken.files if taken else ())


class _SamplesSeen:
    """What is kept of samples that have gone to the model: their rows.

    Attributes:
        rows: Of the samples table.
        skipped: Id and reason of those left out.
    """

    def __init__(self, taken: TakenRows | None, origin: str) -> None:
        self.rows: list[dict[str, object]] = []
        self.skipped: list[tuple[str, str]] = []
        self._taken, self._origin, self._checked = taken, origin, 0

    def usable(self, samples: Iterable[Prepared | Skipped]) -> Iterator[Prepared]:
        """The samples that the model takes.

        Raises:
            OriginLost: They are not those of an earlier harvest; at the latest when all have been seen.
        """
        for one in samples:
            self.rows.append(sample_row(one))
            if isinstance(one, Skipped):
                self.skipped.append((one.sample.id, one.reason))
            else:
                yield one
            if len(self.rows) == self._checked + CHECKED_AT_ONCE:
                self._check()
        self._check()
        if self._taken is not None and len(self.rows) != len(self._taken.samples):
            raise self._lost()

    def _check(self) -> None:
        if self._taken is not None:
            new = samples_table(self.rows[self._checked :])
            if not new.equals(self._taken.samples.slice(self._checked, len(new))):
                raise self._lost()
        self._checked = len(self.rows)

    def _lost(self) -> OriginLost:
        return OriginLost(f"its samples are not those that {self._origin} was made of: a corpus has changed")


def _write_all(batches: Iterable[Rows], writer: ChunkWriter, clock: Clock) -> tuple[dict[tuple[int, str], Sums], int]:
    """Write micro-batches on a thread of their own while the model works on the next ones."""
    sums: dict[tuple[int, str], Sums] = {}
    n_tokens = 0
    writes: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as thread:
        for rows in batches:
            writes.append(thread.submit(_write, rows, writer, clock))
            sums = merge((sums, rows.sums))
            n_tokens += rows.n_tokens
            while len(writes) > WRITES_AHEAD:
                writes.popleft().result()
        for write in writes:
            write.result()
    return sums, n_tokens


def _write(rows: Rows, writer: ChunkWriter, clock: Clock) -> None:
    with clock.measure("write"):
        for (folder, layer, modality), table in rows.tables.items():
            writer.vectors(folder, layer, modality, table)


def sample_row(item: Prepared | Skipped) -> dict[str, object]:
    """The row of the samples table; a skipped sample has its reason and no tokens."""
    sample = item.sample
    row: dict[str, object] = {
        "sample_id": sample.id,
        "corpus": sample.corpus,
        "modality": sample.modality,
        "uri": sample.uri,
        "label": sample.label,
        "class_name": sample.class_name,
        "text": sample.text,
        "pair_id": sample.pair_id,
        "split": sample.split,
        "n_image_tokens": 0,
        "n_text_tokens": 0,
    }
    if isinstance(item, Skipped):
        return {**row, "error": item.reason}
    if item.image_size is not None and item.grid is not None:
        height, width = item.image_size
        row |= {"width": width, "height": height, "grid": f"{item.grid[0]}x{item.grid[1]}"}
    if sample.modality == "document":
        heights, widths = zip(*item.image_sizes, strict=True)
        row |= {"image_widths": widths, "image_heights": heights, "image_grids": [f"{rows}x{cols}" for rows, cols in item.grids]}
    if item.marks is not None:
        (first, last), question = zip(*item.marks.turns, strict=True), item.marks.question
        row |= {"turn_first": first, "turn_last": last, "answer_first": item.marks.answer}
        row |= {"question_last": None if question is None else last[question]}
    return {**row, "n_image_tokens": item.n_image_tokens, "n_text_tokens": item.n_text_tokens}
