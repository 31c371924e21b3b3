"""A linear classifier, and how its coordinates are read."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Linear:
    """Scores of c classes: (x - centre) @ weights + bias; the highest score wins.

    Attributes:
        kind: ridge, lda, class_mean, softmax or sparse.
        centre: The mean that it was fitted about.
        weights: One column a class, per unit of activation.
        bias: Score of each class at the centre.
        setting: What was chosen on the validation split: penalty, shrinkage, or the number of coordinates.
        notes: What the fit says of itself, such as its iterations and its gradient norm.
    """

    kind: str
    centre: Float[Tensor, " d"]
    weights: Float[Tensor, "d c"]
    bias: Float[Tensor, " c"]
    setting: float | None = None
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        """Classes that it separates."""
        return len(self.bias)

    def scores(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """The score of every class for every row."""
        return (x.to(self.weights.dtype) - self.centre) @ self.weights + self.bias

    def moved(self, centre: Float[Tensor, " d"]) -> "Linear":
        """The same classifier for rows whose mean is elsewhere: what lies at its centre is taken to lie at the new one."""
        return replace(self, centre=centre)


def stack(classifiers: list[Linear], centre: Float[Tensor, " d"]) -> tuple[Float[Tensor, "d cs"], Float[Tensor, " cs"]]:
    """Weights and biases of several classifiers side by side, all measured from one centre.

    Rows are centred once, in the centre's precision, so that float32 products lose nothing to a large mean.
    """
    weights = torch.cat([c.weights for c in classifiers], dim=1)
    bias = torch.cat([c.bias + (centre - c.centre) @ c.weights for c in classifiers])
    return weights.float(), bias.float()
