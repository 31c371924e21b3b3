"""Gated: one path decides which latents are active, another how much.

Source: Rajamanoharan et al., "Improving dictionary learning with gated sparse autoencoders", 2024.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.architecture import Reader, Step, assembled
from linrep.sae.config import Gated
from linrep.sae.dense import Terms, crowded, dense_pass
from linrep.sae.layouts import linear, read_linear, read_straight, straight
from linrep.sae.over_workers import rebuilt, seen_by_all
from linrep.sae.passes import Pass, Weights
from linrep.sae.sae import Sae, Written, codes_by_pieces
from linrep.sae.select import Codes
from linrep.sae.settings import Settings
from linrep.sae.tensors import Weights as SavedWeights
from linrep.workers import ALONE, Workers


@dataclass(frozen=True)
class Gate:
    """Latents whose gate is positive are active, by the size of another path; the SAE's b_enc is the gates' bias."""

    r_mag: Float[Tensor, " f"]
    b_mag: Float[Tensor, " f"]
    kind: Literal["gated"] = field(default="gated", init=False)
    saelens_name: ClassVar[str] = "gated"

    @property
    def n_active(self) -> None:
        """Differs from row to row."""

    def encode(self, sae: Sae, seen: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """max(exp(r_mag) projection + b_mag, 0) where the gate is open."""
        projected = seen @ sae.encoder.t()
        return (projected + sae.b_enc > 0) * (projected * self.r_mag.exp() + self.b_mag).relu()

    def codes(self, sae: Sae, seen: Float[Tensor, "n d"], room: Float[Tensor, "r f"]) -> Codes:
        """From dense ones."""
        return codes_by_pieces(self, sae, seen, room)

    def over(self, factor: float) -> "Gate":
        """The second bias shrinks with the latents, as the first."""
        return Gate(self.r_mag, self.b_mag / factor)

    def times(self, norms: Float[Tensor, " f"]) -> "Gate":
        """The second bias grows with the latents, as the first."""
        return Gate(self.r_mag, self.b_mag * norms)

    def shifted(self, shift: Float[Tensor, " f"]) -> "Gate":
        """The second path has a factor before its bias."""
        return Gate(self.r_mag, self.b_mag + self.r_mag.exp() * shift)

    def saelens(self, sae: Sae) -> Written:
        """As `gated`."""
        return Written("gated", straight(sae, "b_gate") | {"r_mag": self.r_mag, "b_mag": self.b_mag})

    @classmethod
    def read_saelens(cls, weights: SavedWeights, settings: Settings) -> Sae:
        """From `gated`."""
        return Sae(*read_straight(weights, "b_gate"), cls(*weights.take("r_mag", "b_mag", axes=("f",))), sees_centred=True)

    def dictionary_learning(self, sae: Sae) -> Written:
        """As GatedAutoEncoder."""
        sae = sae.seeing(centred=True)
        assert isinstance(sae.rule, Gate)
        paths = {"mag_bias": sae.rule.b_mag, "r_mag": sae.rule.r_mag}
        return Written("GatedAutoEncoder", linear(sae, "gate_bias", "decoder_bias") | paths)


def _read(weights: SavedWeights, trainer: Settings) -> Sae:
    four = read_linear(weights, "gate_bias", "decoder_bias")
    return Sae(*four, Gate(*weights.take("r_mag", "mag_bias", axes=("f",))), sees_centred=True)


@dataclass(frozen=True)
class GatedTraining:
    """How it is trained and saved."""

    numbers: Gated
    derived: ClassVar[tuple[str, ...]] = ()
    common: ClassVar[tuple[str, ...] | None] = ("b_dec",)
    dictionary_learning: ClassVar[Mapping[str, Reader]] = {"GatedAutoEncoder": _read}

    def first(self, weights: Weights, sample: Float[Tensor, "n d"], n_latents: int) -> Weights:
        """A smaller encoder, and a second path that equals the first."""
        more = {name: torch.zeros_like(weights["b_enc"]) for name in ("r_mag", "b_mag")}
        return crowded(weights, n_latents) | more

    def pass_over(self, weights: Weights, x: Float[Tensor, "n d"], step: Step) -> Pass:
        """By autograd."""
        return dense_pass(
            weights, x, lambda w, piece: gated_loss(w, piece, step.warmth * self.numbers.l1, step.workers), step, centred=True
        )

    def settle(self, weights: Weights) -> None:
        """Weights may be anything."""

    def sae(self, weights: Weights, threshold: Float[Tensor, ""], unit: bool) -> Sae:
        """With both paths."""
        return assembled(weights, Gate(weights["r_mag"], weights["b_mag"]), centred=True, unit=unit)


def gated_loss(weights: Weights, x: Float[Tensor, "n d"], l1: float, workers: Workers = ALONE) -> Terms:
    """|x' - x|^2 + l1 sum_i ReLU(gate_i) |D_i| + |x'(ReLU(gate)) - x|^2, the last with the decoder held fixed.

    Source: Rajamanoharan et al., "Improving dictionary learning with gated sparse autoencoders", 2024.
    """
    projected = (x - seen_by_all(weights["b_dec"], workers)) @ weights["encoder"].t()
    gate = projected + weights["b_enc"]
    z = (gate > 0) * (projected * weights["r_mag"].exp() + weights["b_mag"]).relu()
    residual = rebuilt(z, weights["decoder"], weights["b_dec"], workers) - x
    opened = gate.relu()
    penalty = l1 * (opened @ weights["decoder"].norm(dim=1)).sum()
    alone = rebuilt(opened, weights["decoder"].detach(), weights["b_dec"].detach(), workers) - x
    return Terms(residual, penalty, alone.square().sum(), z.detach() > 0)
