"""One chunk from corpus to commit: read and prepare on any machine, then run and write where the model is."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from linrep.corpora import Corpora
from linrep.corpora.index import Chunk
from linrep.corpora.read import read
from linrep.harvest.harvester import Harvester, Rows
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


def prepare_chunk(chunk: Chunk, corpora: Corpora, preparer: Preparer) -> list[Prepared | Skipped]:
    """Every sample of a chunk, ready for the model or skipped with the reason, in the chunk's order."""
    return [s if isinstance(s, Skipped) else preparer(s) for s in read(chunk, corpora)]


def harvest_chunk(
    harvester: Harvester, samples: Sequence[Prepared | Skipped], place: Place, chunk: int, origins: Sequence[Origin] = ()
) -> Commit:
    """Run a chunk through the model, write its files and commit it.

    Args:
        harvester: Holds the model, and keeps what is to be computed.
        samples: What `prepare_chunk` gave.
        place: The store.
        chunk: Number of the chunk.
        origins: What earlier harvests hold of it, see `linrep.harvest.take`.

    Raises:
        OriginLost: They do not hold it any more, or the samples have changed since.
    """
    start = time.monotonic()
    prepared = [s for s in samples if isinstance(s, Prepared)]
    skipped = tuple((s.sample.id, s.reason) for s in samples if isinstance(s, Skipped))
    with writing_chunk(place, chunk, harvester.schema) as writer:
        table = samples_table([sample_row(s) for s in samples])
        taken = take(writer, origins) if origins else TakenRows(table, {}, ())
        if not table.equals(taken.samples):
            raise OriginLost(f"its samples are not those that {origins[0].harvest} was made of: a corpus has changed")
        sums, n_tokens = _write_all(harvester(prepared), writer)
        seconds = round(time.monotonic() - start, 3)
        sums |= taken.sums
        return writer.commit(table, sums, len(prepared), n_tokens, skipped, seconds, harvester.precision, taken.files)


def _write_all(batches: Iterable[Rows], writer: ChunkWriter) -> tuple[dict[tuple[int, str], Sums], int]:
    """Write micro-batches on a thread of their own while the model works on the next ones."""
    sums: dict[tuple[int, str], Sums] = {}
    n_tokens = 0
    writes: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as thread:
        for rows in batches:
            writes.append(thread.submit(_write, rows, writer))
            sums = merge((sums, rows.sums))
            n_tokens += rows.n_tokens
            while len(writes) > WRITES_AHEAD:
                writes.popleft().result()
        for write in writes:
            write.result()
    return sums, n_tokens


def _write(rows: Rows, writer: ChunkWriter) -> None:
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
