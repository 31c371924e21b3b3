"""The pass of ReLU, JumpReLU and Gated: their losses by autograd, some rows at a time, so that memory stays bounded."""

from collections.abc import Callable
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.auxk import Revival, revive
from linrep.sae.config import Gated, JumpReLU, ReLU
from linrep.sae.losses import Terms, gated_loss, jumprelu_loss, l0_penalty, relu_loss
from linrep.sae.passes import Gradients, Pass, Weights
from linrep.sae.reduce import Reducer
from linrep.sae.select import Encoder

Dense = ReLU | JumpReLU | Gated


def sees_centred(activation: object) -> bool:
    """Whether the encoder sees x - b_dec; ReLU, as in the paper, and JumpReLU see x itself."""
    return not isinstance(activation, ReLU | JumpReLU)


def dense_pass(
    weights: Weights,
    x: Float[Tensor, "n d"],
    activation: Dense,
    room: Float[Tensor, "r f"],
    reducer: Reducer,
    warmth: float = 1.0,
    revival: Revival | None = None,
) -> Pass:
    """Loss and gradients of a batch.

    Args:
        weights: The dictionary.
        x: Inputs.
        activation: The architecture.
        room: Scratch; an eighth of its rows are worked on at once, since autograd keeps several tensors of their size. In
            bfloat16 the products run in that format, by autocast; weights, thresholds and gradients keep their own.
        reducer: L0 is the mean over all workers.
        warmth: Share of the penalty's weight that counts by now.
        revival: Dead latents, and how they are taught.
    """
    loss, of_batch = _loss(weights, x, activation, room, reducer, warmth)
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    pieces = x.split(max(1, len(room) // 8))
    residuals, penalty, n_active = [], x.new_zeros(()), []
    fired = torch.zeros_like(weights["b_enc"], dtype=torch.bool)
    reduced = torch.autocast(x.device.type, torch.bfloat16, enabled=room.dtype == torch.bfloat16)
    for piece in pieces:
        with reduced:
            terms = loss(leaves, piece)
        (terms.total / len(x)).backward()
        residuals.append(terms.residual.detach())
        penalty += terms.penalty.detach() / len(x)
        n_active.append(terms.active.sum(1))
        fired |= terms.active.any(0)
    residual = torch.cat(residuals)
    seen = x - weights["b_dec"] if sees_centred(activation) else x
    auxiliary, taught = revive(weights, seen, residual, revival, room)
    grads = {name: leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for name, leaf in leaves.items()}
    encoder, decoder = grads.pop("encoder"), grads.pop("decoder")
    taught.add_to(0, len(encoder), encoder, decoder)
    if taught.back is not None:
        grads["b_enc"].index_add_(0, taught.dead, taught.back.bias)
        if sees_centred(activation):
            grads["b_dec"] -= taught.back.bias @ weights["encoder"][taught.dead]
    gradients = Gradients(grads, lambda first, last: (encoder[first:last], decoder[first:last]))
    return Pass(residual, torch.cat(n_active), fired, gradients, penalty if of_batch is None else of_batch, auxiliary)


def _loss(
    weights: Weights, x: Tensor, activation: Dense, room: Tensor, reducer: Reducer, warmth: float
) -> tuple[Callable[[Weights, Tensor], Terms], Float[Tensor, ""] | None]:
    """The loss of a piece of the batch, and the penalty of the whole batch where it is not the sum over pieces."""
    match activation:
        case ReLU(l1=l1):
            return (lambda w, piece: relu_loss(w, piece, warmth * l1)), None
        case Gated(l1=l1):
            return (lambda w, piece: gated_loss(w, piece, warmth * l1)), None
        case JumpReLU():
            scale = warmth * activation.weight * x.shape[1]
            penalty, push = l0_penalty(mean_l0(weights, x, room, reducer).to(x.dtype), activation.target_l0, scale)
            return (lambda w, piece: jumprelu_loss(w, piece, push, activation.bandwidth)), penalty
        case _:
            assert_never(activation)


def mean_l0(weights: Weights, x: Float[Tensor, "n d"], room: Float[Tensor, "r f"], reducer: Reducer) -> Float[Tensor, ""]:
    """Active latents of a JumpReLU, mean over the rows of all workers."""
    count = torch.tensor([0, len(x)], dtype=torch.float64, device=x.device)  # float32 counts to 2**24 only
    for _, pre in Encoder(weights["encoder"], weights["b_enc"], None, room).compared(x):
        count[0] += (pre > weights["threshold"]).sum()
    reducer.sum_([count])
    return count[0] / count[1]
