"""Tokens whose latents are known, written as a store without a model; and slow, obvious answers about them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

import linrep.store
from linrep.encoder import Latents
from linrep.features.artefact import Features, finish, open_features, plan_artefact
from linrep.features.config import FeaturesConfig
from linrep.features.study import Study
from linrep.kind import UnitCommit
from linrep.named_sae import NamedSae
from linrep.places import place
from linrep.store import Store
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.statistics import Sums
from linrep.store.write import samples_table, vector_column, writing_chunk
from schemas import vectors

CLASSES = ("boat", "tree", "key", "bell")
CONFIG = FeaturesConfig(
    saes=(NamedSae(path="x", layer=0),),
    top=3,
    quantiles=2,
    per_quantile=2,
    around=2,
    words=0,
    neighbours=2,
    min_samples=4,
)


def found_plainly(folder: Path, study: Study) -> Features:
    """The complete features of a study, worked out in this process, in a workspace."""
    from linrep.cluster.features import find_plainly

    here = plan_artefact(place(folder), "t", study, {"sae-0": "a"}).begun()
    assert sorted(event.unit for event in find_plainly(study, here.todo(), here) if isinstance(event, UnitCommit)) == sorted(
        here.manifest.units
    )
    here.closing(**finish(here)).close()
    return open_features(str(folder))


class Identity:
    """An SAE whose latents are the coordinates, active above zero."""

    def __init__(self, f: int) -> None:
        self.d_model = self.n_latents = f

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


def identity(f: int) -> tuple[tuple[Latents, Latents], ...]:
    """The SAE of coordinates, and one of shuffled coordinates for its control."""
    return ((Latents("own", Identity(f), torch.eye(f)), Latents("own/random", Identity(f), torch.eye(f).roll(1, 0))),)


def write_store(
    folder: Path,
    images: Sequence[np.ndarray],
    texts: Sequence[np.ndarray],
    labels: np.ndarray | None = None,
    chunk: int = 16,
    layers: tuple[int, ...] = (0,),
) -> Store:
    """A store of images and texts: sample i has the tokens images[i], [t, d]; image tokens lie on a grid of four columns.

    Layer k holds the same with its coordinates moved up by k places.

    Each image has a start token of its own under text, and a newline; both must not count.
    """
    d = images[0].shape[1]
    schema = vectors(d, "float32")
    n = max(len(images), len(texts))
    for number, start in enumerate(range(0, n, chunk)):
        own = range(start, min(start + chunk, n))
        samples, rows = [], {"image": [], "text": []}
        for i in own:
            given = {"split": "train", "corpus": "c", "pair_id": None}
            if i < len(images):
                named = {} if labels is None else {"label": int(labels[i]), "class_name": CLASSES[labels[i]]}
                counts = {"n_image_tokens": len(images[i]) + 1, "n_text_tokens": 0}
                samples.append({**given, **named, **counts, "sample_id": f"i{i}", "modality": "image", "uri": f"a/{i}.JPEG"})
                for t, x in enumerate(images[i]):
                    rows["image"].append((f"i{i}", 1 + t, 99, 0, t // 4, t % 4, False, False, x))
                rows["image"].append((f"i{i}", 1 + len(images[i]), 99, None, 0, None, True, False, np.full(d, 50.0)))
                rows["text"].append((f"i{i}", 0, 1, None, None, None, False, True, np.full(d, 50.0)))
            if i < len(texts):
                counts = {"n_image_tokens": 0, "n_text_tokens": len(texts[i])}
                samples.append({**given, **counts, "sample_id": f"t{i}", "modality": "text", "uri": "t.jsonl", "text": "t"})
                rows["text"] += [(f"t{i}", t, 10 + t, None, None, None, False, False, x) for t, x in enumerate(texts[i])]
        names = ("sample_id", "position", "token_id", "tile", "row", "col", "is_newline", "is_special")
        with writing_chunk(place(folder), number, schema) as writer:
            for modality, some in rows.items():
                x = np.array([row[-1] for row in some], np.float32)
                columns = {name: pa.array([row[j] for row in some], schema.field(name).type) for j, name in enumerate(names)}
                columns |= {"norm": pa.array(np.linalg.norm(x, axis=1)), "split": pa.array(["train"] * len(some))}
                for layer in layers:
                    columns["vector"] = vector_column(np.roll(x, layer, axis=1))
                    arrays = [columns.get(f.name, pa.nulls(len(some), f.type)) for f in schema]
                    writer.vectors("tokens", layer, modality, pa.Table.from_arrays(arrays, schema=schema))
            writer.commit(samples_table(samples), {(0, "image"): Sums.zero(d)}, len(samples), len(samples), (), 0.0, "float32")
    write_manifest(
        place(folder),
        Manifest(
            name="planted", digest="0123456789", model={}, layers=layers, views=("tokens",), dtype="float32", width=d, corpora={},
            harvest={}, n_chunks=-(-n // chunk), chunk_size=chunk, status="complete",
        ),
    )  # fmt: skip
    return linrep.store.open(str(folder))


def draw(n: int, f: int, seed: int = 0, share: float = 0.2) -> list[np.ndarray]:
    """Samples of 3 to 8 tokens, on which each latent fires now and then; some values are equal."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        t = int(rng.integers(3, 9))
        x = np.round(rng.gamma(2.0, 1.0, (t, f)), 1) * (rng.random((t, f)) < share)
        found.append(np.where(x > 0, x, -1.0).astype(np.float32))
    return found
