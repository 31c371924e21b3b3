"""Vectors of samples by an independent encoder, from a file that anyone can make."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from linrep.config import digest
from linrep.errors import RecipeError
from linrep.features.monosemanticity import Embedded
from linrep.places import place
from linrep.store.tables import read_foreign


def read_embedded(path: str, ids: Sequence[str]) -> tuple[Embedded, str]:
    """The vectors of a store's samples at norm 1, and a digest of them; other samples of the file are passed over.

    Args:
        path: A .parquet with columns sample_id and vector (a list of numbers), or a local .safetensors with a tensor `vectors`
            and, in its metadata, `sample_ids`: a JSON list, one a row.
        ids: Names of the store's samples.

    Raises:
        RecipeError: The file is missing, in neither form, or names no sample of the store.
    """
    file = place(path)
    if not file.is_file():
        raise RecipeError(f"features.embeddings: no file at {file}")
    names, vectors = _safetensors(path) if path.endswith(".safetensors") else _parquet(path)
    row = {name: i for i, name in enumerate(names)}
    at = np.array([row.get(name, -1) for name in ids], np.int64)
    there = at >= 0
    if there.sum() < 2:
        raise RecipeError(f"features.embeddings: {file} names {int(there.sum())} samples of the harvest, at least 2 are needed")
    chosen = vectors[at[there]].astype(np.float32)
    norms = np.linalg.norm(chosen, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise RecipeError(f"features.embeddings: {file} holds vectors that are zero or not finite")
    of = np.full(len(ids), -1, np.int64)
    of[there] = np.arange(int(there.sum()))
    units = chosen / norms
    return Embedded(of, units), digest(
        [ids[i] for i in np.flatnonzero(there).tolist()], hashlib.sha256(units.tobytes()).hexdigest()
    )


def _parquet(path: str) -> tuple[list[str], Float[np.ndarray, "n e"]]:
    file = place(path)
    table = read_foreign(file)
    if not {"sample_id", "vector"} <= set(table.column_names):
        raise RecipeError(f"features.embeddings: {file} has columns {table.column_names}, it needs sample_id and vector")
    lists = table["vector"].combine_chunks()
    if lists.null_count or len(set(np.diff(lists.offsets.to_numpy()).tolist())) != 1:
        raise RecipeError(f"features.embeddings: the vectors of {file} differ in length")
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return table["sample_id"].to_pylist(), flat.reshape(len(table), -1)


def _safetensors(path: str) -> tuple[list[str], Float[np.ndarray, "n e"]]:
    try:
        with safe_open(place(path).path, "np") as tensors:
            names = json.loads((tensors.metadata() or {}).get("sample_ids", "null"))
            vectors = tensors.get_tensor("vectors")
    except (SafetensorError, ValueError) as error:
        raise RecipeError(f"features.embeddings: cannot read {path}: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(names, list) or len(names) != len(vectors):
        raise RecipeError(f"features.embeddings: {path} needs `sample_ids` in its metadata, a JSON list of {len(vectors)} names")
    return names, vectors
