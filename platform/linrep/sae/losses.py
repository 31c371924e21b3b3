"""The losses of the architectures whose gradients are dense: pure functions of weights and a batch, for autograd.

All share one signature (weights, x, their own numbers) and give `Terms`, sums over rows, so that a batch may come in pieces.
Inputs are taken as scaled to a mean norm of sqrt(d).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from linrep.sae.passes import Weights


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


def relu_loss(weights: Weights, x: Float[Tensor, "n d"], l1: float) -> Terms:
    """|x' - x|^2 + l1 sum_i f_i |D_i|; the encoder sees x itself.

    Source: Rajaram et al., "Line of Sight", 2025, after Conerly et al., "Update on how we train SAEs", 2024.
    """
    z = torch.addmm(weights["b_enc"], x, weights["encoder"].t()).relu()
    residual = torch.addmm(weights["b_dec"], z, weights["decoder"]) - x
    penalty = l1 * (z @ weights["decoder"].norm(dim=1)).sum()
    return Terms(residual, penalty, x.new_zeros(()), z.detach() > 0)


def jumprelu_loss(weights: Weights, x: Float[Tensor, "n d"], push: Float[Tensor, ""], bandwidth: float) -> Terms:
    """|x' - x|^2 + push * (number of active latents); the encoder sees x itself.

    Args:
        weights: The dictionary.
        x: Inputs.
        push: Slope of the penalty over L0 at the batch's L0, see `l0_penalty`: linear in L0, the loss is a sum over rows.
        bandwidth: Width of the window in which thresholds have a gradient.

    Source: Rajamanoharan et al., "Jumping ahead", 2024.
    """
    pre = torch.addmm(weights["b_enc"], x, weights["encoder"].t())
    z, active = _Jump.apply(pre, weights["threshold"], bandwidth)
    residual = torch.addmm(weights["b_dec"], z, weights["decoder"]) - x
    return Terms(residual, push * active.sum(), x.new_zeros(()), active.detach() > 0)


def l0_penalty(l0: Float[Tensor, ""], target: float, weight: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """weight * (L0 / target - 1)^2, and its derivative by L0."""
    off = l0 / target - 1
    return weight * off.square(), 2 * weight * off / target


def gated_loss(weights: Weights, x: Float[Tensor, "n d"], l1: float) -> Terms:
    """|x' - x|^2 + l1 sum_i ReLU(gate_i) |D_i| + |x'(ReLU(gate)) - x|^2, the last with the decoder held fixed.

    Source: Rajamanoharan et al., "Improving dictionary learning with gated sparse autoencoders", 2024.
    """
    projected = (x - weights["b_dec"]) @ weights["encoder"].t()
    gate = projected + weights["b_enc"]
    z = (gate > 0) * (projected * weights["r_mag"].exp() + weights["b_mag"]).relu()
    residual = torch.addmm(weights["b_dec"], z, weights["decoder"]) - x
    opened = gate.relu()
    penalty = l1 * (opened @ weights["decoder"].norm(dim=1)).sum()
    alone = torch.addmm(weights["b_dec"].detach(), opened, weights["decoder"].detach()) - x
    return Terms(residual, penalty, alone.square().sum(), z.detach() > 0)


class _Jump(torch.autograd.Function):
    """(pre, threshold) -> pre where it is above the threshold, and 1 there; straight-through gradients for the threshold.

    A threshold moves like the edge of a box of width `bandwidth`: the value loses threshold / bandwidth and the count
    1 / bandwidth for each pre-activation inside the box.
    """

    @staticmethod
    def forward(ctx, pre, threshold, bandwidth):  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        above = pre > threshold
        return pre * above, above.to(threshold.dtype)  # under autocast pre is in bfloat16, which counts to 256 only

    @staticmethod
    def backward(ctx, grad_value, grad_count):  # pyright: ignore[reportIncompatibleMethodOverride]
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < ctx.bandwidth / 2
        grad_threshold = -(near * (grad_value * threshold + grad_count)).sum(0) / ctx.bandwidth
        return grad_value * (pre > threshold), grad_threshold, None
