"""Pairs whose truth is known, written as a store without a model."""

from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

import linrep.store
from linrep.encoder import Latents
from linrep.places import place
from linrep.sharing.config import SharingConfig
from linrep.sharing.fires import PassFires, add_fired, fire_part
from linrep.sharing.grouped import parts_of
from linrep.sharing.pooled import PooledRows
from linrep.sharing.study import TRAINED, Pairs, Study, Unit, plan_study
from linrep.sharing.sums import Drawn, Labels, PassSums, Sums, add_gathered, gather_part
from linrep.store import Store
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.statistics import Sums as Sizes
from linrep.store.write import samples_table, vector_column, writing_chunk
from schemas import vectors

CONFIG = SharingConfig(groups=10, reservoir=400, subspace=3, clusters=4, resamples=200, neighbours=5)
CLASSES = ("boat", "tree", "key", "bell", "car", "cup", "hat", "fish", "house", "star")


def write_pairs(
    folder: Path,
    images: np.ndarray,
    texts: np.ndarray,
    labels: np.ndarray | None = None,
    chunk: int = 64,
    tokens: int = 0,
    views: tuple[str, ...] = ("pooled", "tokens"),
    modalities: tuple[str, ...] = ("image", "text"),
    digest: str = "0123456789",
    held: int = 0,
) -> Store:
    """A store of n pairs: rows i of both arrays belong together. With tokens, that many rows a pair and modality, else one.

    The last `held` pairs are of the test split.
    """
    n, d = images.reshape(len(images), -1).shape[0], images.shape[-1]
    schema = vectors(d, "float16")
    starts = range(0, n, chunk)
    split = ["train"] * (n - held) + ["test"] * held
    for number, start in enumerate(starts):
        own = range(start, min(start + chunk, n))
        samples = []
        for i in own:
            given = {"split": split[i], "pair_id": f"pairs/{i}", "corpus": "pairs", "n_image_tokens": 1, "n_text_tokens": 1}
            named = {} if labels is None else {"label": int(labels[i]), "class_name": CLASSES[labels[i]]}
            # The caption comes before its pair here and there: joins must not rely on an order.
            both = [
                {**given, **named, "sample_id": f"pairs/{i}", "modality": "pair", "uri": f"images/{i}.JPEG", "text": "t"},
                {**given, "sample_id": f"pairs/{i}#caption", "modality": "text", "uri": "c.jsonl", "text": "t"},
            ]
            samples += both if i % 3 else both[::-1]
        with writing_chunk(place(folder), number, schema) as writer:
            for view in views:
                for modality, rows in (("image", images), ("text", texts)):
                    if modality not in modalities:
                        continue
                    suffix = "" if modality == "image" else "#caption"
                    taken = [
                        (i, row)
                        for i in own
                        for row in (rows[i].mean(0)[None] if view == "pooled" and tokens else np.atleast_2d(rows[i]))
                    ]
                    x = np.array([row for _, row in taken], np.float16)
                    columns = {
                        "sample_id": pa.array([f"pairs/{i}{suffix}" for i, _ in taken]),
                        "norm": pa.array(np.linalg.norm(x.astype(np.float32), axis=1)),
                        "split": pa.array([split[i] for i, _ in taken]),
                        "vector": vector_column(x),
                    }
                    arrays = [columns.get(f.name, pa.nulls(len(taken), f.type)) for f in schema]
                    writer.vectors(view, 0, modality, pa.Table.from_arrays(arrays, schema=schema))
            writer.commit(samples_table(samples), {(0, "image"): Sizes.zero(d)}, len(samples), len(samples), (), 0.0, "float32")
    write_manifest(
        place(folder),
        Manifest(
            name="pairs", digest=digest, model={}, layers=(0,), views=views, dtype="float16", width=d, corpora={}, harvest={},
            n_chunks=len(starts), chunk_size=chunk, status="complete",
        ),
    )  # fmt: skip
    return linrep.store.open(str(folder))


def gathered(store: Store, config: SharingConfig = CONFIG, latents: tuple = ()) -> tuple[Study, PassSums]:
    """The study of a store and the sums of its layer 0, on the plain path."""
    study = plan_study(store, config, latents=latents)
    pairs = study.pairs[TRAINED]
    rows = PooledRows(store, 0, pairs)
    found = (gather_part(rows, part, config) for part in rows.parts())
    return study, reduce(add_gathered, found)


def fired(store: Store, latents: Latents, config: SharingConfig = CONFIG) -> tuple[Pairs, PassFires]:
    """The pairs of a store and what fires on its layer 0, on the plain path."""
    pairs = plan_study(store, config).pairs[TRAINED]
    found = (fire_part(store, pairs, part, latents, config) for part in parts_of(store, "tokens", 0))
    return pairs, reduce(add_fired, found)


def in_memory(images: np.ndarray, texts: np.ndarray, labels: np.ndarray, config: SharingConfig) -> tuple[Pairs, PassSums]:
    """What a pass over a store of these pairs finds, without the store; rows that are dealt to groups in turn."""
    n, rng = len(images), np.random.default_rng(17)
    index, of = np.arange(n), np.arange(n)
    classes = CLASSES[: labels.max() + 1]
    group, swapped = index % config.groups, rng.random(n) < 0.5
    pairs = Pairs(
        {"image": of, "text": of},
        tuple(map(str, of)),
        group,
        index < config.reservoir,
        classes,
        labels,
        rng.permutation(labels),
        swapped,
    )
    x, y = torch.from_numpy(images), torch.from_numpy(texts)
    a, b = x[:50].mean(0), y[:50].mean(0)
    sums = []
    for g in range(config.groups):
        own = np.flatnonzero(group == g)
        sums.append(Sums.of(x[own], y[own], a, b, Labels.of(pairs, own)))
    drawn = np.flatnonzero(pairs.drawn)
    return pairs, PassSums(tuple(sums), (a, b), Drawn(drawn, x[drawn].float(), y[drawn].float()))


UNIT = Unit(TRAINED, 0)
