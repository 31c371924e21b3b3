"""The latents of an SAE with their explanations: what is chosen on training images, and what is seen on held-out ones."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.encoder import Active, Encoder, active
from linrep.sae.panel.agreement import mcc
from linrep.sae.panel.data import PanelData, Values
from linrep.sae.panel.firing import fires, thresholds


@dataclass(frozen=True)
class Explained:
    """An SAE whose living latents are each explained by one attribute value.

    Attributes:
        decoder: What a unit of each latent writes.
        means: Mean activation of each latent on training tokens, silent ones included.
        energy: Squared length of what each latent writes, summed over training tokens.
        explanation: Number of the value that each latent agrees with best on training images; -1 where it never fires.
        train_codes: Activations of the training tokens.
        train_fires: Whether each latent fires on each training image, see `linrep.sae.panel.firing`.
        held_codes: Activations of the held-out tokens.
        held_fires: Whether each fires on each held-out image, above the same threshold.
    """

    decoder: Float[Tensor, "f d"]
    means: Float[Tensor, " f"]
    energy: Float[Tensor, " f"]
    explanation: Int[Tensor, " f"]
    train_codes: Active
    train_fires: Bool[np.ndarray, "s f"]
    held_codes: Active
    held_fires: Bool[np.ndarray, "t f"]

    @property
    def weight(self) -> Float[Tensor, " f"]:
        """Share of the energy of each latent: a mean with these weights is the mean over latents drawn by energy."""
        return self.energy / self.energy.sum().clamp_min(torch.finfo(torch.float64).tiny)


def explained(encoder: Encoder, decoder: Float[Tensor, "f d"], data: PanelData) -> Explained:
    """Encode all tokens, find thresholds and explanations on the training images, and apply both to the held-out ones.

    Args:
        encoder: Of an SAE; it takes raw rows.
        decoder: What a unit of each latent writes.
        data: The tokens and the values.
    """
    train, held = active(encoder, data.train.x), active(encoder, data.held.x)
    f, n = encoder.n_latents, max(len(data.train.x), 1)
    at_least = thresholds(train, f)
    sums = torch.zeros(f, dtype=torch.float64).index_add_(0, train.latent, train.value.double())
    squares = torch.zeros(f, dtype=torch.float64).index_add_(0, train.latent, train.value.double().square())
    on_train = fires(train, data.train.image, at_least, data.train.n_images)
    return Explained(
        decoder=decoder.float(),
        means=sums / n,
        energy=squares * decoder.double().square().sum(1),
        explanation=best_values(on_train, data.train_values),
        train_codes=train,
        train_fires=on_train,
        held_codes=held,
        held_fires=fires(held, data.held.image, at_least, data.held.n_images),
    )


def best_values(fired: Bool[np.ndarray, "s f"], values: Values) -> Int[Tensor, " f"]:
    """For each latent the value that its firing agrees with best, by the Matthews correlation; -1 where it never fires."""
    agrees = agreement(fired, values, np.ones(len(fired)))
    return torch.where(torch.from_numpy(fired.any(0)), agrees.argmax(1), -1)


def agreement(fired: Bool[np.ndarray, "s f"], values: Values, weight: Float[np.ndarray, " s"]) -> Float[Tensor, "f v"]:
    """The Matthews correlation of each latent's firing with each value, over images of some weight at the true rate."""
    return mcc(*counts(torch.from_numpy(fired).float(), values, torch.from_numpy(weight).float()))


def counts(
    fired: Float[Tensor, "s f"], values: Values, weight: Float[Tensor, " s"]
) -> tuple[Float[Tensor, "f v"], Float[Tensor, "f v"], Float[Tensor, "1 v"], Float[Tensor, "1 v"]]:
    """Weight of the images on which a latent fires and a value is true; on which it fires; on which it is true; and of all.

    Only images of which the attribute is known count. Sums of whole numbers below 2^24 are exact in float32.
    """
    true, known = (torch.from_numpy(x).float() * weight[:, None] for x in (values.true, values.known))
    both, said = fired.t() @ true, fired.t() @ known
    return both.double(), said.double(), true.sum(0, keepdim=True).double(), known.sum(0, keepdim=True).double()
