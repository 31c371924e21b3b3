"""What one pass over a batch gives, whatever the architecture: errors, latents that fired, gradients by blocks of latents."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Weights = dict[str, Tensor]
"""The trained tensors by name. All have `decoder` [f, d] and `b_dec` [d], most `encoder` [f, d] and `b_enc` [f]; the others
are the architecture's. Latents come first: one is a row of memory."""

Matrices = Callable[[int, int], Weights]


@dataclass(frozen=True)
class Gradients:
    """Gradients of the mean loss of a batch.

    Attributes:
        vectors: Of everything but the matrices, by name.
        matrices: (first, last) -> gradients of the rows of those latents, by the matrix's name. Made when asked for: a caller
            who takes a block at a time and uses it at once never moves the whole gradient through memory.
        n_latents: Rows of each matrix.
        along: Product of each decoder row with its gradient, where the pass has it for nothing.
    """

    vectors: Weights
    matrices: Matrices
    n_latents: int
    along: Float[Tensor, " f"] | None = None

    def whole(self) -> Weights:
        """All gradients at once."""
        return {**self.matrices(0, self.n_latents), **self.vectors}

    def without(self, names: Collection[str]) -> "Gradients":
        """All but those of some tensors."""

        def others(found: Weights) -> Weights:
            return {name: gradient for name, gradient in found.items() if name not in names}

        return replace(self, vectors=others(self.vectors), matrices=lambda a, b: others(self.matrices(a, b)))


@dataclass(frozen=True)
class Pass:
    """A batch of n rows, forward and backward. Of several workers, what belongs to latents is of this one's.

    Attributes:
        residual: Reconstruction minus input.
        n_active: Active latents of each row, of this worker.
        fired: Latents that were active in some row.
        penalty: The sparsity loss of all latents, mean over rows, at its present weight.
        auxiliary: The dead latents' loss likewise.
        threshold: Least activation among the chosen of a batch; None for architectures without a batch-wide choice.
        gradients: Of the mean of |residual|^2 + penalty + auxiliary.
    """

    residual: Float[Tensor, "n d"]
    n_active: Int[Tensor, " n"]
    fired: Bool[Tensor, " f"]
    gradients: Gradients
    penalty: Float[Tensor, ""] = field(default_factory=lambda: torch.zeros(()))
    auxiliary: Float[Tensor, ""] = field(default_factory=lambda: torch.zeros(()))
    threshold: Float[Tensor, ""] | None = None
