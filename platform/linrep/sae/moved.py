"""How far training has taken decoder rows from the random directions that they began at."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from linrep.sae.config import SaeDesign
from linrep.sae.sae import Sae
from linrep.sae.start import first_directions


@dataclass(frozen=True)
class Moved:
    """Cosines of the living latents' decoder rows with their own first directions.

    Attributes:
        mean: Their mean. 1: nothing was learned by the decoder; 0: nothing is left of the start.
        low: Lower quartile over the latents.
        high: Upper quartile.
        other: Mean cosine with the first directions of another seed, which the SAE never had.
    """

    mean: float
    low: float
    high: float
    other: float


def moved(sae: Sae, rates: Float[Tensor, " f"]) -> Moved | None:
    """The cosines of an SAE that was trained here; None for others, and where no latent fires.

    The first directions are drawn again from the seed that the SAE says it was trained with: the same bits, however often
    training was interrupted. A decoder that begins at mixtures of data (archetypal) has none that could be drawn again.

    Args:
        sae: As it was saved.
        rates: Firing rates; latents that never fire were not trained, and are left out.

    Source: Korznikov et al., "Sanity checks for sparse autoencoders", arXiv 2602.14111, 2026 (lazy training).
    """
    config, alive = _config(sae.about), rates > 0
    if config is None or not alive.any():
        return None
    first, other = (first_directions(c, sae.d_model) for c in (config, config.model_copy(update={"seed": config.seed + 1})))
    if first is None or other is None or first.shape != sae.decoder.shape:
        return None
    rows = sae.decoder[alive.to(sae.decoder.device)].cpu().double()
    own, beside = (torch.cosine_similarity(rows, start[alive.cpu()].double(), dim=1) for start in (first, other))
    low, high = torch.quantile(own, own.new_tensor([0.25, 0.75])).tolist()
    return Moved(float(own.mean()), low, high, float(beside.mean()))


def _config(about: dict[str, Any]) -> SaeDesign | None:
    """What it was trained by, if it says so in our words."""
    said = about.get("config")
    try:
        return SaeDesign.model_validate(said) if isinstance(said, dict) else None
    except ValidationError:
        return None
