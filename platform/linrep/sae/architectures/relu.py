"""ReLU with an L1 penalty, the architecture of the paper."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.architecture import Reader, Step, assembled
from linrep.sae.config import ReLU
from linrep.sae.dense import Terms, crowded, dense_pass
from linrep.sae.layouts import linear, read_linear, read_straight, straight
from linrep.sae.over_workers import rebuilt
from linrep.sae.passes import Pass, Weights
from linrep.sae.sae import Sae, Written, codes_by_pieces
from linrep.sae.select import Codes
from linrep.sae.settings import Settings
from linrep.sae.tensors import Weights as SavedWeights
from linrep.workers import ALONE, Workers


@dataclass(frozen=True)
class Rectify:
    """Latents above zero are active."""

    kind: Literal["relu"] = field(default="relu", init=False)
    saelens_name: ClassVar[str] = "standard"

    @property
    def n_active(self) -> None:
        """Differs from row to row."""

    def encode(self, sae: Sae, seen: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """max(pre, 0)."""
        return (seen @ sae.encoder.t() + sae.b_enc).relu()

    def codes(self, sae: Sae, seen: Float[Tensor, "n d"], room: Float[Tensor, "r f"]) -> Codes:
        """From dense ones."""
        return codes_by_pieces(self, sae, seen, room)

    def over(self, factor: float) -> "Rectify":
        """Zero stays zero."""
        return self

    def times(self, norms: Float[Tensor, " f"]) -> "Rectify":
        """Zero stays zero."""
        return self

    def shifted(self, shift: Float[Tensor, " f"]) -> "Rectify":
        """The encoder's bias has taken it up."""
        return self

    def saelens(self, sae: Sae) -> Written:
        """As `standard`."""
        return Written("standard", straight(sae))

    @classmethod
    def read_saelens(cls, weights: SavedWeights, settings: Settings) -> Sae:
        """From `standard`."""
        return Sae(*read_straight(weights), cls(), sees_centred=True)

    def dictionary_learning(self, sae: Sae) -> Written:
        """As AutoEncoder. Its loader rescales decoder rows to norm 1 and so changes latents, unless they have it already."""
        return Written("AutoEncoder", linear(sae.with_unit_decoder().seeing(centred=True), "encoder.bias", "bias"))


def _read(weights: SavedWeights, trainer: Settings) -> Sae:
    return Sae(*read_linear(weights, "encoder.bias", "bias"), Rectify(), sees_centred=True)


def _read_new(weights: SavedWeights, trainer: Settings) -> Sae:
    return Sae(*read_linear(weights, "encoder.bias", "decoder.bias"), Rectify(), sees_centred=False)


@dataclass(frozen=True)
class ReLUTraining:
    """How it is trained and saved."""

    numbers: ReLU
    derived: ClassVar[tuple[str, ...]] = ()
    common: ClassVar[tuple[str, ...] | None] = ("b_dec",)
    dictionary_learning: ClassVar[Mapping[str, Reader]] = {"AutoEncoder": _read, "AutoEncoderNew": _read_new}

    def first(self, weights: Weights, sample: Float[Tensor, "n d"], n_latents: int) -> Weights:
        """A smaller encoder, and the bias of one that sees x itself."""
        weights = crowded(weights, n_latents)
        return weights | {"b_enc": -weights["encoder"] @ weights["b_dec"]}

    def pass_over(self, weights: Weights, x: Float[Tensor, "n d"], step: Step) -> Pass:
        """By autograd."""
        return dense_pass(
            weights, x, lambda w, piece: relu_loss(w, piece, step.warmth * self.numbers.l1, step.workers), step, centred=False
        )

    def settle(self, weights: Weights) -> None:
        """Weights may be anything."""

    def sae(self, weights: Weights, threshold: Float[Tensor, ""], unit: bool) -> Sae:
        """Its encoder sees x itself, as in the paper."""
        return assembled(weights, Rectify(), centred=False, unit=unit)


def relu_loss(weights: Weights, x: Float[Tensor, "n d"], l1: float, workers: Workers = ALONE) -> Terms:
    """|x' - x|^2 + l1 sum_i f_i |D_i|; the encoder sees x itself.

    Source: Rajaram et al., "Line of Sight", 2025, after Conerly et al., "Update on how we train SAEs", 2024.
    """
    z = torch.addmm(weights["b_enc"], x, weights["encoder"].t()).relu()
    residual = rebuilt(z, weights["decoder"], weights["b_dec"], workers) - x
    penalty = l1 * (z @ weights["decoder"].norm(dim=1)).sum()
    return Terms(residual, penalty, x.new_zeros(()), z.detach() > 0)
