"""What the features of an SAE cost: `python -m bench.features`.

The whole stage (codes written and read back, statistics, top samples, draws, attributes, neighbours, patch maps, tables; not the
words of a model) for a TopK SAE over a store in the page cache, against its encoder's products alone on as many rows: when
a part of the store is encoded, the products of as many rows take their turn, so a machine that drifts drifts for both. And the
peak memory of a process that works through a store, and through one four times as large. Rows are drawn at random: almost every
token of a sample fires other latents, more to keep than real images give. By the processor's time, which others on the machine
do not change.

The size of the target is `--rows 2000000 --rounds 1` (3 GB of temporary files, and more for the codes). What does not depend on
rows (neighbours, tables) weighs more at fewer; `--classes 1000` is an ImageNet's worth of values, in as many more runs of
latents. A value needs ten samples: fewer rows than 640,000 have that many values only with fewer `--tokens` a sample.
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

from bench.timing import Rates, report
from linrep.cluster.features import find_plainly
from linrep.cluster.stage import Step
from linrep.encoder import Latents
from linrep.features.artefact import plan_artefact
from linrep.features.config import FeaturesConfig
from linrep.features.study import plan_study
from linrep.named_sae import NamedSae
from linrep.places import place
from linrep.sae.controls import random_sae
from linrep.store import open as open_store
from linrep.store.layout import MODALITIES
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.statistics import Sums
from linrep.store.write import samples_table, vector_column, writing_chunk
from schemas import vectors

FILE = 8192
"""Rows of a file of the store; a chunk has two files."""
MOST = 1.2
"""Peak memory with four times the rows, as a multiple, at most."""


def write(folder: Path, rows: int, width: int, classes: int, tokens: int) -> None:
    """A complete store of one layer: half of the rows are of images, half of texts."""
    schema, draw = vectors(width, "float16"), np.random.default_rng(0)
    n_chunks = max(1, rows // (2 * FILE))
    for chunk in range(n_chunks):
        with writing_chunk(place(folder), chunk, schema) as writer:
            samples = []
            for modality in MODALITIES:
                names = [f"{modality}/{chunk}-{i:05d}" for i in range(FILE // tokens)]
                for i, name in enumerate(names, chunk * len(names)):
                    label = {"label": i % classes, "class_name": f"class {i % classes}"} if modality == "image" else {}
                    given = {"sample_id": name, "modality": modality, "uri": f"{name}.JPEG", "corpus": "bench", "split": "train"}
                    samples.append({**given, **label, "n_image_tokens": tokens, "n_text_tokens": tokens})
                columns = {
                    "sample_id": pa.array([name for name in names for _ in range(tokens)]),
                    "position": pa.array(np.tile(np.arange(tokens, dtype=np.int32), len(names))),
                    "is_special": pa.array(np.zeros(FILE, bool)),
                    "norm": pa.array(np.full(FILE, width**0.5, np.float32)),
                    "split": pa.array(["train"] * FILE),
                    "vector": vector_column(draw.standard_normal((FILE, width), np.float32).astype(np.float16)),
                }
                table = pa.Table.from_arrays([columns.get(f.name, pa.nulls(FILE, f.type)) for f in schema], schema=schema)
                writer.vectors("tokens", 0, modality, table)
            n = len(samples)
            writer.commit(samples_table(samples), {(0, "image"): Sums.zero(width)}, n, 2 * FILE, (), 0.0, "float32")
    manifest = Manifest(
        name="bench", digest="0123456789", model={}, layers=(0,), views=("tokens",), dtype="float16", width=width, corpora={},
        harvest={}, n_chunks=n_chunks, chunk_size=2 * FILE // tokens, status="complete",
    )  # fmt: skip
    write_manifest(place(folder), manifest)


def features(folder: Path, width: int, n_latents: int, k: int, encoded: Callable[[int], None] = lambda n: None) -> int:
    """The whole stage in this process, without words: there is no model here; gives the number of passes."""
    sae = random_sae(torch.randn(256, width, generator=torch.Generator().manual_seed(0)), n_latents, k)
    own = Latents("bench", sae, sae.decoder)
    config = FeaturesConfig(saes=(NamedSae(path="bench", layer=0),))
    store = open_store(str(folder))
    study = plan_study(store, config, latents=((own, own),))
    with tempfile.TemporaryDirectory() as out:
        plan = plan_artefact(place(out), "bench", study, {})
        units = [unit.name for unit in study.units if not unit.control]
        for event in find_plainly(study, units, plan):
            if isinstance(event, Step):
                encoded(event.amount)
    return len(units)


def products(rows: int, width: int, n_latents: int) -> None:
    """The encoder's products alone, of as many rows in float32, in pieces as the stage takes them."""
    step = min(rows, 1024)
    x, encoder, bias = torch.randn(step, width), torch.randn(n_latents, width), torch.zeros(n_latents)
    out = torch.empty(step, n_latents)
    for _ in range(rows // step):
        torch.addmm(bias, x, encoder.t(), out=out)


def one_round(folder: Path, width: int, n_latents: int, k: int) -> tuple[int, dict[str, float], int]:
    """Rows, seconds of the stage and of the products between its parts, and passes."""
    rows, seconds = 0, 0.0

    def turn(n: int) -> None:
        nonlocal rows, seconds
        start = time.process_time()
        products(n, width, n_latents)
        rows, seconds = rows + n, seconds + time.process_time() - start

    start = time.process_time()
    passes = features(folder, width, n_latents, k, turn)
    return rows, {"features": time.process_time() - start - seconds, "encoder products": seconds}, passes


def peak(rows: int, width: int, n_latents: int, k: int, classes: int, tokens: int) -> float:
    """Peak memory, in MB, of a process that works through a store of `rows` rows."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), rows, width, classes, tokens)
        code = (
            "import resource, sys; from pathlib import Path; from bench.features import features; "
            f"features(Path(sys.argv[1]), {width}, {n_latents}, {k}); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        )
        return float(subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=131072)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--latents", type=int, default=16384)
    parser.add_argument("--active", type=int, default=32)
    parser.add_argument("--classes", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32, help="of a sample, a power of two")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-rows", type=int, default=65536, help="of the smaller store; 0 leaves the memory out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shape = (args.width, args.latents, args.active)
    rates: dict[str, list[float]] = {"features": [], "encoder products": []}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "first", 2 * FILE, args.width, args.classes, args.tokens)
        one_round(Path(folder) / "first", *shape)  # a small one that does not count: libraries are loaded, memory is there
        write(Path(folder) / "store", args.rows, args.width, args.classes, args.tokens)
        rows = passes = 0
        for _ in range(args.rounds):
            rows, seconds, passes = one_round(Path(folder) / "store", *shape)
            for name, spent in seconds.items():
                rates[name].append(rows / spent)
    title = (
        f"features of {args.latents} latents: d {args.width}, k {args.active}, {rows:,} rows, {args.classes} classes, "
        f"{passes} passes, {args.threads} threads"
    )
    # Twice the products' time is half of their rate.
    report(title, Rates("rows", rates), [("features", "encoder products", 0.5)])
    if args.memory_rows:
        few, many = args.memory_rows, 4 * args.memory_rows
        small, large = (peak(n, *shape, args.classes, args.tokens) for n in (few, many))
        verdict = "met" if large <= MOST * small else f"missed by {large / small - MOST:.2f}"
        print(f"\npeak memory: {small:.0f} MB for {few:,} rows, {large:.0f} MB for four times as many")
        print(f"  larger / smaller: {large / small:.3f}  <= {MOST}  {verdict}")
        print(json.dumps({"title": "peak memory in MB", "rows": [few, many], "mb": [small, large], "target": MOST}))


if __name__ == "__main__":
    main()
