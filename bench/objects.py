"""What many chunks cost on a disk and in an object store: `python -m bench.objects`.

Stores of several sizes are opened, their samples read, and a harvest of which 90% are done is resumed, from packs and chunk by
chunk. A chunk of many layers is published with files in turn in three requests each, and at the same time in one. Row groups are
streamed one after another, eight at a time, and by several workers that pass them on. The object store lets each request wait.
Contenders take turns. What is printed is the median with the lowest and the highest of the rounds, and the requests.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import fs

from bench.command import end_with
from bench.slow_s3 import LATENCY, SlowS3
from bench.timing import rests_on
from bench.workers_in_threads import together
from linrep.places import Place, place
from linrep.store import stream
from linrep.store.commit import write_commit
from linrep.store.groups import Keep, row_groups
from linrep.store.layout import PACKS, samples_file, statistics_file
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.packing import EVERY, pack
from linrep.store.read import read_store
from linrep.store.statistics import Sums
from linrep.store.write import samples_table, vector_column, writing_chunk
from linrep.workers import ALONE, Workers
from schemas import vectors

D, GROUP_ROWS, SAMPLES = 256, 2048, 512


@dataclass(frozen=True)
class Contender:
    """One way to do something.

    Attributes:
        what: In words.
        size: Of what.
        how: Which way.
        where: disk or object store.
        run: Does it; takes a folder that nobody has used.
    """

    what: str
    size: str
    how: str
    where: str
    run: Callable[[str], object]


def manifest(n_chunks: int, width: int, complete: bool = True) -> Manifest:
    """The head of a store with one layer of tokens."""
    return Manifest(
        name="objects", digest="0" * 10, model={}, layers=(0,), views=("tokens",), dtype="float16", width=width, corpora={},
        harvest={}, n_chunks=n_chunks, chunk_size=1, status="complete" if complete else "running",
    )  # fmt: skip


def rows(n: int, width: int, seed: int = 0) -> pa.Table:
    """Rows of vectors: two of three are of the split train, every seventh is a special token."""
    schema, x = vectors(width, "float16"), np.random.default_rng(seed).standard_normal((n, width)).astype(np.float16)
    norm = pa.array(np.linalg.norm(x.astype(np.float32), axis=1))
    columns = {"sample_id": pa.array([f"images/{i}" for i in range(n)]), "norm": norm, "vector": vector_column(x)}
    columns |= {"split": pa.array(["train", "train", "val"] * n)[:n], "is_special": pa.array(np.arange(n) % 7 == 3)}
    return pa.Table.from_arrays([columns.get(f.name, pa.nulls(n, f.type)) for f in schema], schema=schema)


def write_copies(folder: Path, n: int, n_samples: int = 4, done: int | None = None) -> None:
    """A store of many chunks that differ in nothing but their numbers, packed as a driver packs it.

    Args:
        folder: Where to.
        n: Chunks.
        n_samples: Samples of each.
        done: Chunks that are committed; None for all.
    """
    here, done = place(folder), n if done is None else done
    sample = {"corpus": "images", "modality": "image", "uri": "n01/1.jpg", "split": "train", "n_image_tokens": 1}
    samples = samples_table([{"sample_id": f"images/n01/{i}.jpg", **sample, "n_text_tokens": i} for i in range(n_samples)])
    with writing_chunk(here, 0, vectors(8, "float16")) as writer:
        commit = writer.commit(samples, {(0, "image"): Sums.zero(8)}, n_samples, n_samples, (), 0.0, "float32")
    for chunk in range(1, done):
        files = tuple(replace(file, path=file.path.replace("000000", f"{chunk:06d}")) for file in commit.files)
        for name in (samples_file, statistics_file):
            shutil.copyfile(folder / name(0), folder / name(chunk))
        write_commit(here, replace(commit, chunk=chunk, files=files))
    write_manifest(here, manifest(n, 8, complete=done == n))
    pack(here, range(done if done == n else done // EVERY * EVERY))


def reading(temporary: Path, slow: SlowS3, sizes: Sequence[int]) -> list[Contender]:
    """Opening, samples and resuming, from packs and chunk by chunk."""
    found = []
    for n in sizes:
        for what, done in (("open", n), ("resume, 90% done", n * 9 // 10)):
            folder = temporary / f"{n}-{done}"
            write_copies(folder, n, SAMPLES, done)
            single = Path(shutil.copytree(folder, f"{folder}-single", ignore=shutil.ignore_patterns(PACKS)))
            for how, own in (("packs", folder), ("chunk by chunk", single)):
                there = slow.folder(own.name)
                slow.fill(own, there)
                for where, here in (("disk", place(own)), ("object store", there)):
                    found.append(Contender(what, f"{n:,} chunks", how, where, lambda _, here=here: read_store(here)))
                    if done == n:
                        both = lambda _, here=here: read_store(here).samples()  # noqa: E731
                        found.append(Contender("open + samples", f"{n:,} chunks", how, where, both))
    return found


def publishing(temporary: Path, slow: SlowS3, layers: int) -> list[Contender]:
    """A chunk with two views and two modalities of some layers."""
    table, schema = rows(8, D), vectors(D, "float16")

    def publish(here: Place) -> None:
        with writing_chunk(here, 0, schema) as writer:
            for layer in range(layers):
                for view in ("pooled", "tokens"):
                    writer.vectors(view, layer, "image", table)
                    writer.vectors(view, layer, "text", table)
            writer.commit(samples_table([]), {}, 1, 1, (), 0.0, "float32")

    def in_turn(name: str) -> None:
        here = slow.folder(name)
        plain, path = fs.FileSystem.from_uri(here.uri)  # without the option that makes a small file one request
        publish(_InTurn(plain, path, local=False, key=here.key, options=here.options))

    size = f"{layers} layers"
    return [
        Contender("publish", size, "at the same time", "disk", lambda name: publish(place(temporary / name))),
        Contender("publish", size, "at the same time", "object store", lambda name: publish(slow.folder(name))),
        Contender("publish", size, "in turn, 3 requests a file", "object store", in_turn),
    ]


class _InTurn(Place):
    """A place where files are written one after another."""

    at_once = 1  # type: ignore[assignment]


def feeding(temporary: Path, slow: SlowS3, files: int) -> list[Contender]:
    """A pass over the row groups of some files."""
    folder = temporary / "feed"
    for chunk in range(files):
        with writing_chunk(place(folder), chunk, vectors(D, "float16")) as writer:
            writer.vectors("tokens", 0, "image", rows(GROUP_ROWS, D, chunk))
            writer.commit(samples_table([]), {(0, "image"): Sums.zero(D)}, 1, 1, (), 0.0, "float32")
    write_manifest(place(folder), manifest(files, D, complete=False))
    there = slow.folder("feed")
    slow.fill(folder, there)

    # Planned once, as a driver plans it for all workers.
    selections = {here.path: read_store(here).select("tokens", 0, "image", high_norm=None) for here in (place(folder), there)}
    groups = {path: row_groups(selection) for path, selection in selections.items()}

    def take(here: Place, at_once: int, workers: Workers = ALONE) -> None:
        before, stream.GROUPS_AT_ONCE = stream.GROUPS_AT_ONCE, at_once
        one = stream.Stream(selections[here.path], groups[here.path], Keep(special=True), 0, workers, 8 * GROUP_ROWS)
        try:
            for _ in range(files):
                one.take(GROUP_ROWS)
        finally:
            one.close()
            stream.GROUPS_AT_ONCE = before

    def by_workers(n: int) -> None:
        together(n, lambda worker: take(there, stream.GROUPS_AT_ONCE, worker))

    size = f"{files} groups of {GROUP_ROWS:,} rows"
    return [
        *(
            Contender("feed", size, f"{n} at once", where, lambda _, here=here, n=n: take(here, n))
            for where, here, n in (("disk", place(folder), 1), ("object store", there, 8), ("object store", there, 1))
        ),
        *(
            Contender("feed", size, f"8 at once, {n} workers that all get all rows", "object store", lambda _, n=n: by_workers(n))
            for n in (2, 4)
        ),
    ]


def run(asked: argparse.Namespace) -> None:
    """Measure and print."""
    slow = SlowS3()
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        contenders = [
            *reading(temporary, slow, asked.chunks), *publishing(temporary, slow, asked.layers),
            *feeding(temporary, slow, asked.files),
        ]  # fmt: skip
        seconds: dict[Contender, list[float]] = {one: [] for one in contenders}
        requests: dict[Contender, int] = {}
        for number in range(asked.rounds):
            for i, one in enumerate(contenders):
                with slow.counting(asked.latency) as asked_for:
                    start = time.perf_counter()
                    one.run(f"{number}-{i}")
                    seconds[one].append(time.perf_counter() - start)
                requests[one] = len(asked_for)
    slow.stop()
    print(f"\n{rests_on(asked.rounds)}; {1000 * asked.latency:g} ms a request\n")
    print("| what | of | how | where | seconds | requests |\n|---|---|---|---|---|---|")
    for one, took in seconds.items():
        spread = f"{statistics.median(took):.2f} [{min(took):.2f}, {max(took):.2f}]"
        asked_for = f"{requests[one]:,}" if one.where != "disk" else ""
        print(f"| {one.what} | {one.size} | {one.how} | {one.where} | {spread} | {asked_for} |")


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; 0 done, 2 something that the message says how to mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="*", default=[200, 2000], help="Chunks of the stores that are read")
    parser.add_argument("--layers", type=int, default=33, help="Layers of the chunk that is published: four files each")
    parser.add_argument("--files", type=int, default=32, help="Files that are streamed, of one row group each")
    parser.add_argument("--latency", type=float, default=LATENCY, help="Seconds that each request waits")
    parser.add_argument("--rounds", type=int, default=3)
    return end_with(run, parser, words)


if __name__ == "__main__":
    sys.exit(main())
