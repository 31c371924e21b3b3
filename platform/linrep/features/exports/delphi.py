"""Delphi's latent cache: for runs of latents, where each fires and how strongly, over a matrix of tokens.

<hookpoint>/<start>_<end>.safetensors with `locations` [n, 3] (sample, token, latent - start), `activations` (half precision) and
`tokens` [samples, length]; config.json beside them. A row is one sample with the tokens that the store holds, filled up with a
padding token: delphi asks for a matrix. Patches carry the image placeholder's id; delphi does not know where they are.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Int64
from safetensors.numpy import save

from linrep.errors import StoreError
from linrep.features.artefact import Features
from linrep.features.codes import Coded, read_codes
from linrep.places import Place
from linrep.store.layout import MODALITIES, Modality

LEAST = 1e-5
"""Delphi counts no smaller activation."""


def write_delphi(
    features: Features,
    dictionary: str,
    target: Place,
    modalities: Sequence[Modality] = MODALITIES,
    samples: int = 4096,
    splits: int = 8,
    padding: int = 0,
) -> Place:
    """Write the codes of some samples as a cache; gives the folder of the hookpoint.

    What is written is held in memory: choose the samples by what fits.

    Args:
        features: The results, with their codes.
        dictionary: As the tables call it.
        target: Where the folder of the hookpoint goes.
        modalities: Which tokens.
        samples: Samples of each modality, at most: the first of the harvest.
        splits: Files that the latents are divided into.
        padding: Token id that fills short rows up.

    Raises:
        StoreError: There is no such dictionary, or its codes were deleted.
    """
    units = [unit for unit in features.manifest.units.values() if unit["dictionary"] == dictionary]
    if not units:
        raise StoreError(f"no dictionary {dictionary!r} in {features.place}: {', '.join(features.manifest.dictionaries)}")
    parts: list[Coded] = []
    for m in modalities:
        folder, left = features.place / "codes" / units[0]["coder"] / m, samples
        if not folder.names():
            raise StoreError(f"no codes at {folder}: delete the features' manifest and run jobs/features.py again")
        for name in folder.names():
            if left > 0:
                coded = _first(read_codes(folder / name), left)
                left -= len(np.unique(coded.sample))
                parts.append(coded)
    width = max(unit["last"] for unit in units)
    layer = units[0]["layer"]
    folder = target / (f"layers.{layer - 1}" if layer else "embeddings")
    tokens, locations, activations = _matrix(parts, padding)
    ends = [width * i // splits for i in range(splits + 1)]
    for start, end in pairwise(ends):
        own = (locations[:, 2] >= start) & (locations[:, 2] < end) & (activations > LEAST)
        where = locations[own] - np.array([0, 0, start])
        kind = np.uint16 if where.max(initial=0) < 2**16 else np.uint32
        split = {"locations": where.astype(kind), "activations": activations[own].astype(np.float16), "tokens": tokens}
        (folder / f"{start}_{end - 1}.safetensors").write_bytes(save(split))
    about = {"model_name": features.manifest.model, "ctx_len": tokens.shape[1], "n_tokens": int(tokens.size), "n_splits": splits}
    about |= {"dataset_repo": features.manifest.store, "dataset_split": "", "dataset_name": "", "batch_size": 1}
    (folder / "config.json").write_json(about)
    return folder


def _first(coded: Coded, n: int) -> Coded:
    """The first samples."""
    starts = np.flatnonzero(np.diff(coded.sample, prepend=-1))
    return coded if len(starts) <= n else coded.tokens(0, int(starts[n]))


def _matrix(parts: Sequence[Coded], padding: int) -> tuple[Int64[np.ndarray, "b t"], Int64[np.ndarray, "n 3"], np.ndarray]:
    """Tokens, locations and activations of all parts, a row a sample."""
    sizes = [np.unique(part.sample, return_counts=True)[1] for part in parts]
    tokens = np.full((sum(map(len, sizes)), max((int(s.max(initial=0)) for s in sizes), default=0)), padding, np.int64)
    locations, activations, first = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.float32)], 0
    for part, size in zip(parts, sizes, strict=True):
        row = np.repeat(np.arange(len(size)), size) + first
        column = np.arange(len(part)) - np.repeat(size.cumsum() - size, size)
        tokens[row, column] = part.token_id
        entry = part.token
        locations.append(np.stack([row[entry], column[entry], part.latents.astype(np.int64)], axis=1))
        activations.append(part.values)
        first += len(size)
    return tokens, np.concatenate(locations), np.concatenate(activations)
