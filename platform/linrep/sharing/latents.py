"""Latent level: on which modality each latent fires, and whether it fires on an image and on its caption."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from linrep.encoder import Latents
from linrep.errors import RecipeError
from linrep.sharing.bridges import partners
from linrep.sharing.config import SharingConfig
from linrep.sharing.fires import Fires, PassFires
from linrep.sharing.intervals import Measure, of_groups
from linrep.sharing.reliability import reliabilities
from linrep.sharing.shares import shares
from linrep.sharing.study import Pairs
from linrep.sharing.weights import KINDS, Weights, weight_measures

TINY = 1e-300
"""Instead of a length of nothing."""


def modality_scores(s: Fires) -> Float[Tensor, " f"]:
    """Mean activation on images over the sum of both means; NaN for a latent that never fires.

    Each mean is in units of the modality's mean norm: where rows of one modality are longer, every latent would be that one's.

    Source: Papadimitriou et al., COLM 2025.
    """
    mass = s.mass / s.lengths.clamp(min=TINY)[:, None]
    return mass[0] / (mass[0] + mass[1])


def bridge(z_image: Float[Tensor, "n f"], z_text: Float[Tensor, "n f"], decoder: Float[Tensor, "f d"]) -> Float[Tensor, "f f"]:
    """Bridge scores of all pairs of latents, for SAEs small enough; the streamed measures are its sum and its diagonal.

    Source: Papadimitriou et al., COLM 2025.
    """
    return (z_image.T @ z_text / len(z_image)) * (decoder @ decoder.T)


def cofire_null(s: Fires) -> Float[Tensor, " f"]:
    """Share of the images and captions of different pairs on which a latent fires on both: the mean over all permutations."""
    return (s.present[0] * s.present[1] - s.both) / (s.pairs * (s.pairs - 1))


def check_tokens(found: PassFires) -> PassFires:
    """What was found, if there was anything.

    Raises:
        RecipeError: No pair has tokens of both modalities.
    """
    if not float(found.everything.tokens):
        raise RecipeError("sharing: no pair has single tokens of both modalities: harvest with harvest.views [pooled, tokens]")
    return found


def latent_measures(found: PassFires, weights: Weights, latents: Latents, pairs: Pairs, config: SharingConfig) -> list[Measure]:
    """All measures of the latent level."""
    s = found.everything
    n_pairs = round(float(s.pairs))
    squares = latents.decoder.double().square().sum(1)
    groups = len(found.sums)

    def row(name: str, measure: Callable[[Fires], float], null: float | None) -> Measure:
        return of_groups(name, groups, lambda chosen: measure(found.total(chosen)), null, n_pairs)

    def mean_rate(s: Fires, m: int) -> float:
        return float((s.fired[m] / s.tokens).sum())

    rows = [row("l0_image", lambda s: mean_rate(s, 0), None), row("l0_text", lambda s: mean_rate(s, 1), None)]
    fired, mass = (np.stack([getattr(one, name).numpy() for one in found.sums]) for name in ("fired", "mass"))
    norms = (s.lengths / s.tokens).clamp(min=TINY).numpy()
    rows += shares(fired, mass / norms[:, None], np.array([float(one.tokens) for one in found.sums]), config)
    rows += [
        row("bridge_cosine", bridge_cosine, bridge_cosine_null(s, latents.decoder)),
        row("bridge_diagonal_share", lambda s: float((s.product * squares).sum() / s.inner), diagonal_null(s, latents.decoder)),
        # Shares are weighted by how often a latent is present at all: rare latents would drown the mean in zeros.
        row(
            "cofire",
            lambda s: float(s.both.sum() / s.present.sum() * 2),
            float(cofire_null(s).sum() * s.pairs / s.present.sum() * 2),
        ),
    ]
    counted = fired.sum((0, 1)) >= config.min_firings
    return [*rows, *weight_measures(found, weights, pairs), *reliabilities(_halves(found, weights, latents), counted)]


def _halves(found: PassFires, weights: Weights, latents: Latents) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What each half of the pairs says of every latent."""
    groups = range(len(found.sums))
    both = [
        _by_latent(found.total(groups[half::2]), latents) | {name: own.weights(kind) for kind, name in enumerate(KINDS)}
        for half, own in enumerate(weights[1:])
    ]
    names = ("modality_score", "cofire", "bridge", *KINDS)
    return {name: (both[0][name].numpy(), both[1][name].numpy()) for name in names}


def _by_latent(s: Fires, latents: Latents) -> dict[str, Float[Tensor, " f"]]:
    """What sums say of every latent; NaN where they say nothing."""
    rates, means = s.fired / s.tokens, s.mass / s.tokens
    return {
        "rate_image": rates[0], "rate_text": rates[1], "mean_image": means[0], "mean_text": means[1],
        "modality_score": modality_scores(s), "bridge": s.product / s.pairs * latents.decoder.double().square().sum(1),
        "cofire": s.both / s.pairs, "cofire_null": cofire_null(s),
    }  # fmt: skip


def bridge_cosine(s: Fires) -> float:
    """Sum of the bridge scores over all latents (the mean inner product of what both modalities' latents write), as a cosine."""
    scale = float((s.norms[0] * s.norms[1]).sqrt() / s.pairs)
    return float(s.inner / s.pairs) / scale if scale > 0 else float("nan")


def bridge_cosine_null(s: Fires, decoder: Float[Tensor, "f d"]) -> float:
    """The same over images and captions of different pairs, exactly."""
    written = s.means @ decoder.double()
    scale = float((s.norms[0] * s.norms[1]).sqrt() / s.pairs)
    others = float((written[0] @ written[1] - s.inner) / (s.pairs * (s.pairs - 1)))
    return others / scale if scale > 0 else float("nan")


def diagonal_null(s: Fires, decoder: Float[Tensor, "f d"]) -> float:
    """The share of the bridge scores from a latent to itself over images and captions of different pairs, exactly."""
    written = s.means @ decoder.double()
    own = ((s.means[0] * s.means[1] - s.product) * decoder.double().square().sum(1)).sum()
    return float(own / (written[0] @ written[1] - s.inner))


def latent_rows(found: PassFires, weights: Weights, latents: Latents) -> list[dict[str, object]]:
    """One record for each latent, without layer and SAE."""
    columns = _by_latent(found.everything, latents) | {name: weights[0].weights(kind) for kind, name in enumerate(KINDS)}
    partner, score = partners(found.kept, latents.decoder)
    lists = {name: [None if v != v else v for v in values.tolist()] for name, values in columns.items()}
    lists["bridge_partner"] = [None if p < 0 else p for p in partner.tolist()]
    lists["bridge_partner_score"] = [None if v != v else v for v in score.tolist()]
    return [{"latent": i, **{name: values[i] for name, values in lists.items()}} for i in range(len(partner))]
