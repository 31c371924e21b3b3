"""The vision tower's patches beside the tokens that they became: pairs of rows, for maps from the tower into the stream."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from linrep.errors import StoreError
from linrep.sample import Split
from linrep.store.layout import TOWER, StoredSite
from linrep.store.read import Store
from linrep.store.selection import Selection

KEY = ("sample_id", "position")


@dataclass(frozen=True)
class PatchesWithTokens:
    """Patches of the vision tower, each with the token that it is a part of.

    Attributes:
        patches: The patches, in the store's number format; those of a token follow each other.
        tokens: The token of each: the same row again where several patches became one token.
        token: Number of that token, from 0, in rising order.
        sample: Number of the sample likewise: what is left out to test on others.
    """

    patches: Shaped[Tensor, "n w"]
    tokens: Shaped[Tensor, "n d"]
    token: Int64[np.ndarray, " n"]
    sample: Int64[np.ndarray, " n"]


def patches_with_tokens(store: Store, layer: int, split: Split | None = None, site: StoredSite = "residual") -> PatchesWithTokens:
    """The vision tower's patches with the image tokens of a layer.

    Patches and tokens of high norm are left out, and patches without a token, or whose token was not drawn.

    Args:
        store: The store; its harvest names `tower` in `harvest.sites` and keeps the view `tokens`.
        layer: Layer k of the tokens.
        split: train, val or test; None for all.
        site: What of the layer: residual, attention or mlp.

    Raises:
        StoreError: The store lacks one of them.
    """
    if site == TOWER:
        raise StoreError("patches are joined with tokens: the site must be residual, attention or mlp")
    patches = store.select("tokens", modality="image", split=split, special=False, site=TOWER)
    tokens = store.select("tokens", layer, "image", split, site=site)
    both = _numbered(patches, "patch_row").join(_numbered(tokens, "token_row"), on=list(KEY)).sort("token_row", "patch_row")
    x, y = torch.from_numpy(both["patch_row"].to_numpy().copy()), torch.from_numpy(both["token_row"].to_numpy().copy())
    token = both["token_row"].rle_id().to_numpy().astype(np.int64)
    sample = both["sample_id"].rle_id().to_numpy().astype(np.int64)
    return PatchesWithTokens(patches.torch()[x], tokens.torch()[y], token, sample)


def _numbered(rows: Selection, name: str) -> pl.DataFrame:
    """Keys of rows with their numbers as int64; a key that is null joins with nothing."""
    table = pl.DataFrame(pl.from_arrow(rows.table(KEY)))
    return table.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(name))
