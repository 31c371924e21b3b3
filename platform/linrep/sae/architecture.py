"""What every SAE architecture says of itself, and what a training step gives it.

Each architecture is a file of `linrep.sae.architectures`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from linrep.sae.auxk import Revival
from linrep.sae.passes import Pass, Weights
from linrep.sae.sae import Rule, Sae
from linrep.sae.settings import Settings
from linrep.sae.shard import Shard
from linrep.sae.tensors import Weights as SavedWeights
from linrep.workers import Workers

Reader = Callable[[SavedWeights, Settings], Sae]
"""(tensors, fields of the trainer) -> the SAE that dictionary_learning wrote, without its origin."""


@dataclass(frozen=True)
class Step:
    """What a training step gives an architecture beside the weights and the rows.

    Attributes:
        room: Scratch for pre-activations, see `linrep.sae.select.scratch`. In bfloat16, dense products run in that format.
        workers: Who has the other latents.
        norms: Norms of the decoder's rows where activations are compared by what they contribute; None for rows of norm 1.
        revival: Dead latents, and how they are taught; None for nobody.
        warmth: Share of a sparsity penalty's weight that counts by now.
        shard: Which latents the weights are; None for all.
    """

    room: Float[Tensor, "r f"]
    workers: Workers
    norms: Float[Tensor, " f"] | None = None
    revival: Revival | None = None
    warmth: float = 1.0
    shard: Shard | None = None


@runtime_checkable
class Architecture(Protocol):
    """How an SAE of some numbers is trained and saved."""

    derived: ClassVar[tuple[str, ...]]
    """Weights that are computed from the others, or stay as they began; they have no gradient."""
    common: ClassVar[tuple[str, ...] | None]
    """Weights that every worker has whole, as they are no rows of latents; None where the latents cannot lie on several."""
    dictionary_learning: ClassVar[Mapping[str, Reader]]
    """Classes of dictionary_learning that are read as this architecture."""

    def __init__(self, numbers: Any) -> None:
        """Of the section of a recipe, whose type is the architecture's own."""
        ...

    def first(self, weights: Weights, sample: Float[Tensor, "n d"], n_latents: int) -> Weights:
        """The first weights, all that it trains, of the latents that are given.

        Args:
            weights: `encoder`, the decoder's copy; `b_enc` of zeros; `decoder`, random rows of norm 1; `b_dec`, the center.
            sample: Scaled rows, the same on all workers.
            n_latents: Of the whole SAE.
        """
        ...

    def pass_over(self, weights: Weights, x: Float[Tensor, "n d"], step: Step) -> Pass:
        """Loss and gradients of a batch: what belongs to a latent is of this worker's, everything else of all."""
        ...

    def settle(self, weights: Weights) -> None:
        """Bring weights back to where they are allowed to be, in place, after the optimiser moved them."""
        ...

    def sae(self, weights: Weights, threshold: Float[Tensor, ""], unit: bool) -> Sae:
        """The SAE as it is now, with decoder rows of norm 1.

        Args:
            weights: A copy, which the SAE may keep.
            threshold: Running mean of `Pass.threshold`.
            unit: Whether the decoder's rows have norm 1 already.
        """
        ...


def assembled(weights: Weights, rule: Rule, centred: bool, unit: bool) -> Sae:
    """An SAE of the four tensors that most architectures have; see `Architecture.sae`."""
    sae = Sae(weights["encoder"], weights["b_enc"], weights["decoder"], weights["b_dec"], rule, centred)
    return sae if unit else sae.with_unit_decoder()
