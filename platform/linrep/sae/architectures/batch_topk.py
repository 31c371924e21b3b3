"""BatchTopK: the largest pre-activations of a whole batch in training, a threshold afterwards.

Source: Bussmann et al., "BatchTopK sparse autoencoders", 2024.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from linrep.sae.architecture import Reader, Step, assembled
from linrep.sae.architectures.jumprelu import Above
from linrep.sae.architectures.relu import Rectify
from linrep.sae.architectures.topk import saved_k
from linrep.sae.config import BatchTopK
from linrep.sae.layouts import Four, read_linear
from linrep.sae.passes import Pass, Weights
from linrep.sae.sae import Sae
from linrep.sae.select import batch_top_k
from linrep.sae.settings import Settings
from linrep.sae.sparse import sparse_pass
from linrep.sae.tensors import Weights as SavedWeights


def with_one_threshold(weights: Weights, threshold: Float[Tensor, ""], unit: bool) -> Sae:
    """The SAE with one threshold for all latents, which is of rows of norm 1: where rows are not, contributions were compared."""
    sae = assembled(weights, Rectify(), centred=True, unit=unit)
    return replace(sae, rule=Above(threshold.expand(sae.n_latents).clone()))


def read_one_threshold(four: Four, weights: SavedWeights, trainer: Settings) -> Sae:
    """The SAE that dictionary_learning saved with one threshold; a k that is said must be a right one.

    Raises:
        FormatError: A tensor or a field is missing or wrong.
    """
    if "k" in weights or "k" in trainer:
        saved_k(weights, trainer)
    (threshold,) = weights.take("threshold", axes=())
    return Sae(*four, Above(threshold.expand(weights.size("f")).clone()), sees_centred=True)


def _read(weights: SavedWeights, trainer: Settings) -> Sae:
    return read_one_threshold(read_linear(weights, "encoder.bias", "b_dec"), weights, trainer)


@dataclass(frozen=True)
class BatchTopKTraining:
    """How it is trained and saved."""

    numbers: BatchTopK
    derived: ClassVar[tuple[str, ...]] = ()
    common: ClassVar[tuple[str, ...] | None] = ("b_dec",)
    dictionary_learning: ClassVar[Mapping[str, Reader]] = {"BatchTopKSAE": _read}

    def first(self, weights: Weights, sample: Float[Tensor, "n d"], n_latents: int) -> Weights:
        """As they are."""
        return weights

    def pass_over(self, weights: Weights, x: Float[Tensor, "n d"], step: Step) -> Pass:
        """On the active entries alone."""
        return sparse_pass(weights, x, lambda encoder, seen: batch_top_k(encoder, seen, self.numbers.k, step.workers), step)

    def settle(self, weights: Weights) -> None:
        """Weights may be anything."""

    def sae(self, weights: Weights, threshold: Float[Tensor, ""], unit: bool) -> Sae:
        """A threshold chooses: the mean of the least that training chose."""
        return with_one_threshold(weights, threshold, unit)
