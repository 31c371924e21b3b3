"""What a harvest's data path holds, and what its device waits for, at full size: `python -m bench.feed`.

Images of five tiles of 336 pixels go from JPEG files to an actor whose device is simulated: it sleeps in proportion to the
positions of a micro-batch, and gives zeros for every layer. All else is the harvest on Ray, from reading to writing. Beside the
time that the device waits it reports the largest object in the store, the store's most bytes in use, bytes spilled, and the most
memory of its own (USS) of a reader and of the actor over what it had with its model loaded.

`--chunk-sizes` are run in turn, round after round. `--against FOLDER` runs each also with the package of another checkout.
`--padding` packs lengths alone: the share of padding with the window, against chunks packed as a whole.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from PIL import Image

import linrep.cluster.harvest as on_ray
import linrep.harvest.harvester as harvester
from linrep.cluster.session import cluster
from linrep.corpora import Corpora, ImageFolder
from linrep.harvest.config import HarvestConfig, Pool
from linrep.harvest.extend import Extension
from linrep.harvest.plan import plan_harvest
from linrep.places import place
from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.random import write_random_vlm

SAMPLED_S = 0.1
"""Seconds between two looks at the processes."""
LOG = "BENCH_FEED"
"""Names the folder in which the simulated device writes down what it did."""
USUAL_SIZES = {(500, 375): 0.40, (375, 500): 0.12, (500, 333): 0.10, (333, 500): 0.04, (500, 500): 0.03}
"""Width and height of images, roughly as often as in ImageNet; the rest has sides drawn from 200 to 1,024."""


def sizes_of(n: int) -> list[tuple[int, int]]:
    """Width and height of some images, of mixed sizes."""
    draw = np.random.default_rng(0)
    usual, often = list(USUAL_SIZES), np.cumsum([*USUAL_SIZES.values()])
    found = []
    for u, w, h in zip(draw.random(n), draw.integers(200, 1025, n), draw.integers(200, 1025, n), strict=True):
        at = int(np.searchsorted(often, u))
        found.append(usual[at] if at < len(usual) else (int(w), int(h)))
    return found


def write_images(folder: Path, n: int) -> None:
    """Smooth noise that fills five tiles, and codes about as photographs do."""
    draw = np.random.default_rng(0)
    for i in range(n):
        small = Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8))
        path = folder / "n0" / f"{i:05d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((500, 460 + i % 40), Image.Resampling.BICUBIC).save(path, "JPEG", quality=90)


class SimulatedDevice(on_ray.ChunkHarvester):
    """The actor of the harvest, whose model sleeps."""

    def __init__(self, *args: Any) -> None:
        folder, rate = Path(os.environ[LOG]), float(os.environ[LOG + "_RATE"])
        wanted: dict[str, Any] = {}

        @contextlib.contextmanager
        def record_sites(vlm: Any, sites: Any, take: Any) -> Iterator[None]:
            wanted.update(sites=list(sites), take=take)
            yield

        def forward(vlm: Any, batch: Any) -> None:
            begun = time.time()
            b, t = batch.input_ids.shape
            time.sleep(b * t / rate)
            with (folder / "turns").open("a") as log:
                log.write(f"{begun} {time.time()} {sum(batch.lengths)} {b * t}\n")
            for site in wanted["sites"]:
                wanted["take"](site, torch.zeros(b, t, vlm.card.width))

        harvester.record_sites, harvester.forward = record_sites, forward  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__(*args)
        own = psutil.Process()
        (folder / "actor").write_text(f"{own.pid} {own.memory_full_info().uss} {time.time()}")


class Watch(threading.Thread):
    """Looks at Ray's processes and its object store while a harvest runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.uss: dict[int, int] = {}
        self.object, self.used, self.spilled, self.over = 0, 0, 0, threading.Event()

    def run(self) -> None:
        """Until `over` is set."""
        from ray._private.internal_api import node_stats

        node = ray.nodes()[0]
        while not self.over.wait(SAMPLED_S):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.name().startswith("ray::"):
                        self.uss[process.pid] = max(self.uss.get(process.pid, 0), process.memory_full_info().uss)
            found = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"])
            self.used = max(self.used, found.store_stats.object_store_bytes_used)
            self.spilled = max(self.spilled, found.store_stats.spilled_bytes_total)
            sizes = [ref.object_size for worker in found.core_workers_stats for ref in worker.object_refs]
            self.object = max([self.object, *sizes])


