"""JumpReLU: a learned threshold for each latent, and a penalty that aims at a number of active latents.

Source: Rajamanoharan et al., "Jumping ahead", 2024.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.architecture import Reader, Step, assembled
from linrep.sae.config import JumpReLU
from linrep.sae.dense import Terms, crowded, dense_pass
from linrep.sae.layouts import read_straight, straight
from linrep.sae.over_workers import rebuilt
from linrep.sae.passes import Pass, Weights
from linrep.sae.sae import Sae, Written, codes_by_pieces
from linrep.sae.select import Codes, Encoder
from linrep.sae.settings import Settings
from linrep.sae.tensors import Weights as SavedWeights
from linrep.workers import ALONE, Workers


@dataclass(frozen=True)
class Above:
    """Latents above their threshold, and above zero, are active; BatchTopK and Matryoshka become this."""

    threshold: Float[Tensor, " f"]
    kind: Literal["jumprelu"] = field(default="jumprelu", init=False)
    saelens_name: ClassVar[str] = "jumprelu"

    @property
    def n_active(self) -> None:
        """Differs from row to row."""

    def encode(self, sae: Sae, seen: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """pre where it is above both."""
        pre = seen @ sae.encoder.t() + sae.b_enc
        return pre * ((pre > self.threshold) & (pre > 0))

    def codes(self, sae: Sae, seen: Float[Tensor, "n d"], room: Float[Tensor, "r f"]) -> Codes:
        """From dense ones."""
        return codes_by_pieces(self, sae, seen, room)

    def over(self, factor: float) -> "Above":
        """Thresholds shrink with the latents."""
        return Above(self.threshold / factor)

    def times(self, norms: Float[Tensor, " f"]) -> "Above":
        """Thresholds grow with the latents."""
        return Above(self.threshold * norms)

    def shifted(self, shift: Float[Tensor, " f"]) -> "Above":
        """The encoder's bias has taken it up."""
        return self

    def saelens(self, sae: Sae) -> Written:
        """As `jumprelu`."""
        return Written("jumprelu", straight(sae) | {"threshold": self.threshold})

    @classmethod
    def read_saelens(cls, weights: SavedWeights, settings: Settings) -> Sae:
        """From `jumprelu`."""
        return Sae(*read_straight(weights), cls(*weights.take("threshold", axes=("f",))), sees_centred=True)

    def dictionary_learning(self, sae: Sae) -> Written:
        """As JumpReluAutoEncoder, which sees x itself."""
        return Written("JumpReluAutoEncoder", straight(sae.seeing(centred=False)) | {"threshold": self.threshold})


def _read(weights: SavedWeights, trainer: Settings) -> Sae:
    return Sae(*read_straight(weights), Above(*weights.take("threshold", axes=("f",))), sees_centred=False)


@dataclass(frozen=True)
class JumpReLUTraining:
    """How it is trained and saved."""

    numbers: JumpReLU
    derived: ClassVar[tuple[str, ...]] = ()
    common: ClassVar[tuple[str, ...] | None] = ("b_dec",)
    dictionary_learning: ClassVar[Mapping[str, Reader]] = {"JumpReluAutoEncoder": _read}

    def first(self, weights: Weights, sample: Float[Tensor, "n d"], n_latents: int) -> Weights:
        """A smaller encoder, the bias of one that sees x itself, and thresholds."""
        weights = crowded(weights, n_latents)
        bias = -weights["encoder"] @ weights["b_dec"]
        return weights | {"b_enc": bias, "threshold": torch.full_like(bias, self.numbers.threshold)}

    def pass_over(self, weights: Weights, x: Float[Tensor, "n d"], step: Step) -> Pass:
        """By autograd; the penalty is one number of the whole batch, and the loss of a piece has its slope."""
        scale = step.warmth * self.numbers.weight * x.shape[1]
        penalty, push = l0_penalty(mean_l0(weights, x, step.room, step.workers).to(x.dtype), self.numbers.target_l0, scale)

        def loss(w: Weights, piece: Tensor) -> Terms:
            return jumprelu_loss(w, piece, push, self.numbers.bandwidth, step.workers)

        return dense_pass(weights, x, loss, step, centred=False, penalty=penalty)

    def settle(self, weights: Weights) -> None:
        """Thresholds stay at or above zero."""
        weights["threshold"].clamp_min_(0.0)

    def sae(self, weights: Weights, threshold: Float[Tensor, ""], unit: bool) -> Sae:
        """With its learned thresholds; its encoder sees x itself."""
        return assembled(weights, Above(weights["threshold"]), centred=False, unit=unit)


def jumprelu_loss(
    weights: Weights, x: Float[Tensor, "n d"], push: Float[Tensor, ""], bandwidth: float, workers: Workers = ALONE
) -> Terms:
    """|x' - x|^2 + push * (number of active latents); the encoder sees x itself.

    Args:
        weights: The SAE.
        x: Inputs.
        push: Slope of the penalty over L0 at the batch's L0, see `l0_penalty`: linear in L0, the loss is a sum over rows.
        bandwidth: Width of the window in which thresholds have a gradient.
        workers: Who has the other latents.

    Source: Rajamanoharan et al., "Jumping ahead", 2024.
    """
    pre = torch.addmm(weights["b_enc"], x, weights["encoder"].t())
    z, active = _Jump.apply(pre, weights["threshold"], bandwidth)
    residual = rebuilt(z, weights["decoder"], weights["b_dec"], workers) - x
    return Terms(residual, push * active.sum(), x.new_zeros(()), active.detach() > 0)


def l0_penalty(l0: Float[Tensor, ""], target: float, weight: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """weight * (L0 / target - 1)^2, and its derivative by L0."""
    off = l0 / target - 1
    return weight * off.square(), 2 * weight * off / target


def mean_l0(weights: Weights, x: Float[Tensor, "n d"], room: Float[Tensor, "r f"], workers: Workers) -> Float[Tensor, ""]:
    """Active latents of a JumpReLU, of all workers, mean over rows."""
    count = x.new_zeros((), dtype=torch.float64)  # float32 counts to 2**24 only
    for _, pre in Encoder(weights["encoder"], weights["b_enc"], None, room).compared(x):
        count += (pre > weights["threshold"]).sum()
    workers.sum_([count])
    return count / len(x)


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
