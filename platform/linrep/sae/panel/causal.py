"""Directions made of few latents, to be added to a model's stream: do the latents that stand for a class act as the class?

Few latents that name a thing may write little of it. What is added here has the norm of the difference of class means, whatever
the SAE, so that directions are compared and not doses. Running the model is the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.encoder import Active
from linrep.sae.panel.data import TokenRows

LATENTS = (1, 2, 4, 8)
"""Latents that a direction is made of."""


def latent_means(codes: Active, rows: TokenRows, of_class: Int64[np.ndarray, " s"], n_latents: int) -> Float[Tensor, "c f"]:
    """Mean activation of each latent over the single tokens of each class, silent ones included.

    Args:
        codes: Activations of the tokens.
        rows: The tokens.
        of_class: Number of each image's class; -1 where it has none.
        n_latents: Latents.
    """
    own = torch.from_numpy(of_class)[rows.image]
    n_classes = int(of_class.max()) + 1
    there = own[codes.row] >= 0
    cell = own[codes.row[there]] * n_latents + codes.latent[there]
    sums = torch.zeros(n_classes * n_latents, dtype=torch.float64).index_add_(0, cell, codes.value[there].double())
    n = torch.bincount(own[own >= 0], minlength=n_classes).clamp_min(1)
    return sums.reshape(n_classes, n_latents) / n[:, None]


def latent_direction(
    means: Float[Tensor, "c f"], decoder: Float[Tensor, "f d"], source: int, target: int, m: int
) -> Float[Tensor, " d"]:
    """What the m latents write that differ most between two classes, each by its difference; of any length.

    Latents of the source come with a minus: they are taken away. How much a latent differs is the length of what it writes.

    Args:
        means: Of `latent_means`.
        decoder: What a unit of each latent writes.
        source: Class to leave.
        target: Class to reach.
        m: Latents.
    """
    gap = means[target] - means[source]
    chosen = (gap.abs() * decoder.double().norm(dim=1)).topk(min(m, len(gap))).indices
    return (gap[chosen] @ decoder[chosen].double()).float()


@dataclass(frozen=True)
class Cases:
    """Images under edits from their class to another: what every direction is tried on.

    Attributes:
        source: Number of the class to leave.
        target: Of the class to reach.
        image: Of the image.
    """

    source: Int64[np.ndarray, " n"]
    target: Int64[np.ndarray, " n"]
    image: Int64[np.ndarray, " n"]

    @property
    def ids(self) -> Sequence[Int64[np.ndarray, " n"]]:
        """What cases share: see `linrep.stats.crossed`."""
        return self.source, self.target, self.image
