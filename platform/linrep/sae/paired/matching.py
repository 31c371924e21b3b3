"""Latents of two SAEs, one for each modality, brought together after training: one to one, so that what is summed is largest.

The paper that this is after matches by correlation; cosines of decoder rows stand beside it.

Source: Lee et al., "Same concept, different directions: cross-modal feature heterogeneity in sparse autoencoders", arXiv
    2606.29888, 2026 (signed Pearson correlation of activations on training pairs, living latents alone, Hungarian assignment).
"""

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from linrep.sae.paired.sides import Codes


def correlations(a: Float[Tensor, "n f"], b: Float[Tensor, "n g"]) -> Float[Tensor, "f g"]:
    """Pearson's correlation of every column of one with every column of the other; 0 where one never varies."""
    units = []
    for x in (a.double(), b.double()):
        x = x - x.mean(0)
        norms = x.norm(dim=0)
        units.append(torch.where(norms > 1e-12 * len(x) ** 0.5, x / norms.clamp_min(torch.finfo(x.dtype).tiny), 0.0))
    return units[0].t() @ units[1]


def by_correlation(codes: Codes) -> Int[Tensor, " f"]:
    """For each latent of images the one of texts that it is matched with, by how activations on training pairs go together.

    Latents that never vary correlate with nobody: they are left for each other.
    """
    return _assigned(correlations(codes.image, codes.text))


def by_cosine(image: Float[Tensor, "f d"], text: Float[Tensor, "f d"]) -> Int[Tensor, " f"]:
    """The same by the cosine of decoder rows, of which pairs know nothing."""
    return _assigned(torch.nn.functional.normalize(image, dim=1) @ torch.nn.functional.normalize(text, dim=1).t())


def _assigned(score: Float[Tensor, "f f"]) -> Int[Tensor, " f"]:
    _, columns = linear_sum_assignment(score.double().cpu().numpy(), maximize=True)
    return torch.as_tensor(columns)
