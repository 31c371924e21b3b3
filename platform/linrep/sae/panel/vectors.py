"""How sparse class vectors are in an SAE, beside vectors that share their statistics and mean nothing."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.sae.controls.directions import mean_and_covariance, square_root
from linrep.sae.panel.data import TokenRows
from linrep.sae.pursuit import latents_needed, pursue
from linrep.sample import unit_hash

COSINE = 0.8
"""What is asked of a rebuilt vector."""
MOST = 32
"""Latents that are tried; a vector that needs more counts as one more."""
DRAWN = 64
"""Vectors of the data's covariance."""


def class_differences(rows: TokenRows, of_class: Int64[np.ndarray, " s"]) -> Float[Tensor, "c d"]:
    """Differences of the mean tokens of neighbouring classes, in a ring: each class takes part in two.

    Args:
        rows: Tokens.
        of_class: Number of each image's class; -1 where it has none.
    """
    means = class_means(rows.x.double(), rows, of_class)
    return (means.roll(-1, 0) - means).float()


def class_means(z: Float[Tensor, "n k"], rows: TokenRows, of_class: Int64[np.ndarray, " s"]) -> Float[Tensor, "c k"]:
    """Mean over the tokens of each class, of any columns."""
    own = torch.from_numpy(of_class)[rows.image]
    there = own >= 0
    n_classes = int(of_class.max()) + 1
    sums = torch.zeros(n_classes, z.shape[1], dtype=z.dtype).index_add_(0, own[there], z[there])
    return sums / torch.bincount(own[there], minlength=n_classes).clamp_min(1)[:, None]


def shuffled_differences(rows: TokenRows, of_class: Int64[np.ndarray, " s"], seed: int) -> Float[Tensor, "c d"]:
    """The same of classes that were dealt out anew to the images: as many images each, and what they differ by is chance."""
    dealt = of_class.copy()
    known = np.flatnonzero(of_class >= 0)
    dealt[known] = of_class[np.random.default_rng([seed, 3]).permutation(known)]
    return class_differences(rows, dealt)


def covariance_vectors(rows: TokenRows, seed: int, n: int = DRAWN) -> Float[Tensor, "n d"]:
    """Gaussian vectors with the covariance of the tokens."""
    generator = torch.Generator().manual_seed(int(unit_hash("vectors", f"{seed}/panel") * 2**53))
    _, spread = mean_and_covariance(rows.x)
    return (torch.randn(n, rows.x.shape[1], generator=generator, dtype=torch.float64) @ square_root(spread)).float()


def needed(decoder: Float[Tensor, "f d"], vectors: Float[Tensor, "v d"]) -> Float[np.ndarray, " v"]:
    """Latents that each vector needs for a cosine of .8, by orthogonal matching pursuit; at most one more than `MOST`."""
    most = min(MOST, *decoder.shape)
    cosines, _ = pursue(decoder, vectors, most)
    return latents_needed(cosines, COSINE).double().numpy()
