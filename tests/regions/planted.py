"""A store of patches whose truth is known, written without a model, and the regions that cover them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

import linrep.store
from linrep.cluster.regions import label_plainly
from linrep.places import place
from linrep.regions.artefact import Regions, finish, open_regions, plan_regions
from linrep.regions.config import RegionsConfig
from linrep.regions.covers import PatchMap
from linrep.regions.study import plan_study
from linrep.store import Store
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.statistics import Sums
from linrep.store.write import samples_table, vector_column, writing_chunk
from schemas import vectors
from tests.regions.images import CARD, samples

SIDE = 72
"""Of the images: a base view of 6 x 6 patches of 12 pixels, and one crop of as many."""
CATEGORIES = ("boat", "tree", "key")
CHUNK = 32
Thing = tuple[int, tuple[int, int, int, int]]
"""Number of a category and its box: left, top, right, bottom in pixels."""


def drawn_things(n: int, seed: int = 0) -> list[list[Thing]]:
    """An object of 3 x 3 patches in each image, anywhere."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 4, (n, 2)) * 12
    return [[(int(rng.integers(3)), (int(x), int(y), int(x) + 36, int(y) + 36))] for x, y in corners]


def write_patches(
    folder: Path, things: Sequence[Sequence[Thing]], vector: Callable[[int, int, int, int, np.random.Generator], np.ndarray]
) -> Store:
    """A store of images.

    Args:
        folder: Where it goes.
        things: Of each image.
        vector: Of a patch, from the number of its image, the category at its middle (-1 for none), its row and its column.
    """
    rng, n = np.random.default_rng(1), len(things)
    patches = PatchMap(samples(a=(SIDE, SIDE))).of("a")
    d = len(vector(0, -1, 0, 0, rng))
    schema = vectors(d, "float32")
    for number, start in enumerate(range(0, n, CHUNK)):
        own, rows = range(start, min(start + CHUNK, n)), []
        with writing_chunk(place(folder), number, schema) as writer:
            for i in own:
                for t in range(len(patches)):
                    x, y = (patches.boxes[t, :2] + patches.boxes[t, 2:]) / 2 * SIDE
                    category = next((c for c, (a, b, e, f) in things[i] if a <= x < e and b <= y < f), -1)
                    at = int(patches.tile[t]), int(patches.row[t]), int(patches.col[t])
                    rows.append((f"images/{i}.jpg", t, *at, vector(i, category, at[1], at[2], rng)))
            columns = dict(
                zip(("sample_id", "position", "tile", "row", "col"), zip(*(row[:5] for row in rows), strict=True), strict=True)
            )
            x = np.array([row[5] for row in rows], np.float32)
            arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
            arrays |= {
                "token_id": pa.array([99] * len(rows), schema.field("token_id").type),
                "norm": pa.array(np.ones(len(rows), np.float32)),
                "split": pa.array([split(int(name.split("/")[1].split(".")[0])) for name in columns["sample_id"]]),
                "is_newline": pa.array([False] * len(rows)),
                "is_special": pa.array([False] * len(rows)),
                "vector": vector_column(x),
            }
            table = pa.Table.from_arrays([arrays.get(f.name, pa.nulls(len(rows), f.type)) for f in schema], schema=schema)
            writer.vectors("tokens", 0, "image", table)
            written = [
                {
                    "sample_id": f"images/{i}.jpg", "corpus": "images", "modality": "image", "uri": f"{i}.jpg", "split": split(i),
                    "height": SIDE, "width": SIDE, "n_image_tokens": len(patches), "n_text_tokens": 0,
                }
                for i in own
            ]  # fmt: skip
            writer.commit(samples_table(written), {(0, "image"): Sums.zero(d)}, len(own), len(own), (), 0.0, "float32")
    write_manifest(
        place(folder),
        Manifest(
            name="planted", digest="0123456789", model=asdict(CARD) | {"path": "none"}, layers=(0,), views=("tokens",),
            dtype="float32", width=d, corpora={}, harvest={}, n_chunks=-(-n // CHUNK), chunk_size=CHUNK, status="complete",
        ),
    )  # fmt: skip
    return linrep.store.open(str(folder))


def split(i: int) -> str:
    """Of an image: half of them train."""
    return ("train", "train", "val", "test")[i % 4]


def label(folder: Path, store: Store, things: Sequence[Sequence[Thing]], **config: object) -> Regions:
    """The regions of its images, in a workspace."""
    held = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": SIDE, "width": SIDE} for i in range(len(things))],
        "categories": [{"id": c, "name": name} for c, name in enumerate(CATEGORIES)],
        "annotations": [
            {"image_id": i, "category_id": c, "bbox": [a, b, e - a, f - b]}
            for i, own in enumerate(things)
            for c, (a, b, e, f) in own
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "c.json").write_text(json.dumps(held))
    values = {"source": {"path": str(folder / "c.json")}, **config}
    study = plan_study(store, RegionsConfig.model_validate(values), place(folder / "c.json"))
    here = plan_regions(place(folder), "t", study).begun()
    list(label_plainly(study, here.todo(), here))
    here.closing(**finish(here, study)).close()
    return open_regions(str(folder))
