"""How well yes-or-no answers agree, from counts: the Matthews correlation at the true rate, and F1."""

import torch
from jaxtyping import Float
from torch import Tensor


def mcc(
    both: Float[Tensor, "..."], said: Float[Tensor, "..."], true: Float[Tensor, "..."], n: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Matthews correlation of what is said and what is true; 0 where one of the two is always or never so.

    Args:
        both: Cases, or their weight, that are said and true.
        said: That are said.
        true: That are true.
        n: All of them.

    Source: Matthews, "Comparison of the predicted and observed secondary structure of T4 phage lysozyme", 1975.

    >>> float(mcc(*torch.tensor([10.0, 10.0, 10.0, 40.0]))), float(mcc(*torch.tensor([0.0, 0.0, 5.0, 9.0])))
    (1.0, 0.0)
    """
    spread = said * (n - said) * true * (n - true)
    return torch.where(spread > 0, (n * both - said * true) / spread.clamp_min(torch.finfo(spread.dtype).tiny).sqrt(), 0.0)


def f1(both: Float[Tensor, "..."], said: Float[Tensor, "..."], true: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """F1 of the same; 0 where nothing is said and nothing is true."""
    total = said + true
    return torch.where(total > 0, 2 * both / total.clamp_min(torch.finfo(total.dtype).tiny), 0.0)
