"""Shared latents and latents of one modality alone, in sets that write equally much, and what a model loses without each.

Sets are drawn by what latents do on training tokens; what is lost is read on questions about other samples. Running the model is
the caller's: a set is a vector to subtract at some positions, an answer is log-probabilities of the next token.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from linrep.encoder import Active, Encoder, active
from linrep.sae.panel.intervals import Resampled
from linrep.stats.bootstrap import draws
from linrep.store.layout import MODALITIES, Modality

SHARED, IMAGE_ONLY, TEXT_ONLY, RANDOM, EVERY = "shared", "image only", "text only", "random", "all latents"
OWN: Mapping[Modality, str] = {"image": IMAGE_ONLY, "text": TEXT_ONLY}
"""The latents that only tokens of a modality use."""
BIMODAL, LEAST = 0.2, 100
"""As in sharing: shared is a modality score of .2 to .8, of latents that fire on 100 tokens or more."""
SHARES = (0.25, 0.5, 1.0)
"""Energies of sets: of what the smaller one writes, all shared latents or all of the modality alone."""


@dataclass(frozen=True)
class ModalityCodes:
    """Latents on tokens of one modality.

    Attributes:
        codes: Their activations.
        n: Tokens.
        norm: Mean norm of a token.
        decoder: What a unit of each latent writes.
    """

    codes: Active
    n: int
    norm: float
    decoder: Float[Tensor, "f d"]

    @classmethod
    def of(cls, sae: Encoder, decoder: Float[Tensor, "f d"], x: Float[Tensor, "n d"]) -> "ModalityCodes":
        """Of raw activations."""
        return cls(active(sae, x), len(x), float(x.norm(dim=1).mean()), decoder)

    @property
    def mass(self) -> Float[Tensor, " f"]:
        """Mean activation of each latent in units of the mean norm."""
        f = len(self.decoder)
        return torch.bincount(self.codes.latent, self.codes.value.double(), minlength=f) / max(self.n, 1) / self.norm

    @property
    def fires(self) -> Int[Tensor, " f"]:
        """Tokens on which each latent fires."""
        return torch.bincount(self.codes.latent, minlength=len(self.decoder))


def pools(codes: Mapping[Modality, ModalityCodes]) -> dict[str, Int64[np.ndarray, " m"]]:
    """Latents by who uses them: both modalities, images alone, texts alone; and all of them, to draw random ones from.

    The modality score of a latent is its mean activation on images over the sum of both means, each in units of the modality's
    mean norm.

    Source: the score is of Papadimitriou et al., COLM 2025.
    """
    image, text = (codes[m].mass for m in MODALITIES)
    score = (image / (image + text)).numpy()
    counted = (codes["image"].fires + codes["text"].fires >= LEAST).numpy()
    chosen = {
        SHARED: (score > BIMODAL) & (score < 1 - BIMODAL),
        IMAGE_ONLY: score >= 1 - BIMODAL,
        TEXT_ONLY: score <= BIMODAL,
        RANDOM: np.isfinite(score),
    }
    return {name: np.flatnonzero(counted & own) for name, own in chosen.items()}


@dataclass(frozen=True)
class LatentSet:
    """Latents to take away.

    Attributes:
        weights: Of each latent: 1 taken away, 0 left; one of them in part, so that the energy is met exactly.
        energy: Mean squared length of what it writes together on a training token.
    """

    weights: Float[Tensor, " f"]
    energy: float

    @property
    def size(self) -> int:
        """Latents in it."""
        return int((self.weights > 0).sum())


def draw_set(codes: ModalityCodes, pool: Int64[np.ndarray, " m"], energy: float, seed: int) -> LatentSet:
    """Latents of a pool in a drawn order until they write so much; all of them where the pool has no more.

    Latents that fire together add up or cancel each other. So the energy is that of what they write together, token by token, and
    the last one is taken in part.

    Args:
        codes: Latents on training tokens of the modality at whose positions they are taken away.
        pool: Latents to draw from.
        energy: Mean squared length of what the set writes on a token; infinite for the whole pool.
        seed: Of the order.
    """
    order = codes.codes.latent.argsort(stable=True)
    rows, values = codes.codes.row[order], codes.codes.value[order]
    begins = torch.searchsorted(codes.codes.latent[order], torch.arange(len(codes.decoder) + 1)).tolist()
    weights, decoder = torch.zeros(len(codes.decoder)), codes.decoder
    written, wanted, have = torch.zeros(codes.n, codes.decoder.shape[1]), energy * codes.n, 0.0
    for latent in np.random.default_rng(seed).permutation(pool).tolist():
        at = slice(begins[latent], begins[latent + 1])
        own, amount = rows[at], values[at]
        cross = float((amount * (written[own] @ decoder[latent])).double().sum())
        square = float(amount.double().square().sum() * decoder[latent].double().square().sum())
        if not square:
            continue
        missing = wanted - have
        # The part a of this latent that adds what is missing: a^2 square + 2 a cross = missing.
        part = (math.sqrt(cross**2 + square * missing) - cross) / square if math.isfinite(missing) else math.inf
        weights[latent] = min(part, 1.0)
        written[own] += float(weights[latent]) * amount[:, None] * decoder[latent]
        have += float(weights[latent]) ** 2 * square + 2 * float(weights[latent]) * cross
        if part <= 1:
            break
    return LatentSet(weights, have / max(codes.n, 1))


def draw_sets(
    codes: Mapping[Modality, ModalityCodes], site: Modality, share: float, n_draws: int
) -> dict[str, tuple[LatentSet, ...]]:
    """Sets of one energy to take away at tokens of a modality: shared latents, those of the modality alone, and random ones.

    Args:
        codes: Latents on training tokens.
        site: Whose tokens.
        share: Their energy, of what the smaller one writes on a token: all shared latents, or all of the modality alone.
        n_draws: Draws of each.

    Raises:
        ValueError: No latent is shared, or none is the modality's alone: there is nothing to compare.
    """
    own = pools(codes)
    whole = {name: draw_set(codes[site], own[name], math.inf, 0).energy for name in (SHARED, OWN[site])}
    lacking = [name for name, energy in whole.items() if not energy]
    if lacking:
        raise ValueError(f"no latent that fires on {LEAST} tokens is {' or '.join(lacking)}: there is nothing to compare")
    energy = share * min(whole.values())
    return {
        name: tuple(draw_set(codes[site], own[name], energy, seed) for seed in range(n_draws))
        for name in (SHARED, OWN[site], RANDOM)
    }


def whole_sets(codes: Mapping[Modality, ModalityCodes], site: Modality) -> dict[str, tuple[LatentSet, ...]]:
    """What has no equal energy: all latents of the other modality alone, which write little here, and all latents that fire."""
    own = pools(codes)
    (other,) = (OWN[modality] for modality in MODALITIES if modality != site)
    whole = {other: own[other], EVERY: np.arange(len(codes[site].decoder))}
    return {name: (draw_set(codes[site], pool, math.inf, 0),) for name, pool in whole.items() if len(pool)}


@dataclass(frozen=True)
class Asked:
    """Some samples under a question.

    Attributes:
        x: The stream at the positions where latents are taken away, of all samples.
        owner: Number of each position's sample, from 0 within these.
        sample: Name of each sample, the same under every question.
        right: First token of each sample's right answer; -1 where it is not known.
        answer: Log-probabilities of each answer's first token, with something subtracted from x; None: nothing.
    """

    x: Float[Tensor, "n d"]
    owner: Int[Tensor, " n"]
    sample: tuple[str, ...]
    right: Int[Tensor, " s"]
    answer: Callable[[Float[Tensor, "n d"] | None], Float[Tensor, "s v"]]


Name = TypeVar("Name", bound=Hashable)
MEASURES = ("kl", "same", "right", "energy")


@torch.inference_mode()
def damage(
    asked: Iterable[Asked], sae: Encoder, decoder: Float[Tensor, "f d"], sets: Mapping[Name, Sequence[LatentSet]],
    resamples: int, seed: int = 0,
) -> dict[str, dict[Name, Resampled]]:  # fmt: skip
    """What answers lose without each set, by measure and set: means over samples, and over draws of samples that all sets share.

    `kl`: nats from the untouched prediction of the answer's first token. `same`: share whose likeliest first token stays.
    `right`: share still right, of those that were. `energy`: mean squared length of what is taken away, over that of all that
    the SAE writes there. A sample that is asked several questions counts once, as their mean; one whose measure is not known
    does not count.

    Args:
        asked: Samples under questions, none of which the sets were drawn on.
        sae: What encodes the stream at the positions.
        decoder: What a unit of each latent writes.
        sets: By name the draws of a set.
        resamples: Draws of samples.
        seed: Of them.
    """
    columns = [(name, i) for name, own in sets.items() for i in range(len(own))]
    sums: dict[str, Float[np.ndarray, "m k"]] = {}
    counts: dict[str, Float[np.ndarray, "m k"]] = {}
    for batch in asked:
        plain = batch.answer(None)
        said = plain.argmax(1)
        codes = active(sae, batch.x)
        n_tokens = torch.bincount(batch.owner, minlength=len(batch.sample)).clamp(min=1).to(batch.x)
        whole = _per_sample(_written(codes, decoder, torch.ones(len(decoder)), batch), batch) / n_tokens
        found = np.full((len(batch.sample), 5, len(columns)), np.nan)
        for k, (name, i) in enumerate(columns):
            taken = _written(codes, decoder, sets[name][i].weights, batch)
            changed = batch.answer(taken)
            now = changed.argmax(1)
            known = (said == batch.right.to(said)) & (batch.right.to(said) >= 0)
            right = torch.where(known, (now == said).double(), math.nan)
            own = (
                (plain.exp() * (plain - changed)).sum(1), now == said, right, _per_sample(taken, batch) / n_tokens, whole,
            )  # fmt: skip
            found[:, :, k] = torch.stack([part.double().cpu() for part in own], dim=1).numpy()
        for row, sample in zip(found, batch.sample, strict=True):
            there = np.isfinite(row)
            sums[sample] = sums.get(sample, 0) + np.where(there, row, 0)
            counts[sample] = counts.get(sample, 0) + there
    if not sums:
        raise ValueError("no sample is asked: there is nothing to lose")
    total, n = np.stack(list(sums.values())), np.stack(list(counts.values()))
    each = np.divide(total, n, out=np.full_like(total, np.nan), where=n > 0)
    weights = np.concatenate([np.ones((1, len(each))), *draws(len(each), resamples, seed)])
    results: dict[str, dict[Name, Resampled]] = {measure: {} for measure in MEASURES}
    for name in sets:
        here = [k for k, (own, _) in enumerate(columns) if own == name]
        for m, measure in enumerate(MEASURES):
            values = _weighted(weights, each[:, m, here])
            values = values / _weighted(weights, each[:, 4, here]) if measure == "energy" else values
            results[measure][name] = Resampled(values[0], values[1:].T)
    return results


def _written(codes: Active, decoder: Float[Tensor, "f d"], weights: Float[Tensor, " f"], batch: Asked) -> Float[Tensor, "n d"]:
    """What the latents write at each position, by their weights."""
    weights = weights.to(batch.x)
    here = weights[codes.latent] > 0
    row, latent, value = codes.row[here], codes.latent[here], codes.value[here].to(batch.x)
    return torch.zeros_like(batch.x).index_add_(0, row, (weights[latent] * value)[:, None] * decoder[latent].to(batch.x))


def _per_sample(taken: Float[Tensor, "n d"], batch: Asked) -> Float[Tensor, " s"]:
    """Squared lengths, summed over the positions of each sample."""
    return taken.new_zeros(len(batch.sample)).index_add_(0, batch.owner, taken.square().sum(1))


def _weighted(weights: Float[np.ndarray, "r m"], each: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "r k"]:
    """Means over the samples that are known, NaN where none is."""
    known = np.isfinite(each)
    n = weights @ known
    return np.divide(weights @ np.where(known, each, 0), n, out=np.full(n.shape, np.nan), where=n > 0)
