"""Delphi's latent cache: for runs of latents, where each fires and how strongly, over a matrix of tokens.

<hookpoint>/<start>_<end>.safetensors with `locations` [n, 3] (sample, token, latent - start), `activations` (half precision) and
`tokens` [rows, ctx]; config.json beside them. A row is a run of ctx tokens of one sample, of those that the store holds; a long
sample takes several, and its last one is filled up with a padding token. Delphi cuts the rows end to end into examples of its
`example_ctx_len` (32 by default): where ctx is a multiple of that no example straddles two samples, and where they are equal none
is padding alone. What padding there is counts as silent tokens. Patches carry the image placeholder's id; delphi does not know
where they are.

Layers. Delphi names a hookpoint by the module whose output it reads: layer k here, the stream entering block k, is
`layers.<k-1>`, and layer 0 is `embeddings`.

Source: github.com/EleutherAI/delphi at 3c2e139 (November 2025): delphi/latents/loader.py, delphi/config.py.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Int64
from safetensors.numpy import save

from linrep.features.artefact import Features
from linrep.features.codes import ActiveLatents, read_codes
from linrep.places import Place
from linrep.store.layout import MODALITIES, Modality

LEAST = 1e-5
"""Delphi counts no smaller activation."""


def write_delphi(
    features: Features,
    sae: str,
    target: Place,
    modalities: Sequence[Modality] = MODALITIES,
    samples: int = 4096,
    splits: int = 8,
    padding: int = 0,
    ctx: int = 32,
    layer: int | None = None,
) -> Place:
    """Write the codes of some samples as a cache; gives the folder of the hookpoint.

    What is written is held in memory: choose the samples by what fits.

    Args:
        features: The results, with their codes.
        sae: As the tables call it.
        target: Where the folder of the hookpoint goes.
        modalities: Which tokens.
        samples: Samples of each modality, at most: the first of the harvest.
        splits: Files that the latents are divided into, at most one a latent.
        padding: Token id that fills short rows up.
        ctx: Tokens of a row, a multiple of the `example_ctx_len` that delphi will be run with.
        layer: The SAE's layer; may be left out where only one layer has an SAE of this name.

    Raises:
        StoreError: There is no such SAE, there are several, or its codes were deleted.
    """
    looked = features.sae(sae, layer)
    parts: list[ActiveLatents] = []
    for m in modalities:
        left = samples
        for file in features.codes(looked.folder, m):
            if left > 0:
                coded = _first(read_codes(file), left)
                left -= len(np.unique(coded.sample))
                parts.append(coded)
    folder = target / (f"layers.{looked.layer - 1}" if looked.layer else "embeddings")
    tokens, locations, activations = _matrix(parts, padding, ctx)
    splits = min(splits, looked.latents)
    ends = [looked.latents * i // splits for i in range(splits + 1)]
    for start, end in pairwise(ends):
        own = (locations[:, 2] >= start) & (locations[:, 2] < end) & (activations > LEAST)
        where = locations[own] - np.array([0, 0, start])
        kind = np.uint16 if where.max(initial=0) < 2**16 else np.uint32
        split = {"locations": where.astype(kind), "activations": activations[own].astype(np.float16), "tokens": tokens}
        (folder / f"{start}_{end - 1}.safetensors").write_bytes(save(split))
    about = {"model_name": features.about.model, "ctx_len": tokens.shape[1], "n_tokens": int(tokens.size), "n_splits": splits}
    about |= {"dataset_repo": features.about.store, "dataset_split": "", "dataset_name": "", "batch_size": 1}
    (folder / "config.json").write_json(about)
    return folder


def next_lines(folder: Place, ctx: int) -> list[str]:
    """What reads the cache, in lines.

    Args:
        folder: Of the hookpoint.
        ctx: Tokens of a row.
    """
    sizes = f"ConstructorConfig(example_ctx_len={ctx})"
    return [
        "Not shown there: images (a patch is the placeholder's token, in no place).",
        "Next, where delphi is installed:",
        f"  LatentDataset({str(folder.parent)!r}, SamplerConfig(), {sizes}, modules=[{folder.name!r}])",
    ]


def _first(coded: ActiveLatents, n: int) -> ActiveLatents:
    """The first samples."""
    starts = np.flatnonzero(np.diff(coded.sample, prepend=-1))
    return coded if len(starts) <= n else coded.tokens(0, int(starts[n]))


def _matrix(
    parts: Sequence[ActiveLatents], padding: int, ctx: int
) -> tuple[Int64[np.ndarray, "b t"], Int64[np.ndarray, "n 3"], Float32[np.ndarray, " n"]]:
    """Tokens, locations and activations of all parts, a row for each ctx tokens of a sample."""
    rows, locations, activations, first = (
        [np.zeros((0, ctx), np.int64)],
        [np.zeros((0, 3), np.int64)],
        [np.zeros(0, np.float32)],
        0,
    )
    for part in parts:
        size = np.unique(part.sample, return_counts=True)[1]
        taken = -(-size // ctx)
        within = np.arange(len(part)) - np.repeat(size.cumsum() - size, size)
        row, column = np.repeat(taken.cumsum() - taken, size) + within // ctx, within % ctx
        tokens = np.full((int(taken.sum()), ctx), padding, np.int64)
        tokens[row, column] = part.token_id
        entry = part.token
        rows.append(tokens)
        locations.append(np.stack([first + row[entry], column[entry], part.latents.astype(np.int64)], axis=1))
        activations.append(part.values)
        first += len(tokens)
    return np.concatenate(rows), np.concatenate(locations), np.concatenate(activations)
