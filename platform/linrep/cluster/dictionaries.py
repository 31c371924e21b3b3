"""The dictionaries that a recipe names, read and checked against a store, each with its control of random directions."""

from collections.abc import Sequence

import numpy as np
import torch

from linrep.dictionary import Dictionary, Latents
from linrep.errors import RecipeError
from linrep.sae.coder import Largest, Sae, random_dictionary
from linrep.sae.formats import read as read_sae
from linrep.store.layout import MODALITIES
from linrep.store.read import Store

SAMPLE = 2048
"""Tokens of each modality that the random dictionary's centre, and the number of its active latents, are taken from."""


def read_dictionaries(dictionaries: Sequence[Dictionary], store: Store, section: str) -> tuple[Sae, ...]:
    """The autoencoders that some dictionaries name.

    Args:
        dictionaries: Which.
        store: The activations that they will see.
        section: Section of the recipe, for messages.

    Raises:
        RecipeError: The store lacks a dictionary's layer or tokens, or is of another width.
        FormatError: There is no dictionary where one should be.
    """
    coders = tuple(read_sae(dictionary.path) for dictionary in dictionaries)
    for dictionary, coder in zip(dictionaries, coders, strict=True):
        if dictionary.layer not in store.manifest.layers or "tokens" not in store.manifest.views:
            raise RecipeError(
                f"{section}.dictionaries: no tokens of layer {dictionary.layer} in {store.place}, which {dictionary.path} needs"
            )
        if coder.d_model != store.manifest.width:
            raise RecipeError(
                f"{section}.dictionaries: {dictionary.path} is for width {coder.d_model}, the store has {store.manifest.width}"
            )
    return coders


def with_control(dictionary: Dictionary, coder: Sae, store: Store, seed: int) -> tuple[Latents, Latents]:
    """The dictionary, and random directions that fire as often as it does."""
    rows = []
    for modality in MODALITIES:
        selection = store.select("tokens", dictionary.layer, modality, special=False)
        n = 0
        for batch in selection.batches(["vector"], SAMPLE):
            raw = np.stack([np.frombuffer(v, "<u2") for v in batch["vector"].to_pylist()[: SAMPLE - n]]) if len(batch) else None
            if raw is not None:
                rows.append(_floats(raw, store))
                n += len(raw)
            if n >= SAMPLE:
                break
    sample = torch.cat(rows)
    sample = sample[sample.isfinite().all(1)]
    k = max(1, round(float((coder.encode(sample) > 0).sum(1).float().mean())))
    if isinstance(coder.rule, Largest):
        k = coder.rule.k
    control = random_dictionary(sample, coder.n_latents, min(k, coder.n_latents), seed)
    name = dictionary.path.rstrip("/").rsplit("/", 1)[-1]
    return Latents(name, coder, coder.decoder), Latents(f"{name}/random", control, control.decoder)


def _floats(raw: np.ndarray, store: Store) -> torch.Tensor:
    if store.manifest.dtype == "float32":
        return torch.from_numpy(raw.view("<f4").copy())
    if store.manifest.dtype == "bfloat16":
        return torch.from_numpy(raw.view(np.int16).copy()).view(torch.bfloat16).float()
    return torch.from_numpy(raw.view("<f2").astype(np.float32))
