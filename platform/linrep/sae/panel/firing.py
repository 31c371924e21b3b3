"""When a latent fires, so that weak entries do not count: above the activation that holds nine tenths of its energy.

A TopK SAE always fills its k places. The weak entries are noise for a sharp latent and signal for a random half-space: if any
activation above 0 counts as firing, random directions look easier to explain than trained ones.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.encoder import Active

SHARE = 0.9
"""Of a latent's energy, the sum of its squared activations, that lies at and above its threshold."""


def thresholds(codes: Active, n_latents: int, share: float = SHARE) -> Float[Tensor, " f"]:
    """For each latent the largest activation at and above which the share of its energy lies; infinite where it never fires.

    Args:
        codes: Activations of single tokens.
        n_latents: Latents.
        share: Of the energy.

    >>> one, two = torch.zeros(5).long(), torch.arange(5)
    >>> float(thresholds(Active(two, one, torch.tensor([4.0, 1.0, 3.0, 1.0, 1.0])), 1))  # 25 of 28 is less than .9
    1.0
    """
    found = torch.full((n_latents,), torch.inf, dtype=codes.value.dtype)
    if not len(codes.value):
        return found
    order = codes.value.argsort(descending=True, stable=True)
    order = order[codes.latent[order].argsort(stable=True)]
    latent, value = codes.latent[order], codes.value[order]
    energy = value.double().square()
    total = torch.zeros(n_latents, dtype=torch.float64).index_add_(0, latent, energy)
    count = torch.bincount(latent, minlength=n_latents)
    first = (count.cumsum(0) - count)[latent]
    sums = energy.cumsum(0)
    held = sums - (sums - energy)[first]
    # Rounding of sums over many latents must not leave a latent below its own total.
    enough = (held >= share * total[latent] * (1 - 1e-9)) | (torch.arange(len(latent)) == first + count[latent] - 1)
    reached = torch.full((n_latents,), len(latent)).scatter_reduce_(0, latent[enough], enough.nonzero()[:, 0], "amin")
    alive = count > 0
    found[alive] = value[reached[alive]]
    return found


def fires(codes: Active, image: Int[Tensor, " n"], at_least: Float[Tensor, " f"], n_images: int) -> Bool[np.ndarray, "s f"]:
    """Whether a latent fires on any token of an image.

    Args:
        codes: Activations of single tokens.
        image: The image of each token.
        at_least: Thresholds.
        n_images: Images.
    """
    found = torch.zeros(n_images, len(at_least), dtype=torch.bool)
    strong = codes.value >= at_least[codes.latent]
    found[image[codes.row[strong]], codes.latent[strong]] = True
    return found.numpy()
