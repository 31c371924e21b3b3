"""One chunk from samples to commit."""

import time
from collections.abc import Sequence
from dataclasses import replace

from linrep.corpora import Corpora
from linrep.corpora.read import read
from linrep.errors import CorpusError
from linrep.kind import UnitCommit
from linrep.sample import Sample, Skipped
from linrep.steer.artefact import STEERING, TASKS
from linrep.steer.job import Item, SteerChunk, SteerJob
from linrep.steer.steerer import Produced, Steerer
from linrep.store.tables import table_of


def fetch(item: Item, corpora: Corpora) -> Sample | Skipped:
    """An item's sample, with the class that the plan gives it and the text that goes with it.

    Raises:
        CorpusError: The corpus gives another sample than the harvest found there.
    """
    found = next(iter(read(item.chunk, corpora)))
    own = found.sample.id if isinstance(found, Skipped) else found.id
    if item.text is None and own != item.sample_id:
        raise CorpusError(f"corpora.{item.chunk.corpus} gives {own} where the harvest found {item.sample_id}: it changed since")
    if isinstance(found, Skipped):
        return found
    if item.text is None:
        return found if item.class_name is None else replace(found, class_name=item.class_name)
    text = next(iter(read(item.text.chunk, corpora)))
    if isinstance(text, Skipped):
        return replace(text, sample=replace(text.sample, id=item.sample_id))
    return replace(found, id=item.sample_id, modality="pair", text=text.text)


def run_chunk(steerer: Steerer, chunk: SteerChunk, samples: Sequence[Sample | Skipped], classes: Sequence[str]) -> Produced:
    """What a chunk gives, in memory."""
    match chunk.task:
        case "answers":
            return steerer.answers(samples, chunk.source, chunk.target)
        case "damage":
            return steerer.damage(samples, chunk.source, chunk.target)
        case "lens":
            return steerer.lens(samples, classes)


def steer_chunk(steerer: Steerer, chunk: SteerChunk, job: SteerJob) -> UnitCommit:
    """Run a chunk, write its tables and commit it."""
    start = time.monotonic()
    produced = run_chunk(steerer, chunk, [fetch(item, job.corpora) for item in chunk.items], job.classes)
    tables = {name: table_of(produced.tables.get(name, []), STEERING.tables[name]) for name in TASKS[chunk.task]}
    cost = {"n_done": produced.n_done, "failed": produced.failed, "precision": steerer.precision}
    return job.artefact.write(chunk.unit, tables, time.monotonic() - start, produced.n_tokens, cost)
