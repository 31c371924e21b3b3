"""Matching pursuit: latents are chosen one after the other, each from what those before it have left over.

The latent whose decoder row points most along what is left joins with its projection, which is then taken away. So a latent may
depend on another: of two rows that lie close together one is chosen, and the other only for what the first did not explain.
Encoder and decoder are one matrix. A step costs k products of the encoder's size instead of one.

Source: Costa et al., "From flat to hierarchical: extracting sparse representations with matching pursuit", 2025 (MP-SAE), with k
steps and without a limit on the residual. AuxK, which the paper does not have, shows dead latents what pursuit leaves over.
Shabalin & Paulo, "Matching pursuit SAEs are less interpretable than regular SAEs", 2025, is the other side of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from linrep.errors import FormatError
from linrep.sae.architecture import Reader, Step
from linrep.sae.auxk import revive
from linrep.sae.config import MatchingPursuit
from linrep.sae.ops import gather_sum
from linrep.sae.passes import Gradients, Pass, Weights
from linrep.sae.sae import Sae, Written, codes_by_pieces
from linrep.sae.select import Codes
from linrep.sae.settings import Settings
from linrep.sae.tensors import Weights as SavedWeights

UNIT = 1e-3
"""How far a decoder row's norm may be from 1 where a rescaling to norm 1 is asked for."""
TRACE_BYTES = 64 * 2**20
"""Residuals and their gradients that the way back holds at once."""


