"""Interpretable explained variance: what is left of the explained variance when only latents with a good explanation may write.

An SAE may rebuild everything through latents that mean nothing, or hold a few that mean much and write little. Both lose here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from linrep.encoder import Active
from linrep.sae.panel.data import PanelData
from linrep.sae.panel.explained import Explained, agreement

GRID = tuple(round(0.05 * i, 2) for i in range(20))
"""Least agreements t at which the curve is read: 0 to .95."""
ENTRIES = 2**16
"""Activations that are decoded at once."""


@dataclass(frozen=True)
class SquaredErrors:
    """Squared errors of reconstructions, summed over the tokens of each held-out image.

    Attributes:
        whole: Of all latents.
        at_least: Of the latents whose explanation agrees by at least each of `GRID`.
        spread: Squared distance from the mean over all held-out tokens.
    """

    whole: Float[np.ndarray, " s"]
    at_least: Float[np.ndarray, "s t"]
    spread: Float[np.ndarray, " s"]

    def explained(self, weights: Float[np.ndarray, "r s"]) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "r t"]]:
        """Explained variance, of all latents and at each of `GRID`, over images of some weights."""
        spread = weights @ self.spread
        return 1 - weights @ self.whole / spread, 1 - weights @ self.at_least / spread[:, None]


def squared_errors(found: Explained, data: PanelData, second: Bool[np.ndarray, " s"]) -> SquaredErrors:
    """Rebuild each half of the held-out images from the latents that agree with their explanation on the other half.

    Latents that are left out stay at their mean over training tokens: what is rebuilt is the training mean plus what the chosen
    latents write beyond their own means. So b_dec plays no part, and without latents nothing is explained.

    Args:
        found: The latents and their explanations.
        data: The tokens.
        second: Which held-out images are the second half.
    """
    x = data.held.x.double()
    centred = x - data.train.x.double().mean(0)
    spread = (x - x.mean(0)).square().sum(1)
    n, image = data.held.n_images, data.held.image
    on_second = torch.from_numpy(second)[image]
    whole = _errors(centred, found, torch.ones(found.decoder.shape[0], dtype=torch.bool), torch.ones_like(on_second))
    steps = torch.zeros(len(x), len(GRID), dtype=torch.float64)
    for half in (False, True):
        chosen_on = (second != half).astype(float)  # latents are chosen on the other half
        agrees = _own(agreement(found.held_fires, data.held_values, chosen_on), found)
        here = on_second == half
        for i, t in enumerate(GRID):
            steps[here, i] = _errors(centred, found, agrees >= t, here)
    sums = torch.zeros(n, 2 + len(GRID), dtype=torch.float64)
    sums.index_add_(0, image, torch.cat([whole[:, None], spread[:, None], steps], dim=1))
    return SquaredErrors(sums[:, 0].numpy(), sums[:, 2:].numpy(), sums[:, 1].numpy())


def area(curve: Float[np.ndarray, "r t"]) -> Float[np.ndarray, " r"]:
    """Mean height of the curve over t from 0 to 1: no t is chosen. It lies below the explained variance."""
    return curve.mean(1)


def _own(agrees: Float[Tensor, "f v"], found: Explained) -> Float[Tensor, " f"]:
    """Each latent's agreement with its explanation; minus infinity where it has none."""
    own = agrees.gather(1, found.explanation.clamp_min(0)[:, None])[:, 0]
    return torch.where(found.explanation >= 0, own, -torch.inf)


def _errors(
    centred: Float[Tensor, "n d"], found: Explained, chosen: Bool[Tensor, " f"], rows: Bool[Tensor, " n"]
) -> Float[Tensor, " m"]:
    """Squared error of some rows, rebuilt from some latents."""
    decoder = found.decoder.double()
    left = centred[rows] + (found.means * chosen) @ decoder
    place = torch.cumsum(rows, 0) - 1
    codes = _some(found.held_codes, chosen, rows)
    for row, latent, value in zip(*(part.split(ENTRIES) for part in codes), strict=True):
        left.index_add_(0, place[row], -value.double()[:, None] * decoder[latent])
    return left.square().sum(1)


def _some(codes: Active, chosen: Bool[Tensor, " f"], rows: Bool[Tensor, " n"]) -> tuple[Tensor, Tensor, Tensor]:
    kept = chosen[codes.latent] & rows[codes.row]
    return codes.row[kept], codes.latent[kept], codes.value[kept]
