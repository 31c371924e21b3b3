"""The pass of architectures with dense gradients: autograd on some rows at a time, so that memory stays bounded.

A loss is a pure function (weights, rows) -> `Terms`, sums over rows, so that a batch may come in pieces. Inputs are taken as
scaled to a mean norm of sqrt(d).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from linrep.sae.architecture import Step
from linrep.sae.auxk import revive
from linrep.sae.passes import Gradients, Pass, Weights


@dataclass(frozen=True)
class Terms:
    """Losses of n rows, summed.

    Attributes:
        residual: Reconstruction minus input.
        penalty: The sparsity loss, or what has its gradient where it is no sum over rows (JumpReLU).
        guide: A further loss that teaches and is not reported as error (the gates' own reconstruction).
        active: Where a latent is active.
    """

    residual: Float[Tensor, "n d"]
    penalty: Float[Tensor, ""]
    guide: Float[Tensor, ""]
    active: Bool[Tensor, "n f"]

    @property
    def total(self) -> Float[Tensor, ""]:
        """What is differentiated."""
        return self.residual.square().sum() + self.penalty + self.guide


Loss = Callable[[Weights, Tensor], Terms]


def crowded(weights: Weights, n_latents: int) -> Weights:
    """First weights with a smaller encoder, for architectures in which most latents are active at the start.

    Half of f random unit directions together reconstruct an input f / 2d times over; with the encoder smaller by this factor,
    the first reconstruction has the right size.
    """
    d = weights["decoder"].shape[1]
    return weights | {"encoder": weights["encoder"] * min(1.0, 2 * d / n_latents)}


def dense_pass(
    weights: Weights,
    x: Float[Tensor, "n d"],
    loss: Loss,
    step: Step,
    centred: bool,
    penalty: Float[Tensor, ""] | None = None,
) -> Pass:
    """Loss and gradients of a batch.

    Args:
        weights: The SAE.
        x: Inputs.
        loss: Of the rows of a piece; of several workers the penalty is of this one's latents, everything else of all.
        step: Its scratch says how many rows are worked on at once, an eighth of its own, since autograd keeps several tensors
            of their size. Where it is in bfloat16 the products run in that format, by autocast; weights, thresholds and
            gradients keep their own.
        centred: Whether the encoder sees x - b_dec.
        penalty: Of the whole batch, where it is not the sum over pieces.
    """
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    pieces = x.split(max(1, len(step.room) // 8))
    residuals, by_piece, n_active = [], x.new_zeros(()), []
    fired = torch.zeros_like(weights["b_enc"], dtype=torch.bool)
    reduced = torch.autocast(x.device.type, torch.bfloat16, enabled=step.room.dtype == torch.bfloat16)
    for piece in pieces:
        with reduced:
            terms = loss(leaves, piece)
        (terms.total / len(x)).backward()
        residuals.append(terms.residual.detach())
        by_piece += terms.penalty.detach() / len(x)
        n_active.append(terms.active.sum(1))
        fired |= terms.active.any(0)
    residual = torch.cat(residuals)
    seen = x - weights["b_dec"] if centred else x
    auxiliary, taught = revive(weights, seen, residual, step.revival, step.room, step.workers)
    if penalty is None:
        step.workers.sum_([by_piece])
    grads = {name: leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for name, leaf in leaves.items()}
    matrices = {name: grads.pop(name) for name in ("encoder", "decoder")}
    taught.add_to(0, len(fired), **matrices)
    by_encoder = torch.zeros_like(grads["b_dec"])
    if taught.back is not None:
        grads["b_enc"].index_add_(0, taught.dead, taught.back.bias)
        by_encoder = taught.back.bias @ weights["encoder"][taught.dead]
    if centred:
        step.workers.sum_([by_encoder])
        grads["b_dec"] -= by_encoder
    gradients = Gradients(grads, lambda first, last: {name: grad[first:last] for name, grad in matrices.items()}, len(fired))
    return Pass(residual, torch.cat(n_active), fired, gradients, by_piece if penalty is None else penalty, auxiliary)
