"""AuxK: dead latents learn to explain the residual that the living ones leave.

The target is the residual itself, held fixed, and the dead latents' reconstruction has no bias of its own: b_dec is already in
what was subtracted. With fewer dead latents than k the loss shrinks in proportion, so that the last few do not chase noise.

Sources: Gao et al. 2024 (the loss); the proportion is EleutherAI's, in sparsify.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from linrep.sae.passes import Weights
from linrep.sae.select import largest


@dataclass(frozen=True)
class Revival:
    """Who is dead and how they are taught.

    Attributes:
        dead: The dead latents, rising.
        k: Dead latents that take part in each row, at most.
        weight: Of the loss, for k dead latents or more.
    """

    dead: Int[Tensor, " dead"]
    k: int
    weight: float


@dataclass(frozen=True)
class Taught:
    """Gradients of dead latents, to be added to the others'."""

    dead: Int[Tensor, " dead"]
    encoder: Float[Tensor, "dead d"]
    decoder: Float[Tensor, "dead d"]
    bias: Float[Tensor, " dead"]

    def add_to(self, first: int, last: int, encoder: Float[Tensor, "l d"], decoder: Float[Tensor, "l d"]) -> None:
        """Add the rows of latents first..last to the gradients of these."""
        if len(self.dead):
            a, b = torch.searchsorted(self.dead, torch.tensor([first, last], device=self.dead.device)).tolist()
            encoder.index_add_(0, self.dead[a:b] - first, self.encoder[a:b])
            decoder.index_add_(0, self.dead[a:b] - first, self.decoder[a:b])

    def add_along(self, along: Float[Tensor, " f"], decoder: Float[Tensor, "f d"]) -> None:
        """Add the products of decoder rows with their gradients."""
        along.index_add_(0, self.dead, (self.decoder * decoder[self.dead]).sum(1))

    def add_to_bias(self, bias: Float[Tensor, " f"]) -> None:
        """Add the biases' gradients."""
        bias.index_add_(0, self.dead, self.bias)


def revive(
    weights: Weights,
    centred: Float[Tensor, "n d"],
    residual: Float[Tensor, "n d"],
    revival: Revival | None,
    room: Float[Tensor, "r f"],
) -> tuple[Float[Tensor, ""], Taught]:
    """The auxiliary loss, mean over rows, and its gradients.

    Args:
        weights: The dictionary.
        centred: What the encoder sees.
        residual: Reconstruction minus input.
        revival: Who is dead; None for nobody.
        room: Scratch for pre-activations: as many rows as it holds are worked on at once.
    """
    d = centred.shape[1]
    nothing = centred.new_zeros(0, d)
    if revival is None or not len(revival.dead):
        nobody = torch.empty(0, dtype=torch.int64, device=centred.device)
        return centred.new_zeros(()), Taught(nobody, nothing, nothing, centred.new_zeros(0))
    dead, k = revival.dead, min(revival.k, len(revival.dead))
    weight = revival.weight * min(1.0, len(dead) / revival.k)
    encoder, decoder, bias = weights["encoder"][dead], weights["decoder"][dead], weights["b_enc"][dead]
    loss, grads = centred.new_zeros(()), (torch.zeros_like(encoder), torch.zeros_like(decoder), torch.zeros_like(bias))
    step = max(1, room.numel() // (4 * len(dead)))  # pre-activations, values, their gradient and a mask live at once
    for x, left in zip(centred.split(step), residual.split(step), strict=True):
        z = _k_largest(torch.addmm(bias, x, encoder.t()), k)
        off = z @ decoder + left  # the target is -residual
        loss += weight * off.square().sum() / len(centred)
        off *= 2 * weight / len(centred)
        grad_z = (off @ decoder.t()).mul_(z > 0)
        grads[0].addmm_(grad_z.t(), x)
        grads[1].addmm_(z.t(), off)
        grads[2].add_(grad_z.sum(0))
    return loss, Taught(dead, *grads)


def _k_largest(pre: Float[Tensor, "n dead"], k: int) -> Float[Tensor, "n dead"]:
    """The k largest of each row where they are positive, zeros elsewhere."""
    if k == pre.shape[1]:
        return pre.relu_()
    values, at = largest(pre, k)
    return torch.zeros_like(pre).scatter_(1, at, values.relu_())
