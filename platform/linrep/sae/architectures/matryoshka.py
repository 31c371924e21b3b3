"""Matryoshka: BatchTopK whose first latents must also reconstruct alone.

Source: Bussmann et al., "Learning multi-level features with Matryoshka sparse autoencoders", 2025.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from linrep.errors import FormatError
from linrep.sae.architecture import Reader, Step
from linrep.sae.architectures.batch_topk import read_one_threshold, with_one_threshold
from linrep.sae.config import Matryoshka
from linrep.sae.layouts import read_straight
from linrep.sae.passes import Pass, Weights
from linrep.sae.sae import Sae
from linrep.sae.select import batch_top_k
from linrep.sae.settings import Settings
from linrep.sae.sparse import sparse_pass
from linrep.sae.tensors import Weights as SavedWeights


def _read(weights: SavedWeights, trainer: Settings) -> Sae:
    sae = read_one_threshold(read_straight(weights), weights, trainer)
    _check_groups(weights, trainer)
    return sae


def _check_groups(weights: SavedWeights, trainer: Settings) -> None:
    """All groups are active in a saved SAE, so that their sizes change nothing; but they must be those of this one."""
    sizes, said = weights.integers("group_sizes"), trainer.sizes("group_sizes")
    if sizes.dim() != 1 or bool((sizes < 1).any()) or int(sizes.sum()) != weights.size("f"):
        raise FormatError(
            f"{weights.file} has group_sizes {sizes.flatten()[:16].tolist()}: they must be above 0 and make {weights.size('f')}"
        )
    if said is not None and said != sizes.tolist():
        raise FormatError(f"{weights.file} has group_sizes {sizes[:16].tolist()}, {trainer.file.name} says {said[:16]}")


@dataclass(frozen=True)
class MatryoshkaTraining:
    """How it is trained and saved."""

    numbers: Matryoshka
    derived: ClassVar[tuple[str, ...]] = ()
    common: ClassVar[tuple[str, ...] | None] = ("b_dec",)
    dictionary_learning: ClassVar[Mapping[str, Reader]] = {"MatryoshkaBatchTopKSAE": _read}

    def first(self, weights: Weights, sample: Float[Tensor, "n d"], n_latents: int) -> Weights:
        """As they are."""
        return weights

    def pass_over(self, weights: Weights, x: Float[Tensor, "n d"], step: Step) -> Pass:
        """On the active entries alone."""
        return sparse_pass(
            weights,
            x,
            lambda encoder, seen: batch_top_k(encoder, seen, self.numbers.k, step.workers),
            step,
            self.numbers.prefixes,
        )

    def settle(self, weights: Weights) -> None:
        """Weights may be anything."""

    def sae(self, weights: Weights, threshold: Float[Tensor, ""], unit: bool) -> Sae:
        """As BatchTopK's: all prefixes are active."""
        return with_one_threshold(weights, threshold, unit)
