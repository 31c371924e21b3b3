"""Shares of the latents: modality scores, mass on bimodal ones, overlap of those that fire on images with those on texts.

They count the latents that fire often enough for a score of their own. Noise spreads scores, which pulls shares to one side: the
bootstrap over groups of pairs says how far, and the estimate is corrected by it. The intervals are Wilson's for these latents,
with the bootstrap's variance on top: another SAE would have other latents.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import hypergeom

from linrep.sharing.config import SharingConfig
from linrep.sharing.intervals import Measure
from linrep.stats.nulls import of_draws
from linrep.stats.wilson import wilson

BINS = 11
"""Of the histogram of modality scores: an odd number, so that .5, where balanced latents lie, is inside of one."""
DEALS = 100
"""Draws of the null of modality scores."""

Share = tuple[float, float]
"""A share, and of how many latents; of weighted ones, as many equal ones as say as much (Kish, 1965)."""


def shares(
    fired: Float[np.ndarray, "g 2 f"], mass: Float[np.ndarray, "g 2 f"], tokens: Float[np.ndarray, " g"], config: SharingConfig
) -> Iterator[Measure]:
    """All shares of the latents, with their nulls.

    Args:
        fired: Tokens on which each latent fires, by group of pairs and modality.
        mass: Sums of its activations in units of the mean norm of the modality's tokens, likewise.
        tokens: Tokens of either modality, by group.
        config: What to compare.
    """
    groups, rng = len(tokens), np.random.default_rng(config.seed)
    counted = fired.sum((0, 1)) >= config.min_firings
    fired, mass = fired[..., counted], mass[..., counted]

    def of(weights: Float[np.ndarray, " g"]) -> dict[str, Share]:
        rates = np.tensordot(weights, fired, 1) / max(weights @ tokens, 1)
        return {**overlaps(rates, config), **scores(np.tensordot(weights, mass, 1), config)}

    whole = of(np.ones(groups))
    drawn = [of(rng.multinomial(groups, np.full(groups, 1 / groups)).astype(float)) for _ in range(config.resamples)]
    even = np.arange(groups) % 2 == 0
    half = [of(even.astype(float)), of((~even).astype(float))]
    nulls = _independent(fired.sum(0) / max(tokens.sum(), 1), config) | _dealt(mass.sum(0), rng, config)
    for name, (value, n) in whole.items():
        spread = np.array([one[name][0] for one in drawn])
        spread = spread[np.isfinite(spread)]
        noise, why = float(spread.var()) * groups / (groups - 1) if len(spread) else 0.0, None
        bias = float(spread.mean()) - value if len(spread) else 0.0
        if not np.isfinite(value):
            why = "no value: no latent fires so much that it counts"
        elif 0 <= value - bias <= 1:
            value -= bias
        else:  # a share that is corrected out of its range is none: the plain one, and the bias widens its interval
            noise, why = noise + bias**2, f"not corrected for noise, which would make it {value - bias:.3f}"
        halves = (half[0][name][0], half[1][name][0])
        null, low, high = nulls[name]
        yield Measure(name, value, *wilson(value, n, noise), null, int(counted.sum()), halves, low, high, why)


def overlaps(rates: Float[np.ndarray, "2 f"], config: SharingConfig) -> dict[str, Share]:
    """Of the latents whose rate is above a threshold on one modality or the other, the share that is so on both."""
    found = {}
    for threshold in config.thresholds:
        above: Bool[np.ndarray, "2 f"] = rates > threshold
        either = int((above[0] | above[1]).sum())
        found[f"overlap_{threshold:g}"] = (int((above[0] & above[1]).sum()) / either if either else float("nan"), either)
    return found


def scores(mass: Float[np.ndarray, "2 f"], config: SharingConfig) -> dict[str, Share]:
    """Share of the activation on latents with a modality score away from 0 and 1, and the histogram of the scores.

    Source: Papadimitriou et al., COLM 2025.
    """
    total = mass.sum(0)
    score = np.divide(mass[0], total, out=np.full_like(total, np.nan), where=total > 0)
    bimodal = (score > config.bimodal) & (score < 1 - config.bimodal)
    nothing = float("nan")
    found: dict[str, Share] = {"bimodal_mass": (nothing, 0.0)}
    if total.any():
        found["bimodal_mass"] = (float(total[bimodal].sum() / total.sum()), float(total.sum() ** 2 / (total**2).sum()))
    known = score[~np.isnan(score)]
    counts = np.histogram(known, BINS, (0, 1))[0]
    for (low, high), count in zip(pairwise(np.linspace(0, 1, BINS + 1).tolist()), counts.tolist(), strict=True):
        found[f"modality_score_{low:.2f}_{high:.2f}"] = (count / len(known) if len(known) else nothing, len(known))
    return found


def _independent(rates: Float[np.ndarray, "2 f"], config: SharingConfig) -> dict[str, tuple[float, float, float]]:
    """Overlap if a latent's rate on texts said nothing about its rate on images: rates dealt out anew among the latents, exactly.

    With fixed numbers of latents above on either side, those above on both follow the hypergeometric distribution.
    """
    found = {}
    for threshold in config.thresholds:
        a, b = (int(n) for n in (rates > threshold).sum(1))
        both = np.arange(max(0, a + b - rates.shape[1]), min(a, b) + 1)
        chance = hypergeom.pmf(both, rates.shape[1], a, b)
        value = both / np.maximum(a + b - both, 1)
        ends = (float(value[np.searchsorted(np.cumsum(chance), q).clip(max=len(both) - 1)]) for q in (0.025, 0.975))
        found[f"overlap_{threshold:g}"] = (float(chance @ value) if a + b else float("nan"), *ends)
    return found


def _dealt(
    mass: Float[np.ndarray, "2 f"], rng: np.random.Generator, config: SharingConfig
) -> dict[str, tuple[float, float, float]]:
    """Scores if a latent's activation on texts said nothing about that on images: dealt out anew among the latents."""
    drawn = [scores(np.stack([mass[0], rng.permutation(mass[1])]), config) for _ in range(DEALS)]
    found = {}
    for name in drawn[0]:
        null = of_draws(np.array([one[name][0] for one in drawn]))
        found[name] = (null.value, null.low, null.high)
    return found
