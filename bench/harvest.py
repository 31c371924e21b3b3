"""What the harvest costs over the model alone: `python -m bench.harvest`.

The floor is a bare loop that runs the same truncated model over the same micro-batches, ready in memory. Against it stands
the whole harvest: JPEG files read, decoded and cut, packed and normalised, three views of every layer recorded, statistics
summed, parquet written and committed. Without Ray; and as the job runs it, on Ray Data, from the start of its first chunk
to the last commit: starting a cluster is paid once, not per token. Weights are random: nothing here depends on what they say.

It ends in `--minutes` and one more, whatever the load. On a slow machine it does fewer rounds and reports how many.
"""

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.timing import Schedule, TimeUp, cut_off, interleave, report, timed
from linrep.cluster.harvest import harvest_chunks
from linrep.cluster.session import cluster
from linrep.corpora import Corpora, ImageFolder
from linrep.harvest.chunk import harvest_chunk, prepare_chunk
from linrep.harvest.config import HarvestConfig, Pool
from linrep.harvest.extend import Extension
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import Plan, plan_harvest
from linrep.places import place
from linrep.store.commit import Commit
from linrep.vlm.batch import Batch, collate, pack
from linrep.vlm.config import ModelConfig
from linrep.vlm.hooks import forward
from linrep.vlm.load import VLM, load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from linrep.vlm.random import write_random_vlm

SHARE = 0.6
"""Of the time, for the first comparison; the rest is for the second."""
GRACE_S = 60
"""Seconds after the deadline at which whatever still runs is cut off."""


def write_images(folder: Path, n: int) -> Path:
    """Images of smooth noise, which JPEG codes about as well as photographs."""
    draw = np.random.default_rng(0)
    for i in range(n):
        small = Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8))
        buffer = io.BytesIO()
        small.resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        path = folder / "n0" / f"{i:04d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    return folder


def batches_of(vlm: VLM, prepared: list[Prepared], tokens_per_batch: int) -> list[Batch]:
    """The micro-batches that the harvest would run, ready in memory."""
    packed = pack([len(p) for p in prepared], tokens_per_batch)
    return [collate([prepared[i] for i in indices], vlm) for indices in packed]


def loop(vlm: VLM, batches: list[Batch]) -> None:
    """The floor."""
    for batch in batches:
        forward(vlm, batch)


def everything(vlm: VLM, batches: list[Batch]) -> None:
    """What people write first: the whole model, every hidden state kept."""
    with torch.inference_mode():
        for batch in batches:
            vlm.model(**batch.inputs(), output_hidden_states=True, use_cache=False)


def harvest_all(harvester: Harvester, plan: Plan, preparer: Preparer, store: Path) -> None:
    """The whole harvest in this process, without Ray."""
    for chunk in plan.chunks:
        harvest_chunk(harvester, prepare_chunk(chunk, plan.job.corpora, preparer), place(store), chunk.number)


def ray_round(plan: Plan, pool: Pool) -> Callable[[], tuple[float, float]]:
    """Tokens and seconds of a harvest on Ray, from the moment that its model actor took up the first chunk."""

    def measure() -> tuple[float, float]:
        shutil.rmtree(plan.place.path, ignore_errors=True)
        started, tokens = [], 0
        for commit in harvest_chunks(plan.job, Extension().works(plan.manifest, plan.chunks, {}), pool):
            assert isinstance(commit, Commit)
            started.append(time.perf_counter() - commit.seconds)
            tokens += commit.n_tokens
        return tokens, time.perf_counter() - min(started)

    return measure


def compare(args: argparse.Namespace, folder: Path, start: float) -> None:
    """Both comparisons, one after the other.

    Args:
        args: Of the command line.
        folder: For the model, the images and the stores.
        start: When the benchmark started, on `time.monotonic`'s clock.
    """
    model = ModelConfig(
        path=str(
            write_random_vlm(
                folder / "model", width=args.width, n_layers=args.blocks, n_heads=args.width // 64, mlp=4 * args.width,
                image_size=224, patch_size=14, vision_width=128, vision_layers=4,
            )
        )
    )  # fmt: skip
    corpora = Corpora(images=ImageFolder(path=str(write_images(folder / "images", args.images))))
    config = HarvestConfig(chunk_size=args.chunk_size)
    pool = Pool(tokens_per_batch=args.tokens_per_batch)
    plan = plan_harvest("bench", corpora, model, config, place(folder / "ray"))
    vlm = load(model, args.blocks)
    preparer = Preparer.from_path(model)
    samples = [prepare_chunk(chunk, corpora, preparer) for chunk in plan.chunks]
    chunks = [[s for s in chunk if isinstance(s, Prepared)] for chunk in samples]
    ready = [batch for chunk in chunks for batch in batches_of(vlm, chunk, args.tokens_per_batch)]
    n_tokens = sum(len(p) for chunk in chunks for p in chunk)
    harvester = Harvester(vlm, config, plan.job.layers, args.tokens_per_batch)

    end = start + 60 * args.minutes
    first = Schedule(start + 60 * args.minutes * SHARE)
    rates = interleave(
        {
            "bare loop": lambda: timed(n_tokens, lambda: loop(vlm, ready)),
            "harvest": lambda: timed(n_tokens, lambda: harvest_all(harvester, plan, preparer, folder / "plain")),
            "harvest on Ray": ray_round(plan, pool),
        },
        args.rounds,
        "tokens",
        first,
    )
    shape = f"d {args.width}, {args.blocks} blocks, {args.images} images, {n_tokens:,} tokens, {torch.get_num_threads()} threads"
    report(f"harvest, every layer ({shape})", rates, [("harvest on Ray", "bare loop", 0.9), ("harvest", "bare loop", None)])

    if time.monotonic() >= end:
        raise TimeUp
    half, whole = load(model, args.blocks // 2), load(model, None)
    middle = HarvestConfig(layers=(args.blocks // 2,), chunk_size=args.chunk_size)
    at_half = Harvester(half, middle, middle.layers, args.tokens_per_batch)  # pyright: ignore[reportArgumentType]

    rates = interleave(
        {
            "full forward with hidden states": lambda: timed(n_tokens, lambda: everything(whole, ready)),
            "harvest at layer n/2": lambda: timed(n_tokens, lambda: harvest_all(at_half, plan, preparer, folder / "half")),
        },
        args.rounds,
        "tokens",
        # The whole model takes as long as the truncated one at least.
        Schedule(end, {name: seconds for name, seconds in first.longest.items() if name == "bare loop"}),
    )
    compared = [("harvest at layer n/2", "full forward with hidden states", 1.8)]
    report(f"harvest, layer {args.blocks // 2} of {args.blocks} ({args.images} images, {n_tokens:,} tokens)", rates, compared)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--chunk-size", type=int, default=6)
    parser.add_argument("--tokens-per-batch", type=int, default=2400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8, help="Nothing starts that would end later than this.")
    args = parser.parse_args()
    start = time.monotonic()
    try:
        with cut_off(60 * args.minutes + GRACE_S), tempfile.TemporaryDirectory() as temporary, cluster():
            compare(args, Path(temporary), start)
    except TimeUp:
        print("the time is up before the next comparison was ready: give it more --minutes, less work or a quieter machine")


if __name__ == "__main__":
    main()
