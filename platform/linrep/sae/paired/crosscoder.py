"""A crosscoder over the two modalities of a pair: shared latents, with a decoder row for each modality, and private ones.

It is an SAE of both rows side by side, of width 2 d. A private latent sees and writes one half; the other half of its rows stays
0. The largest activations of a pair are active, at most k of them in a row, as in an SAE of rows, and 1.5 k in a pair: a shared
latent counts once. So there is something to win by sharing. A pair that shares nothing has to do with three quarters of that.

Sources: Lindsey et al., "Sparse crosscoders for cross-layer features and model diffing", 2024; Jiralerspong & Bricken, arXiv
    2602.11729, 2026 (blocks of latents that are one side's alone). Both limits are of this project.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.errors import FormatError
from linrep.sae.architecture import Reader, Step
from linrep.sae.ops import offsets_of
from linrep.sae.passes import Pass, Weights
from linrep.sae.sae import Sae, Written
from linrep.sae.select import Codes, Encoder
from linrep.sae.settings import Settings
from linrep.sae.sparse import sparse_pass
from linrep.sae.tensors import Weights as SavedWeights

CANDIDATES = 4
"""Activations of a pair that are looked at, times k."""


@dataclass(frozen=True)
class PairTopK:
    """The largest activations of a pair are active, as long as neither of its rows nor the pair has too many.

    Attributes:
        k: Most active latents in a row.
        of_pair: Most active latents in a pair.
        writes: Whether each latent writes to images (1) or not (0), and to texts.
    """

    k: int
    of_pair: int
    writes: Float[Tensor, "f 2"]
    kind: Literal["pair_topk"] = field(default="pair_topk", init=False)
    saelens_name: ClassVar[str] = "none"

    @property
    def n_active(self) -> None:
        """Pairs differ."""
        return

    def chosen(self, pre: Float[Tensor, "n f"]) -> Codes:
        """The active latents of some pairs, the largest first."""
        found = pre.topk(min(CANDIDATES * self.k, pre.shape[1]), dim=1)
        left = pre.new_tensor([self.k, self.k, self.of_pair]).expand(len(pre), 3).clone()
        spends = torch.nn.functional.pad(self.writes, (0, 1), value=1.0)
        taken = torch.zeros_like(found.values, dtype=torch.bool)
        for place in range(taken.shape[1]):
            spent = spends[found.indices[:, place]]
            fits = (found.values[:, place] > 0) & (spent <= left).all(1)
            left -= spent * fits[:, None]
            taken[:, place] = fits
        return Codes(offsets_of(taken.sum(1)), found.indices[taken], found.values[taken], pre.shape[1])

    def encode(self, sae: Sae, seen: Float[Tensor, "n d2"]) -> Float[Tensor, "n f"]:
        """Dense activations."""
        return self.chosen(torch.addmm(sae.b_enc, seen, sae.encoder.t())).dense()

    def codes(self, sae: Sae, seen: Float[Tensor, "n d2"], room: Float[Tensor, "r f"]) -> Codes:
        """The same, sparse."""
        return self.of(Encoder(sae.encoder, sae.b_enc, None, room), seen)

    def of(self, encoder: Encoder, seen: Float[Tensor, "n d2"]) -> Codes:
        """The same of an encoder, as many rows at a time as its scratch holds."""
        parts = [self.chosen(pre) for _, pre in encoder.compared(seen)]
        counts = torch.cat([part.offsets.diff() for part in parts])
        latents, values = (torch.cat([getattr(part, name) for part in parts]) for name in ("latents", "values"))
        return Codes(offsets_of(counts), latents, values, len(encoder.bias))

    def over(self, factor: float) -> "PairTopK":
        """The largest stay the largest."""
        return self

    def times(self, norms: Float[Tensor, " f"]) -> "PairTopK":
        """Rows of norm 1 are what is compared."""
        return self

    def shifted(self, shift: Float[Tensor, " f"]) -> "PairTopK":
        """The encoder's bias has taken it up."""
        return self

    def saelens(self, sae: Sae) -> Written:
        """No format holds an SAE of pairs.

        Raises:
            FormatError: Always.
        """
        raise FormatError("a crosscoder takes two rows at once, which no format of SAEs holds")

    @classmethod
    def read_saelens(cls, weights: SavedWeights, settings: Settings) -> Sae:
        """No format holds an SAE of pairs.

        Raises:
            FormatError: Always.
        """
        raise FormatError(f"{weights.file} is no crosscoder: no format of SAEs holds one")

    def dictionary_learning(self, sae: Sae) -> None:
        """It has no class for it."""
        return


@dataclass(frozen=True)
class Blocks:
    """The latents of a crosscoder.

    Attributes:
        shared: Shared latents: the first.
        private: Private latents of each modality: of images next, of texts last.
        k: Active latents of a row, at most.
    """

    shared: int
    private: int
    k: int

    @property
    def n_latents(self) -> int:
        """All of them."""
        return self.shared + 2 * self.private

    @property
    def rule(self) -> PairTopK:
        """What chooses."""
        kinds = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        sizes = torch.tensor([self.shared, self.private, self.private])
        return PairTopK(self.k, round(1.5 * self.k), kinds.repeat_interleave(sizes, dim=0))


@dataclass(frozen=True)
class CrosscoderTraining:
    """How it is trained: TopK's pass over both rows side by side. No recipe names it, as recipes train on single tokens."""

    numbers: Blocks
    derived: ClassVar[tuple[str, ...]] = ()
    common: ClassVar[tuple[str, ...] | None] = None
    dictionary_learning: ClassVar[Mapping[str, Reader]] = {}

    def first(self, weights: Weights, sample: Float[Tensor, "n d2"], n_latents: int) -> Weights:
        """Random directions; private ones in their own half alone."""
        found = {name: weight.clone() for name, weight in weights.items()}
        self.settle(found)
        return found | {"encoder": found["decoder"].clone()}

    def pass_over(self, weights: Weights, x: Float[Tensor, "n d2"], step: Step) -> Pass:
        """On the active entries alone."""
        rule = self.numbers.rule
        return sparse_pass(weights, x, lambda encoder, seen: (rule.of(encoder, seen), None), step)

    def settle(self, weights: Weights) -> None:
        """Private latents keep to their half; decoder rows have norm 1 there."""
        half, first = weights["decoder"].shape[1] // 2, self.numbers.shared
        last = first + self.numbers.private
        for name in ("encoder", "decoder"):
            weights[name][first:last, half:] = 0
            weights[name][last:, :half] = 0
        rows = weights["decoder"][first:]
        rows.div_(rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny))

    def sae(self, weights: Weights, threshold: Float[Tensor, ""], unit: bool) -> Sae:
        """An SAE of width 2 d."""
        four = (weights[name] for name in ("encoder", "b_enc", "decoder", "b_dec"))
        return Sae(*four, rule=self.numbers.rule, sees_centred=True)