def one(args: argparse.Namespace) -> dict[str, float]:
    """A harvest on the simulated device."""
    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary) / "log"
        log.mkdir()
        os.environ |= {LOG: str(log), LOG + "_RATE": str(args.rate)}
        model = ModelConfig(path=str(args.folder / "model"))
        corpora = Corpora(images=ImageFolder(path=str(args.folder / "images")))
        config = HarvestConfig(layers=(1,), chunk_size=args.chunk_size, tokens_per_sample=8)
        plan = plan_harvest("feed", corpora, model, config, place(Path(temporary) / "ws"))
        on_ray.ChunkHarvester = SimulatedDevice  # pyright: ignore[reportAttributeAccessIssue]
        with cluster():
            watch = Watch()
            watch.start()
            pool = Pool(tokens_per_batch=8192, threads=1, gpus=0, actors=(1, 1))
            for commit in on_ray.harvest_chunks(plan.job, Extension().works(plan.manifest, plan.chunks, {}), pool):
                assert not isinstance(commit, on_ray.LostChunk)
            watch.over.set()
            watch.join()
        pid, loaded, ready = (log / "actor").read_text().split()
        turns = np.array([line.split() for line in (log / "turns").read_text().splitlines()], float)
    actor = watch.uss.pop(int(pid))
    busy, first, last = float((turns[:, 1] - turns[:, 0]).sum()), turns[0, 0], turns[-1, 1]
    return {
        "samples": plan.index.n_samples, "tokens": turns[:, 2].sum(), "batches": len(turns),
        "padding": 1 - turns[:, 2].sum() / turns[:, 3].sum(), "busy s": busy,
        "s to the first batch": first - float(ready), "waits": 1 - busy / (last - first),
        "waits, first batch counted": 1 - busy / (last - float(ready)),
        "largest object MB": watch.object / 1e6, "store in use MB": watch.used / 1e6, "spilled MB": watch.spilled / 1e6,
        "reader MB": max(watch.uss.values()) / 1e6, "actor MB": (actor - float(loaded)) / 1e6,
    }  # fmt: skip


def padding(model: ModelConfig, n: int = 2048, chunk: int = 512) -> None:
    """The share of padding, and micro-batches, of images of mixed sizes."""
    from linrep.harvest.batches import WINDOW_BYTES, micro_batches
    from linrep.vlm.families import family_of

    class Sample:  # what packing asks of one
        def __init__(self, size: tuple[int, int]) -> None:
            layout = family_of(card.family).layout((size[1], size[0]), card.vision)
            self.n, self.n_bytes = layout.n_tokens + 8, layout.tiles * 3 * card.vision.tile_size**2

        def __len__(self) -> int:
            return self.n

    card = describe(model)
    samples = [Sample(size) for size in sizes_of(n)]
    for budget in (8192, 16384, 32768):
        for name, window in (("whole chunks", 2**62), ("window", WINDOW_BYTES)):
            chunks = [samples[i : i + chunk] for i in range(0, n, chunk)]
            batches = [[*map(len, b)] for own in chunks for b in micro_batches(own, budget, window)]
            share = 1 - sum(map(sum, batches)) / sum(max(b) * len(b) for b in batches)
            print(f"{budget:>6} positions, {name:<12} {share:.2%} padding, {len(batches)} micro-batches")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--chunk-sizes", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--rate", type=float, default=25_000, help="Tokens a second of the simulated device.")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path, help="Another checkout of this repository.")
    parser.add_argument("--padding", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--chunk-size", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.chunk_size is not None:
        print(json.dumps({name: float(value) for name, value in one(args).items()}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_random_vlm(folder / "model", image_size=336, patch_size=14, n_layers=2, vision_layers=2)
        if args.padding:
            padding(ModelConfig(path=str(folder / "model")))
            return
        write_images(folder / "images", args.images)
        here = Path(__file__).parents[1]
        for _ in range(args.rounds):
            for chunk_size in args.chunk_sizes:
                for root in filter(None, (args.against, here)):
                    words = ["--folder", folder, "--chunk-size", chunk_size, "--rate", args.rate]
                    env = os.environ | {"PYTHONPATH": f"{root / 'platform'}{os.pathsep}{root}"}
                    done = subprocess.run(
                        [sys.executable, __file__, *map(str, words)],
                        env=env,
                        cwd=root,
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    assert done.returncode == 0, done.stderr
                    found = json.loads(done.stdout.splitlines()[-1])
                    which = "" if root == here else f"  (package of {root})"
                    print(
                        f"\nchunks of {chunk_size}{which}\n" + "\n".join(f"  {k:<28}{v:>12,.3f}" for k, v in found.items()),
                        flush=True,
                    )


if __name__ == "__main__":
    main()
