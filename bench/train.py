"""What reading a store costs training: `python -m bench.train`.

The same steps of a TopK SAE on rows from parquet (shuffled, mixed, scaled, both modalities) and on a tensor in memory; one
worker and two with half of the latents each; and the memory of a process that streams a small store and one eight times as large.
Files lie in the page cache for all.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import spawn

from bench.timing import interleave, report
from linrep.places import place
from linrep.sae.config import SaeDesign, TopK
from linrep.sae.train import Rows, Trainer
from linrep.store.groups import Keep, row_groups
from linrep.store.layout import MODALITIES, Modality
from linrep.store.mixture import Mixture, Proportion, Source
from linrep.store.selection import Selection
from linrep.store.statistics import Sums
from linrep.store.write import samples_table, vector_column, writing_chunk
from linrep.workers import ALONE, Group, Workers
from schemas import vectors


def write(folder: Path, files: int, rows: int, width: int) -> None:
    """A store of one layer: some files of image rows and as many of text rows."""
    schema, draw = vectors(width, "float16"), np.random.default_rng(0)
    for chunk in range(files):
        with writing_chunk(place(folder), chunk, schema) as writer:
            for modality in MODALITIES:
                x = draw.standard_normal((rows, width), np.float32).astype(np.float16)
                columns = {
                    "sample_id": pa.array([f"{modality}/{chunk}-{i // 64}" for i in range(rows)]),
                    "is_special": pa.array(np.zeros(rows, bool)),
                    "norm": pa.array(np.full(rows, width**0.5, np.float32)),
                    "split": pa.array(["train"] * rows),
                    "vector": vector_column(x),
                }
                table = pa.Table.from_arrays([columns.get(f.name, pa.nulls(rows, f.type)) for f in schema], schema=schema)
                writer.vectors("tokens", 0, modality, table)
            writer.commit(samples_table([]), {(0, "image"): Sums.zero(width)}, rows, rows, (), 0.0, "float32")


def mixture(folder: Path, batch: int, width: int, shuffle_rows: int, workers: Workers = ALONE) -> Mixture:
    """Half image, half text, as training reads it."""
    from linrep.store.commit import read_commits

    commits = read_commits(place(folder)).values()
    sources: dict[Modality, Source] = {}
    for modality in MODALITIES:
        files = tuple(f for c in commits for f in c.files if f.path.startswith(f"tokens/layer=0/modality={modality}/"))
        selection = Selection(place(folder), files, width, "float16", None)
        groups = row_groups(selection)
        keep = Keep("train", special=False, limit=10 * width**0.5)
        sources[modality] = Source(selection, groups, keep, width**0.5, sum(group.rows for group in groups), True)
    return Mixture(sources, Proportion(batch // 2, batch - batch // 2, 1.0, 1.0), 0, workers, shuffle_rows)


def trainer(args: argparse.Namespace, workers: Workers = ALONE) -> Trainer:
    """An SAE about to take its first step."""
    config = SaeDesign(activation=TopK(k=args.k), expansion=args.expansion)
    return Trainer.begin(config, torch.randn(256, args.width), 10**9, workers=workers)


def from_store(args: argparse.Namespace, source: Mixture, one: Trainer, steps: int) -> tuple[float, float]:
    """Rows and seconds of some steps."""
    start = time.perf_counter()
    for _ in range(steps):
        x, is_text = source.next_batch()
        one.take(Rows(x, is_text))
    return steps * args.batch, time.perf_counter() - start


def from_memory(args: argparse.Namespace, x: torch.Tensor, one: Trainer, steps: int) -> tuple[float, float]:
    """The same, on slices of a float32 tensor."""
    is_text = torch.arange(args.batch) >= args.batch // 2
    start = time.perf_counter()
    for i in range(steps):
        first = i * args.batch % (len(x) - args.batch + 1)
        one.take(Rows(x[first : first + args.batch], is_text))
    return steps * args.batch, time.perf_counter() - start


def on_cpu(run: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """The same work over the CPU seconds of all threads of this process."""
    start = time.process_time()
    rows, _ = run()
    return rows, time.process_time() - start


def worker(rank: int, world: int, args: argparse.Namespace, folder: str, seconds: "mp.SimpleQueue[float]") -> None:
    """One of the processes that have some of the latents, on one thread."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{world}", rank=rank, world_size=world)
    workers = Group() if world > 1 else ALONE
    source = mixture(Path(folder), args.batch, args.width, args.shuffle_rows, workers)
    one = trainer(args, workers)
    from_store(args, source, one, 3)
    if world > 1:
        dist.barrier()
    took = from_store(args, source, one, args.steps)[1]
    source.close()
    if rank == 0:
        seconds.put(took)
    if world > 1:
        dist.destroy_process_group()


