"""Stores that give a stage little or nothing to work on: constant, one row, one class, one modality, none, not finite."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

import linrep.store
from linrep.harvest.finish import record
from linrep.places import place
from linrep.store import Store
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.statistics import merge
from linrep.store.write import samples_table, vector_column, write_statistics, writing_chunk
from schemas import vectors
from tests.store.planted_store import sums_of

D, T, LAYER = 8, 5, 1
THIRD = 3
"""One pair in this number is damaged; no divisor of the numbers of splits and classes."""
SPLITS = ("train", "val", "train", "test", "train")


@dataclass(frozen=True)
class World:
    """What a degenerate store holds.

    Attributes:
        n: Pairs of an image and its caption.
        values: Where the tokens come from: random, one value, zero, or not finite.
        classes: Classes that the pairs belong to in turn.
        modalities: Of the rows.
        skipped: One pair in this number was skipped; 1: all, 0: none.
        splits: Of the pairs, in turn.
    """

    n: int = 40
    values: str = "random"
    classes: int = 4
    modalities: Sequence[str] = ("image", "text")
    skipped: int = 0
    splits: Sequence[str] = SPLITS


WORLDS = {
    "plain": World(),
    "constant": World(values="one"),
    "zero": World(values="zero"),
    "one row": World(n=1, classes=1),
    "two rows": World(n=2, classes=2),
    "one class": World(classes=1),
    "images only": World(modalities=("image",)),
    "texts only": World(modalities=("text",)),
    "all skipped": World(skipped=1),
    "train only": World(splits=("train",)),
    "test only": World(splits=("test",)),
    "nan": World(values="nan"),
    "infinite": World(values="inf"),
    "some nan": World(values="some nan"),
    "train nan": World(values="train nan"),
    "val nan": World(values="val nan"),
    "test nan": World(values="test nan"),
    "third nan": World(values="third nan"),
    "third skipped": World(skipped=3),
}


def write_world(folder: Path, world: World, digest: str = "0123456789") -> Store:
    """A complete store of a world, with all views at one layer."""
    here, schema, rng = place(folder), vectors(D, "float32"), np.random.default_rng(0)
    rows: dict[tuple[str, str], list[tuple]] = {}
    samples, skipped = [], []
    for i in range(world.n):
        split, label = world.splits[i % len(world.splits)], i % world.classes
        lost = world.skipped > 0 and i % world.skipped == 0
        both = [(f"p/{i}", "pair", "image"), (f"p/{i}#caption", "text", "text")]
        for name, kind, modality in both:
            if modality not in world.modalities:
                continue
            if lost:
                skipped.append((name, "damaged"))
            n_tokens = {"n_image_tokens": T if modality == "image" else 0, "n_text_tokens": T if modality == "text" else 0}
            samples.append({
                "sample_id": name, "modality": kind, "corpus": "pairs", "pair_id": f"p/{i}", "split": split, "label": label,
                "class_name": f"c{label}", "uri": f"{i}.png", "text": "a b c", "error": "damaged" if lost else None,
                **n_tokens,
            })  # fmt: skip
            x = _tokens(world.values, rng, label, i)
            if lost:
                continue
            if world.values == f"{split} nan" or (world.values == "third nan" and i % THIRD == 0):
                x[:] = np.nan
            rows.setdefault(("tokens", modality), []).extend((name, t, split, x[t]) for t in range(T))
            rows.setdefault(("pooled", modality), []).append((name, 0, split, x.mean(0)))
            rows.setdefault(("last", modality), []).append((name, T - 1, split, x[-1]))
    sums = {}
    with writing_chunk(here, 0, schema) as writer:
        for (view, modality), own in rows.items():
            x = np.array([row[-1] for row in own], np.float32)
            columns = {
                "sample_id": pa.array([row[0] for row in own]),
                "position": pa.array([row[1] for row in own], pa.int32()),
                "token_id": pa.array([5] * len(own), pa.int32()),
                "is_special": pa.array([False] * len(own)),
                "is_newline": pa.array([False] * len(own)),
                "norm": pa.array(np.linalg.norm(x, axis=1)),
                "split": pa.array([row[2] for row in own]),
                "vector": vector_column(x),
            }
            arrays = [columns.get(f.name, pa.nulls(len(own), f.type)) for f in schema]
            writer.vectors(view, LAYER, modality, pa.Table.from_arrays(arrays, schema=schema))  # type: ignore[arg-type]
            if view == "tokens":
                sums[LAYER, modality] = sums_of(x)
        writer.commit(samples_table(samples), sums, len(samples) - len(skipped), len(samples), tuple(skipped), 0.0, "float32")
    both = merge([sums])
    manifest = Manifest(
        name="t", digest=digest, model={}, layers=(LAYER,), views=("pooled", "tokens", "last"), dtype="float32", width=D,
        corpora={}, harvest={}, n_chunks=1, chunk_size=100,
    )  # fmt: skip
    counts = {"n_samples": len(samples) - len(skipped), "n_skipped": len(skipped)}
    records = [record(layer, group, s) for (layer, group), s in both.items()]
    write_manifest(here, manifest.finish(counts, records, write_statistics(here, both)))
    return linrep.store.open(str(folder))


def _tokens(values: str, rng: np.random.Generator, label: int, i: int) -> np.ndarray:
    x = rng.standard_normal((T, D)).astype(np.float32)
    x[:, label % D] += 2
    if values == "one":
        return np.ones_like(x)
    if values == "zero":
        return np.zeros_like(x)
    if values in ("nan", "inf"):
        return np.full_like(x, np.nan if values == "nan" else np.inf)
    if values == "some nan":
        x[i % T] = np.nan
    return x
