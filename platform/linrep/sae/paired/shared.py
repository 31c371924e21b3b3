"""Which latents are shared: those that fire on an image and on its caption together, more than on texts dealt anew.

Every design is asked the same: its latents are read from each row alone, on pairs that it was not trained on.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import hypergeom
from torch import Tensor

from linrep.sae.paired.sides import Codes

LEVEL = 0.05
"""Share of the called latents that may be called by chance."""
LEAST = 0.3
"""Least correlation of a latent that is called shared: with many pairs the least trace of another latent is no chance."""


def own_correlations(codes: Codes, weights: Float[Tensor, "r n"] | None = None) -> Float[Tensor, "r f"]:
    """Pearson's correlation of each latent's activation on images with that on their captions; 0 where one never varies.

    Args:
        codes: Activations.
        weights: How often each pair counts, a row for each draw; None for once.
    """
    x, y = codes.image.double(), codes.text.double()
    w = torch.ones(1, len(x), dtype=torch.float64, device=x.device) if weights is None else weights.double()
    w = w / w.sum(1, keepdim=True)
    mean_x, mean_y = w @ x, w @ y
    spread = (w @ x.square() - mean_x.square()) * (w @ y.square() - mean_y.square())
    least = torch.finfo(x.dtype).eps * (w @ x.square()) * (w @ y.square())
    product = w @ (x * y) - mean_x * mean_y
    return torch.where(spread > least, product / spread.clamp_min(torch.finfo(x.dtype).tiny).sqrt(), 0.0)


def chances(codes: Codes) -> Float[np.ndarray, " f"]:
    """How often texts dealt anew among the images would let each latent fire on both of a pair as often as it does, exactly.

    Source: Fisher, "The design of experiments", 1935 (his exact test, one-sided).
    """
    image, text = codes.image > 0, codes.text > 0
    both = (image & text).sum(0).cpu().numpy()
    return hypergeom.sf(both - 1, len(image), image.sum(0).cpu().numpy(), text.sum(0).cpu().numpy())


def discoveries(p: Float[np.ndarray, " m"], level: float = LEVEL) -> Bool[np.ndarray, " m"]:
    """Those among m tests that stand if a given share of them may be by chance.

    Source: Benjamini & Hochberg, "Controlling the false discovery rate", 1995.

    >>> discoveries(np.array([0.001, 0.03, 0.2, 0.035]), 0.05).tolist()
    [True, True, False, True]
    """
    order = np.argsort(p)
    stands = np.flatnonzero(p[order] <= level * np.arange(1, len(p) + 1) / max(len(p), 1))
    found = np.zeros(len(p), bool)
    found[order[: stands[-1] + 1 if len(stands) else 0]] = True
    return found


def called(codes: Codes, level: float = LEVEL, least: float = LEAST) -> Bool[Tensor, " f"]:
    """The latents that are called shared: no chance, and a correlation that says something.

    Args:
        codes: Activations on pairs that nothing was trained on.
        level: Share of false ones that is allowed.
        least: Least correlation.
    """
    fires = ((codes.image > 0).any(0) & (codes.text > 0).any(0)).cpu().numpy()
    found = np.zeros(len(fires), bool)
    found[fires] = discoveries(chances(codes)[fires], level)
    return torch.from_numpy(found).to(codes.image.device) & (own_correlations(codes)[0] >= least)
