"""One chunk from samples to commit, and the tables read back."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from linrep.corpora import Corpora
from linrep.corpora.read import read
from linrep.errors import CorpusError
from linrep.places import Place
from linrep.sample import Sample, Skipped
from linrep.steer.plan import Item, SteerChunk, SteerJob
from linrep.steer.steerer import Produced, Steerer
from linrep.store.commit import Commit, repair, write_commit
from linrep.store.tables import read_table, table_of, write_table
from schemas.steering import ANSWERS, CELLS, DAMAGE, LENS

SCHEMAS = {"cells": CELLS, "answers": ANSWERS, "damage": DAMAGE, "lens": LENS}


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


def steer_chunk(steerer: Steerer, chunk: SteerChunk, job: SteerJob) -> Commit:
    """Run a chunk, write its tables and commit it."""
    start = time.monotonic()
    produced = run_chunk(steerer, chunk, [fetch(item, job.corpora) for item in chunk.items], job.classes)
    files = []
    for name, rows in sorted(produced.tables.items()):
        path = f"{name}/part-{chunk.number:06d}.parquet"
        files.append(write_table(job.place, path, table_of(rows, SCHEMAS[name])))
    commit = Commit(
        chunk=chunk.number,
        files=tuple(files),
        n_samples=produced.n_done,
        n_tokens=produced.n_tokens,
        skipped=tuple(produced.failed),
        seconds=round(time.monotonic() - start, 3),
        precision=steerer.precision,
    )
    write_commit(job.place, commit)
    return commit


def read_tables(place: Place, commits: Mapping[int, Commit], name: str) -> pa.Table:
    """All rows of one table, in the order of chunks; what no commit names does not count.

    Args:
        place: The artefact.
        commits: Its commits.
        name: cells, answers, damage or lens.
    """
    files = [file for _, commit in sorted(commits.items()) for file in commit.files if file.path.startswith(f"{name}/")]
    tables = [read_table(place, file.path, None, repair(place, file), file) for file in files]
    return pa.concat_tables(tables) if tables else SCHEMAS[name].empty_table()