@dataclass(frozen=True)
class Pursuit:
    """At each of some steps the latent joins whose decoder row points most along what is left.

    Attributes:
        steps: Steps at most; a latent that is chosen again grows.
        least: A row stops once the norm of what is left is below this; 0 for never.
        stops_on_repeat: A row stops once a step adds no new latent.
    """

    steps: int
    least: float = 0.0
    stops_on_repeat: bool = False
    kind: Literal["matching_pursuit"] = field(default="matching_pursuit", init=False)
    saelens_name: ClassVar[str] = "matching_pursuit"

    @property
    def n_active(self) -> None:
        """At most `steps`, fewer where a latent is chosen again."""

    def encode(self, sae: Sae, seen: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """What each latent took, over all steps."""
        room = seen.new_empty(max(1, len(seen)), sae.n_latents)
        latents, values, _ = pursue(self, sae.decoder, seen, room)
        return torch.zeros_like(room[: len(seen)]).scatter_add_(1, latents, values)

    def codes(self, sae: Sae, seen: Float[Tensor, "n d"], room: Float[Tensor, "r f"]) -> Codes:
        """From dense ones, in which a latent that was chosen twice is one entry."""
        return codes_by_pieces(self, sae, seen, room)

    def over(self, factor: float) -> "Pursuit":
        """The limit on what is left shrinks with the inputs."""
        return Pursuit(self.steps, self.least / factor, self.stops_on_repeat)

    def times(self, norms: Float[Tensor, " f"]) -> "Pursuit":
        """The same, of rows that have norm 1.

        Raises:
            FormatError: They do not; with rows of another norm it computes other projections.
        """
        if bool(((norms - 1).abs() > UNIT).any()):
            raise FormatError(
                f"matching pursuit projects on decoder rows as they are; their norms reach {float(norms.max()):.3g}"
            )
        return self

    def shifted(self, shift: Float[Tensor, " f"]) -> "Pursuit":
        """What is left begins as x - b_dec.

        Raises:
            FormatError: Always.
        """
        raise FormatError("matching pursuit has no encoder's bias that could take b_dec up: it must see x - b_dec")

    def saelens(self, sae: Sae) -> Written:
        """As `matching_pursuit`, which has no encoder."""
        settings = {
            "residual_threshold": self.least,
            "max_iterations": self.steps,
            "stop_on_duplicate_support": self.stops_on_repeat,
        }
        return Written("matching_pursuit", {"W_dec": sae.decoder, "b_dec": sae.b_dec}, settings)

    @classmethod
    def read_saelens(cls, weights: SavedWeights, settings: Settings) -> Sae:
        """From `matching_pursuit`; fields that are left out have SAELens' defaults."""
        (decoder,), (b_dec,) = weights.take("W_dec", axes=("f", "d")), weights.take("b_dec", axes=("d",))
        steps, least = settings.number("max_iterations", least=1), settings.raw("residual_threshold", 1e-2)
        if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least < math.inf:
            settings.refuse("residual_threshold", "must be a number of 0 at least")
        if not settings.flag("apply_b_dec_to_input", True):
            b_dec = torch.zeros_like(b_dec)  # it then adds none to its output either
        rule = cls(decoder.shape[1] if steps is None else steps, float(least), settings.flag("stop_on_duplicate_support", True))
        return Sae(decoder, decoder.new_zeros(len(decoder)), decoder, b_dec, rule, sees_centred=True)

    def dictionary_learning(self, sae: Sae) -> None:
        """It has no class for this."""


def pursue(
    rule: Pursuit, decoder: Float[Tensor, "f d"], seen: Float[Tensor, "n d"], room: Float[Tensor, "r f"]
) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"], Float[Tensor, "n d"]]:
    """The latent of each row at each step, what it took, and what is left in the end.

    Args:
        rule: How many steps, and when a row stops; it then takes zeros.
        decoder: One row a latent.
        seen: What to explain.
        room: Scratch for projections; in bfloat16 only the choice is made in that format.
    """
    transposed, left = decoder.to(room.dtype).t(), seen.clone()
    latents, values = [], []
    done = torch.zeros(len(seen), dtype=torch.bool, device=seen.device)
    for _ in range(rule.steps):
        best = torch.empty(len(seen), dtype=torch.int64, device=seen.device)
        for start in range(0, len(seen), len(room)):
            rows = slice(start, min(start + len(room), len(seen)))
            best[rows] = torch.mm(left[rows].to(room.dtype), transposed, out=room[: rows.stop - start]).argmax(1)
        chosen = decoder[best]
        taken = torch.linalg.vecdot(left, chosen).relu_().masked_fill_(done, 0.0)
        left.addcmul_(taken[:, None], chosen, value=-1)
        if rule.stops_on_repeat:
            again = [(before == best) & (took > 0) for before, took in zip(latents, values, strict=True)]
            done |= (taken <= 0) | (torch.stack(again).any(0) if again else done)
        if rule.least > 0:
            done |= left.norm(dim=1) < rule.least
        latents.append(best)
        values.append(taken)
    return torch.stack(latents, 1), torch.stack(values, 1), left


@dataclass(frozen=True)
class MatchingPursuitTraining:
    """How it is trained and saved."""

    numbers: MatchingPursuit
    derived: ClassVar[tuple[str, ...]] = ()
    common: ClassVar[tuple[str, ...] | None] = None
    dictionary_learning: ClassVar[Mapping[str, Reader]] = {}

    def first(self, weights: Weights, sample: Float[Tensor, "n d"], n_latents: int) -> Weights:
        """Without an encoder: the decoder is both."""
        return {"decoder": weights["decoder"], "b_dec": weights["b_dec"]}

    def pass_over(self, weights: Weights, x: Float[Tensor, "n d"], step: Step) -> Pass:
        """Pursuit and the way back through its steps; choices have no gradient."""
        decoder = weights["decoder"]
        latents, values, left = pursue(Pursuit(self.numbers.k), decoder, x - weights["b_dec"], step.room)
        grad, pull = _way_back(decoder, latents, values, left)
        tied = {"encoder": decoder, "b_enc": decoder.new_zeros(len(decoder)), "decoder": decoder}
        auxiliary, taught = revive(tied, left, -left, step.revival, step.room)
        taught.add_to(0, len(decoder), grad, grad)
        firing = torch.where(values > 0, latents, -1).sort(1).values
        new = torch.cat([firing[:, :1] >= 0, firing[:, 1:] != firing[:, :-1]], dim=1) & (firing >= 0)
        fired = torch.zeros(len(decoder) + 1, dtype=torch.bool, device=x.device).index_fill_(0, firing.flatten() + 1, True)[1:]
        gradients = Gradients({"b_dec": -pull.sum(0)}, lambda first, last: {"decoder": grad[first:last]}, len(decoder))
        return Pass(-left, new.sum(1), fired, gradients, x.new_zeros(()), auxiliary)

    def settle(self, weights: Weights) -> None:
        """The trainer keeps decoder rows at norm 1."""

    def sae(self, weights: Weights, threshold: Float[Tensor, ""], unit: bool) -> Sae:
        """Its encoder is its decoder."""
        decoder = weights["decoder"]
        none = decoder.new_zeros(len(decoder))
        return Sae(decoder, none, decoder, weights["b_dec"], Pursuit(self.numbers.k), sees_centred=True)


def _way_back(
    decoder: Float[Tensor, "f d"], latents: Int[Tensor, "n k"], values: Float[Tensor, "n k"], left: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "f d"], Float[Tensor, "n d"]]:
    """Gradients of the mean of |left|^2 over rows, of the decoder and of each row's input.

    A step is left' = left - c D_j with c = left . D_j where that is positive. So with g' the gradient of left', and
    a = g' . D_j, the gradient of left is g' - a D_j and that of D_j gets -c g' - a left. The residual before a step is the
    one after it plus what the step took: nothing has to be kept from the way there.
    """
    n, k = latents.shape
    grad, pulls = torch.zeros_like(decoder), []
    size = max(1, TRACE_BYTES // (2 * k * decoder.shape[1] * decoder.element_size()))
    for piece in torch.arange(n, device=left.device).split(size):
        after, pull = left[piece].clone(), left[piece] * (2 / n)
        table, along = [], []
        for at in reversed(range(k)):
            chosen, took = decoder[latents[piece, at]], values[piece, at]
            back = torch.linalg.vecdot(pull, chosen) * (took > 0)
            before = after.addcmul(took[:, None], chosen)
            table += [pull, before]
            along += [-took, -back]
            pull, after = pull.addcmul(back[:, None], chosen, value=-1), before
        pulls.append(pull)
        # Sums by latent in a fixed order, without atomics: the same bits every time.
        order_of = latents[piece].flip(1).t().repeat_interleave(2, dim=0).flatten()
        sorted_, order = order_of.sort(stable=True)
        offsets = torch.searchsorted(sorted_, torch.arange(len(decoder) + 1, device=left.device))
        grad += gather_sum(torch.cat(table), order, torch.cat(along)[order], offsets)
    return grad, torch.cat(pulls)
