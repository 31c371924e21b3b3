"""Controls without training: some directions as decoder and encoder, as many latents active as in the SAE beside them."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.architectures.topk import Largest
from linrep.sae.sae import Sae
from linrep.sae.start import unit_rows
from linrep.sample import unit_hash
from linrep.store.layout import Modality

Activations = Mapping[Modality, Float[Tensor, "_ d"]]
"""Rows of finite numbers in the model's own scale, by modality; none is empty."""
Active = Mapping[Modality, int]
"""Active latents of a row, by modality."""
Saes = dict[Modality, Sae]
"""The control as it takes raw rows of each modality."""
Control = Callable[[Activations, int, Active, int], Saes]
"""(activations, latents, active latents, seed) -> the control."""


def random_sae(sample: Float[Tensor, "n d"], n_latents: int, k: int, seed: int = 0) -> Sae:
    """Random directions as decoder and encoder, k active latents, about the mean of a sample.

    Args:
        sample: Rows of one modality, or of both where one SAE takes both.
        n_latents: How many.
        k: Active latents of a row.
        seed: Of the directions.
    """
    return tied(unit_rows(n_latents, sample.shape[1], seed, "control"), sample, k, {"control": "random directions", "seed": seed})


def isotropic(rows: Activations, n_latents: int, k: Active, seed: int) -> Saes:
    """Random directions that prefer none."""
    return _about_each(unit_rows(n_latents, _width(rows), seed, "control"), rows, k, "random directions", seed)


def covariance(rows: Activations, n_latents: int, k: Active, seed: int) -> Saes:
    """Random directions with the covariance of the data: drawn from a Gaussian with the rows' second moments.

    What it shares with a trained SAE is known of the data without dictionary learning.
    """
    drawn = torch.randn(n_latents, _width(rows), generator=_generator(seed, "covariance"), dtype=torch.float64)
    root = square_root(pooled_covariance(rows))
    return _about_each(drawn.to(root.device) @ root, rows, k, "random directions with the data's covariance", seed)


def exemplars(rows: Activations, n_latents: int, k: Active, seed: int) -> Saes:
    """Single rows less the mean of their modality, in equal numbers of each modality: a dictionary that learned nothing by heart.

    It has no more latents than there are rows.
    """
    parts, left = [], n_latents
    for i, (modality, x) in enumerate(sorted(rows.items(), key=lambda item: len(item[1]))):
        n = min(left // (len(rows) - i), len(x))
        drawn = torch.randperm(len(x), generator=_generator(seed, f"exemplars/{modality}"))[:n]
        parts.append(x[drawn.to(x.device)] - x.mean(0))
        left -= n
    return _about_each(torch.cat(parts), rows, k, "rows of the data", seed)


def principal(rows: Activations, n_latents: int, k: Active, seed: int) -> Saes:
    """Principal components and their opposites, those of most variance first; at most two for each dimension."""
    _, vectors = torch.linalg.eigh(pooled_covariance(rows))
    first = vectors.flip(1).t()[: -(-n_latents // 2)]
    return _about_each(torch.stack([first, -first], dim=1).flatten(0, 1)[:n_latents], rows, k, "principal components", seed)


def pooled_covariance(rows: Activations) -> Float[Tensor, "d d"]:
    """Mean over modalities of the covariance within each, scaled to a mean squared deviation of 1, in float64.

    Not of both together: the distance between the modalities' means would be its first component, and the modality of larger
    rows the rest.
    """
    found = []
    for x in rows.values():
        _, spread = mean_and_covariance(x)
        found.append(spread / spread.trace().clamp_min(torch.finfo(spread.dtype).tiny))
    return torch.stack(found).mean(0)


def mean_and_covariance(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Of some rows, in float64."""
    mean = x.double().mean(0)
    apart = x.double() - mean
    return mean, apart.t() @ apart / len(x)


def square_root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The symmetric square root of a covariance: the same whatever signs its eigenvectors come with."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.t()


def tied(directions: Float[Tensor, "f d"], sample: Float[Tensor, "n d"], k: int, about: dict[str, object]) -> Sae:
    """Directions as decoder and encoder, the k largest projections active, about the mean of a sample.

    Activations are shrunk by the one factor that reconstructs the sample best: without it, k projections on directions
    chosen for being large would overshoot.
    """
    decoder = torch.nn.functional.normalize(directions, dim=1).to(sample)
    k = min(k, len(decoder))
    raw = Sae(decoder, sample.new_zeros(len(decoder)), decoder, sample.mean(0), Largest(k), sees_centred=True)
    written, wanted = raw.rebuild(sample) - raw.b_dec, sample - raw.b_dec
    shrink = (written * wanted).sum() / written.square().sum().clamp_min(torch.finfo(sample.dtype).tiny)
    return replace(raw, encoder=decoder * shrink, about=about)


def _about_each(directions: Float[Tensor, "f d"], rows: Activations, k: Active, name: str, seed: int) -> Saes:
    return {m: tied(directions, x, k[m], {"control": name, "seed": seed}) for m, x in rows.items()}


def _width(rows: Activations) -> int:
    return next(iter(rows.values())).shape[1]


def _generator(seed: int, use: str) -> torch.Generator:
    return torch.Generator().manual_seed(int(unit_hash(use, f"{seed}/control") * 2**53))
