"""A store of vectors whose truth is known, written without a model: classes, colours and modality in planted directions."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

import linrep.store
from linrep.places import place
from linrep.sample import split_of
from linrep.store import Store
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.statistics import Sums
from linrep.store.write import samples_table, vector_column, writing_chunk
from schemas import vectors

D = 24
CLASSES = ("boat", "tree", "key")
COLOURS = ("red", "blue")
TOKENS = 4
LAYERS = (0, 2)
VIEWS = ("pooled", "tokens", "last")
AXES = np.linalg.qr(np.random.default_rng(7).standard_normal((D, D)))[0]
"""Row c is the direction of class c, rows 3 and 4 of the colours, row 5 of the modality."""


def signal(label: int, colour: int, modality: str) -> np.ndarray:
    """The mean of a sample's vectors: far from the origin, text elsewhere than images."""
    return 40 * AXES[6] + 3 * AXES[label] + 2 * AXES[3 + colour] + (5 * AXES[5] if modality == "text" else 0)


def write_planted(
    folder: Path,
    n_images: int = 240,
    chunk_size: int = 48,
    noise: float | Mapping[int, float] = 0.7,
    n_texts: int = 30,
    text_tokens: int = TOKENS,
    words: int = 0,
) -> Store:
    """Images of three classes and two colours, their captions (in context, and alone), and texts that nobody labelled.

    `noise` by layer names the layers as well. Single text tokens are of `words` words, each in its own direction.
    """
    by_layer = dict(noise) if isinstance(noise, Mapping) else dict.fromkeys(LAYERS, noise)
    rng = np.random.default_rng(0)
    rows: list[dict] = []
    for i in range(n_images):
        name = f"photo-{i:04d}"
        label, split = i % 3, split_of(f"{name}.JPEG", 0.15, 0.25)
        common = {"label": None, "class_name": None, "split": split, "colour": (i // 3) % 2, "truth": label}
        uri = f"n{label}/{name}.JPEG"
        own = {"label": label, "class_name": CLASSES[label]}
        rows.append({**common, **own, "sample_id": f"images/{uri}", "corpus": "images", "modality": "image", "uri": uri})
        pair = {**common, "corpus": "pairs", "pair_id": f"pairs/{name}", "text": "a caption"}
        rows.append({**pair, "sample_id": f"pairs/{name}", "modality": "pair", "uri": f"images/{uri}"})
        rows.append({**pair, "sample_id": f"pairs/{name}#caption", "modality": "text", "uri": "captions.jsonl"})
    for i in range(n_texts):
        split = split_of(f"text/t{i}", 0.15, 0.25)
        alone = {"sample_id": f"text/t{i}", "corpus": "text", "modality": "text", "uri": "t.jsonl", "split": split, "text": "x"}
        rows.append({**alone, "truth": i % 3, "colour": 0})
    schema = vectors(D, "float16")
    chunks = [rows[start : start + chunk_size] for start in range(0, len(rows), chunk_size)]
    for number, chunk in enumerate(chunks):
        with writing_chunk(place(folder), number, schema) as writer:
            for layer, own in by_layer.items():
                for view in VIEWS:
                    for modality in ("image", "text"):
                        table = _vectors(chunk, view, layer, modality, own, rng, schema, text_tokens, words)
                        writer.vectors(view, layer, modality, table)
            n = len(chunk)
            plain = [{k: v for k, v in row.items() if k not in ("colour", "truth")} for row in chunk]
            counts = {"n_image_tokens": TOKENS, "n_text_tokens": TOKENS}
            writer.commit(
                samples_table([{**row, **counts} for row in plain]), {(0, "image"): Sums.zero(D)}, n, n, (), 0.1, "float32"
            )
    write_manifest(
        place(folder),
        Manifest(
            name="planted", digest="feedbeef00", model={"path": "none", "n_layers": max(by_layer), "digest": "x"},
            layers=tuple(by_layer), views=VIEWS,
            dtype="float16", width=D, corpora={}, harvest={}, n_chunks=len(chunks), chunk_size=chunk_size, status="complete",
        ),
    )  # fmt: skip
    return linrep.store.open(str(folder))


def _vectors(chunk, view, layer, modality, noise, rng, schema, text_tokens, words) -> pa.Table:
    taken, x = [], []
    own = text_tokens if modality == "text" else TOKENS
    each = own + 2 if view == "tokens" else 1  # one special and one newline row among the tokens
    for row in chunk:
        has_image = row["modality"] != "text"
        if view == "last" and has_image != (modality == "image"):
            continue
        if modality == "image" and not has_image:
            continue
        if modality == "text" and row["modality"] == "image":
            continue
        mean = signal(row["truth"], row["colour"], modality)
        for position in range(each):
            taken.append((row, position))
            constant = view == "last" and layer == 0
            x.append(signal(0, 0, "image") if constant else mean + noise * rng.standard_normal(D))
    # What must be left out would spoil the probes: special rows and newlines are the class shifted by one.
    for i, (row, position) in enumerate(taken):
        if view == "tokens" and position >= own:
            x[i] = 4 * signal((row["truth"] + 1) % 3, 1 - row["colour"], modality)
    n = len(taken)
    spoken = np.random.default_rng(layer).integers(words, size=n) if words and view == "tokens" and modality == "text" else None
    if spoken is not None:
        x = [row + 6 * AXES[7 + word] for row, word in zip(x, spoken, strict=True)]
    columns = {
        "sample_id": pa.array([row["sample_id"] for row, _ in taken], pa.string()),
        **({} if spoken is None else {"token_id": pa.array(spoken.astype(np.int32))}),
        "norm": pa.array(np.ones(n, np.float32)),
        "label": pa.array([row.get("label") for row, _ in taken], pa.int32()),
        "split": pa.array([row["split"] for row, _ in taken], pa.string()),
        "is_special": pa.array([view == "tokens" and p == own for _, p in taken]),
        "is_newline": pa.array([view == "tokens" and p == own + 1 for _, p in taken]),
        "vector": vector_column(np.array(x, np.float16).reshape(n, D)),
    }
    return pa.Table.from_arrays([columns.get(f.name, pa.nulls(n, f.type)) for f in schema], schema=schema)


def write_colours(folder: Path, n_images: int = 240) -> str:
    """The attributes' table of the same world: the colour, and a group that no vector shows."""
    path = folder / "colours.jsonl"
    lines = [{"id": f"photo-{i:04d}", "colour": COLOURS[(i // 3) % 2], "group": "ab"[(i // 6) % 2]} for i in range(n_images)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)
