"""What the comparison of designs reads of a harvest: rows of image-caption pairs, by split, with the classes of the pairs."""

from typing import get_args

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from linrep.errors import RecipeError
from linrep.sae.paired.rows import PairRows
from linrep.sharing.config import Pooling, SharingConfig
from linrep.sharing.pooled import PooledRows
from linrep.sharing.study import find_pairs
from linrep.store.read import Store
from linrep.store.samples import read_samples

POOLINGS = tuple(pooling for pooling in get_args(Pooling) if pooling != "object")
"""Rows that every pair has; patches of objects need regions, and many pairs have none."""
FEWEST = 64
"""Pairs of each part: with fewer nothing can be called shared."""


def read_pairs(config: SharingConfig, store: Store, layer: int, pooling: Pooling) -> tuple[PairRows, PairRows, Int[Tensor, " n"]]:
    """Training pairs, held-out pairs (validation and test), and the class of each held-out pair, -1 where it has none.

    Raises:
        RecipeError: The store lacks the layer or the rows, or has too few pairs.
    """
    if layer not in store.manifest.layers:
        raise RecipeError(f"no layer {layer} in {store.place}: it has {', '.join(map(str, store.manifest.layers))}")
    pairs = find_pairs(store, config)
    rows = PooledRows(store, layer, pairs, pooling)
    matched = [own for part in rows.parts() for own in rows.matched(part)]
    number = np.concatenate([n for n, _, _ in matched]) if matched else np.zeros(0, np.int64)
    split = read_samples(store.samples()).split
    of_pair = np.full(len(pairs), -1, np.int64)
    own = pairs.of["image"]
    of_pair[own[own >= 0]] = split[own >= 0]
    train = torch.from_numpy(of_pair[number] == 0)
    if min(int(train.sum()), int((~train).sum())) < FEWEST:
        raise RecipeError(
            f"{store.place} has {int(train.sum())} training and {int((~train).sum())} held-out pairs with rows of both "
            f"modalities (pooling {pooling}), at least {FEWEST} of each are needed: give corpora.pairs, for last tokens "
            "corpora.images of the same files and one prompt for both, and harvest again"
        )
    both = PairRows(torch.cat([x for _, x, _ in matched]).float(), torch.cat([y for _, _, y in matched]).float())
    label = torch.from_numpy(pairs.label[number])
    return both.of(train), both.of(~train), label[~train]
