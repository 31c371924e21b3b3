"""TopK: the k largest pre-activations of each row.

Source: Gao et al., "Scaling and evaluating sparse autoencoders", 2024.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.errors import FormatError
from linrep.sae.architecture import Reader, Step, assembled
from linrep.sae.config import TopK
from linrep.sae.layouts import linear, read_linear, read_straight, straight
from linrep.sae.passes import Pass, Weights
from linrep.sae.sae import Sae, Written
from linrep.sae.select import Codes, Encoder, top_k
from linrep.sae.settings import Settings
from linrep.sae.sparse import sparse_pass
from linrep.sae.tensors import Weights as SavedWeights
from linrep.sae.tensors import check_k


@dataclass(frozen=True)
class Largest:
    """The k largest positive latents of each row are active."""

    k: int
    kind: Literal["topk"] = field(default="topk", init=False)
    saelens_name: ClassVar[str] = "topk"

    @property
    def n_active(self) -> int:
        """k."""
        return self.k

    def encode(self, sae: Sae, seen: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """The k largest pre-activations, where they are positive."""
        pre = seen @ sae.encoder.t() + sae.b_enc
        kept = pre.topk(min(self.k, sae.n_latents), dim=1)
        return torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())

    def codes(self, sae: Sae, seen: Float[Tensor, "n d"], room: Float[Tensor, "r f"]) -> Codes:
        """Without dense activations."""
        return top_k(Encoder(sae.encoder, sae.b_enc, None, room), seen, self.k)

    def over(self, factor: float) -> "Largest":
        """The largest stay the largest."""
        return self

    def times(self, norms: Float[Tensor, " f"]) -> "Largest":
        """Of an SAE that compares contributions, these are the latents that it compares."""
        return self

    def shifted(self, shift: Float[Tensor, " f"]) -> "Largest":
        """The encoder's bias has taken it up."""
        return self

    def saelens(self, sae: Sae) -> Written:
        """As `topk`."""
        return Written("topk", straight(sae), {"k": self.k, "rescale_acts_by_decoder_norm": False})

    @classmethod
    def read_saelens(cls, weights: SavedWeights, settings: Settings) -> Sae:
        """From `topk`."""
        four = read_straight(weights)
        return Sae(*four, cls(check_k(_saelens_k(settings), weights.size("f"), settings.file)), sees_centred=True)

    def dictionary_learning(self, sae: Sae) -> Written:
        """As AutoEncoderTopK, without the threshold by which that can also encode."""
        unset = {"k": torch.tensor(self.k, dtype=torch.int32), "threshold": torch.tensor(-1.0)}
        return Written("AutoEncoderTopK", linear(sae.seeing(centred=True), "encoder.bias", "b_dec") | unset, {"k": self.k})


def _saelens_k(settings: Settings) -> int:
    """Latents that are active at once; releases before 6.0.0 say it in `activation_fn_kwargs`.

    Raises:
        FormatError: It is said nowhere, or twice and otherwise, or is no number above 0.
    """
    kwargs = settings.section("activation_fn_kwargs")
    if "k" not in kwargs:
        return settings.whole("k")
    found = kwargs.whole("k")
    kwargs.finish()
    if "k" in settings and settings.whole("k") != found:
        settings.refuse("k", f"must be activation_fn_kwargs.k, {found}")
    return found


def saved_k(weights: SavedWeights, trainer: Settings) -> int:
    """The k of dictionary_learning's pickle and of its config, which must be the same.

    Raises:
        FormatError: It is said nowhere, or differs, or is above the number of latents.
    """
    said = trainer.whole("k") if "k" in trainer or "k" not in weights else None
    saved = weights.whole("k") if "k" in weights else said
    if said is not None and said != saved:
        raise FormatError(f"{weights.file} has k {saved}, {trainer.file.name} says {said}")
    assert saved is not None
    return check_k(saved, weights.size("f"), weights.file)


def _read(weights: SavedWeights, trainer: Settings) -> Sae:
    four = read_linear(weights, "encoder.bias", "b_dec")
    if "threshold" in weights:  # of another way to encode than theirs does by itself
        weights.take("threshold", axes=())
    return Sae(*four, Largest(saved_k(weights, trainer)), sees_centred=True)


@dataclass(frozen=True)
class TopKTraining:
    """How it is trained and saved."""

    numbers: TopK
    derived: ClassVar[tuple[str, ...]] = ()
    common: ClassVar[tuple[str, ...] | None] = ("b_dec",)
    dictionary_learning: ClassVar[Mapping[str, Reader]] = {"AutoEncoderTopK": _read}

    def first(self, weights: Weights, sample: Float[Tensor, "n d"], n_latents: int) -> Weights:
        """As they are."""
        return weights

    def pass_over(self, weights: Weights, x: Float[Tensor, "n d"], step: Step) -> Pass:
        """On the active entries alone."""
        return sparse_pass(weights, x, lambda encoder, seen: (top_k(encoder, seen, self.numbers.k, step.workers), None), step)

    def settle(self, weights: Weights) -> None:
        """Weights may be anything."""

    def sae(self, weights: Weights, threshold: Float[Tensor, ""], unit: bool) -> Sae:
        """Chooses for each row, as in training."""
        return assembled(weights, Largest(self.numbers.k), centred=True, unit=unit)
