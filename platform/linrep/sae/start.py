"""The first weights."""

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.architectures import architecture_of
from linrep.sae.config import SaeDesign
from linrep.sae.passes import Weights
from linrep.sae.shard import Shard
from linrep.sample import unit_hash

DRAWN_AT_ONCE = 1024
"""Directions that are drawn and held at once where only some are wanted; a multiple of 16, see `unit_rows`."""


def geometric_median(x: Float[Tensor, "n d"], steps: int = 100, tolerance: float = 1e-6) -> Float[Tensor, " d"]:
    """The point whose summed distance to the rows is least; far rows pull no harder than near ones.

    Args:
        x: Rows, at least one.
        steps: Weiszfeld steps, at most.
        tolerance: Stop when a step is shorter than this share of the mean distance.

    Source: Weiszfeld, 1937; its use for SAEs, Bricken et al., "Towards monosemanticity", 2023.
    """
    median = x.mean(0)
    for _ in range(steps):
        distances = (x - median).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
        weights = 1 / distances
        new = (weights @ x) / weights.sum()
        moved, median = (new - median).norm(), new
        if moved <= tolerance * distances.mean():
            break
    return median


def center(x: Float[Tensor, "n d"], kind: str) -> Float[Tensor, " d"]:
    """Where b_dec begins: geometric_median, mean or zero."""
    if kind == "zero":
        return x.new_zeros(x.shape[1])
    return geometric_median(x) if kind == "geometric_median" else x.mean(0)


def unit_rows(n: int, d: int, seed: int, use: str = "", shard: Shard | None = None) -> Float[Tensor, "l d"]:
    """Random directions, the same for a seed on every machine.

    Args:
        n: How many are drawn.
        d: Their width.
        seed: Of the draw.
        use: What they are for. An SAE begins at random directions: a control of the same draw would be its relative.
        shard: Which of them are wanted; the others are drawn and not held. None for all.
    """
    drawn = seed if not use else int(unit_hash(use, f"{seed}/directions") * 2**53)
    generator = torch.Generator().manual_seed(drawn)
    if shard is None or shard.whole:
        rows = torch.randn(n, d, generator=generator)
    else:
        kept = []
        for first in range(0, n, DRAWN_AT_ONCE):
            # The last two blocks in one draw: of a number of values that 16 does not divide, the last 16 are drawn once more.
            last = n if n - first < 2 * DRAWN_AT_ONCE else first + DRAWN_AT_ONCE
            block = torch.randn(last - first, d, generator=generator)
            kept.append(block[max(shard.first - first, 0) : max(shard.last - first, 0)].clone())
            if last == n:
                break
        rows = torch.cat(kept)
    return rows / rows.norm(dim=1, keepdim=True)


def first_directions(config: SaeDesign, d: int) -> Float[Tensor, "f d"] | None:
    """The decoder's rows before training, from the seed alone; None for an architecture that makes them of data.

    Args:
        config: The SAE.
        d: Width of the residual stream.
    """
    made_of_data = "decoder" in architecture_of(config.activation).derived
    return None if made_of_data else unit_rows(config.n_latents(d), d, config.seed)


def first_weights(config: SaeDesign, sample: Float[Tensor, "n d"], shard: Shard | None = None) -> Weights:
    """Random decoder directions, the encoder as their transpose, and what the architecture makes of them.

    Args:
        config: The SAE.
        sample: Rows to take the center from: of several shuffle pools, scaled as training's are.
        shard: The latents that are wanted; None for all.
    """
    f = config.n_latents(sample.shape[1])
    decoder = unit_rows(f, sample.shape[1], config.seed, shard=shard).to(sample)
    weights = {
        "encoder": decoder.clone(), "b_enc": sample.new_zeros(len(decoder)), "decoder": decoder,
        "b_dec": center(sample, config.center),
    }  # fmt: skip
    return architecture_of(config.activation).first(weights, sample, f)