def workers(args: argparse.Namespace, folder: Path, world: int) -> tuple[float, float]:
    """Rows and seconds of one run of some processes, their start not counted."""
    (folder / f"meet-{world}").unlink(missing_ok=True)
    queue = mp.get_context("spawn").SimpleQueue()
    spawn(worker, (world, args, str(folder), queue), nprocs=world)
    return args.steps * args.batch, queue.get()


def peak(args: argparse.Namespace, files: int) -> float:
    """Megabytes that a process holds at most while it streams a store of `files` files twice, above what it holds before."""
    words = [
        sys.executable,
        "-m",
        "bench.train",
        "--stream-files",
        str(files),
        "--width",
        str(args.width),
        "--rows",
        str(args.rows),
    ]
    done = subprocess.run([*words, "--shuffle-rows", str(args.shuffle_rows)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def stream(args: argparse.Namespace) -> None:
    """Stream a store of its own and print the growth of the peak in megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        # Written elsewhere: the writer's memory is not the reader's.
        mp.get_context("spawn").Process(target=write, args=(Path(folder), args.stream_files, args.rows, args.width)).start()
        for child in mp.active_children():
            child.join()
        source = mixture(Path(folder), 1024, args.width, args.shuffle_rows)
        before = most = own_memory()
        for _ in range(2 * 2 * args.stream_files * args.rows // 1024):
            source.next_batch()
            most = max(most, own_memory())
        source.close()
        print(most - before)


def own_memory() -> float:
    """Megabytes of this process that are no file's: pages of the store in the page cache are the system's to drop."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--expansion", type=float, default=8)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=4096, help="of each modality in a file")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--shuffle-rows", type=int, default=16384)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stream-files", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stream_files:
        stream(args)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, args.files, args.rows, args.width)
        source = mixture(folder, args.batch, args.width, args.shuffle_rows)
        x = torch.cat([source.next_batch()[0] for _ in range(8)])
        one = trainer(args)
        shape = f"d {args.width}, {args.expansion:g}x, k {args.k}, batch {args.batch}, {torch.get_num_threads()} threads"
        rates = interleave(
            {
                "tensor in memory": lambda: from_memory(args, x, one, args.steps),
                "store": lambda: from_store(args, source, one, args.steps),
            },
            args.rounds,
            "rows",
        )
        report(f"steps from the store ({shape})", rates, [("store", "tensor in memory", 0.95)])
        # Work of all threads, the reading one too: what other programs do on the machine changes this less.
        rates = interleave(
            {
                "tensor in memory, CPU time": lambda: on_cpu(lambda: from_memory(args, x, one, args.steps)),
                "store, CPU time": lambda: on_cpu(lambda: from_store(args, source, one, args.steps)),
            },
            args.rounds,
            "rows",
        )
        report(f"work of steps from the store ({shape})", rates, [("store, CPU time", "tensor in memory, CPU time", 0.95)])
        source.close()
        rates = interleave(
            {f"{n} worker{'s' * (n > 1)}": lambda n=n: workers(args, folder, n) for n in (1, 2)}, max(args.rounds // 2, 1), "rows"
        )
        report("two workers of one thread each, with half of the latents each", rates, [("2 workers", "1 worker", None)])
    small, large = peak(args, args.files), peak(args, 8 * args.files)
    size = 2 * args.rows * args.width * 2 / 2**20
    print(f"\nmemory of a reader above its start, {args.shuffle_rows:,} rows of each modality mixed at once")
    print(f"  store of {args.files * size:,.0f} MB: {small:,.0f} MB; of {8 * args.files * size:,.0f} MB: {large:,.0f} MB")
    print(json.dumps({"title": "memory of a reader", "small_mb": small, "large_mb": large, "ratio": large / small}))


if __name__ == "__main__":
    main()
