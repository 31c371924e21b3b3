"""How much of an SAE another training run finds again."""

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

MOST = 4096
"""Latents matched: the assignment takes time cubic in their number."""


def living(decoder: Float[Tensor, "f d"], rates: Float[Tensor, " f"], most: int = MOST, seed: int = 0) -> Float[Tensor, "m d"]:
    """Decoder rows of the latents that fire at all, in their order; of more than `most`, as many drawn by seed.

    Latents that never fire stayed where they were drawn: that another run has others there says nothing of it.

    Args:
        decoder: All rows.
        rates: Firing rate of each latent.
        most: How many are kept.
        seed: Of the draw.
    """
    alive = (rates > 0).nonzero()[:, 0].cpu()
    drawn = torch.randperm(len(alive), generator=torch.Generator().manual_seed(seed))[:most]
    return decoder[alive[drawn.sort().values].to(decoder.device)]


def match(one: Float[Tensor, "f d"], other: Float[Tensor, "g d"], most: int = MOST) -> tuple[float, Int[Tensor, " m"]]:
    """Mean cosine of decoder rows under the best one-to-one matching, and whom each row of the first is matched with.

    Args:
        one: Decoder rows of living latents.
        other: Likewise of another run, at least as many as are matched.
        most: Of longer SAEs, the first rows are matched, each with any row of the other.

    Raises:
        ValueError: An SAE is empty, or the other has fewer rows than are to be matched.

    Source: Papadimitriou et al., COLM 2025 (stability); Fel et al., "Archetypal SAE", 2025.
    """
    one = one[:most]
    if not 0 < len(one) <= len(other):
        raise ValueError(f"cannot match {len(one)} latents with {len(other)}: put the smaller SAE first")
    cosines = torch.nn.functional.normalize(one, dim=1) @ torch.nn.functional.normalize(other, dim=1).t()
    rows, columns = linear_sum_assignment(cosines.double().cpu().numpy(), maximize=True)
    mean = float(cosines[torch.as_tensor(rows), torch.as_tensor(columns)].mean())
    return mean, torch.as_tensor(columns)
