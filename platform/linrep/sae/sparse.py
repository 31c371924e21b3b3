"""The fast pass of architectures that choose by size: one dense product, the encoder's, and the rest on the active entries.

What is left of the input pulls on the reconstruction, and `linrep.sae.backward` takes that to the weights.

Source: Bussmann et al., "Learning multi-level features with Matryoshka sparse autoencoders", 2025 (the mean over prefixes).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.architecture import Step
from linrep.sae.auxk import revive
from linrep.sae.backward import Backward
from linrep.sae.ops import bag_totals, gather_sum, offsets_of
from linrep.sae.passes import Gradients, Pass, Weights
from linrep.sae.select import Codes, Encoder
from linrep.workers import Workers

Choice = Callable[[Encoder, Tensor], tuple[Codes, Tensor | None]]
"""(encoder, what it sees) -> the active entries, and the least of them where they were chosen over the whole batch; of several
workers the entries are this one's, the least is of all."""


def sparse_pass(weights: Weights, x: Float[Tensor, "n d"], choose: Choice, step: Step, shares: Sequence[float] = (1.0,)) -> Pass:
    """Loss and gradients of a batch.

    Args:
        weights: The SAE.
        x: Inputs.
        choose: How latents are chosen.
        step: Its scratch is for pre-activations; see `linrep.sae.select.scratch`.
        shares: Shares of the latents that reconstruct alone, rising to 1; the loss is the mean over them.
    """
    n = len(x)
    centred = x - weights["b_dec"]
    codes, least = choose(Encoder(weights["encoder"], weights["b_enc"], step.norms, step.room), centred)
    segments = segments_of(shares, codes.n_latents if step.shard is None else step.shard.n_latents)
    nested = _by_segment(codes, segments, 0 if step.shard is None else step.shard.first)
    residuals = _residuals(nested, weights["decoder"], centred, len(segments), step.workers)
    auxiliary, taught = revive(weights, centred, residuals[:, -1], step.revival, step.room, step.workers)
    # A latent of segment s is part of the reconstructions s, s + 1, ...: it feels the sum of their gradients.
    pull = residuals.mul(2 / (n * len(segments)))
    pull = pull.flip(1).cumsum(1).flip(1) if len(segments) > 1 else pull
    back = Backward.of(nested, weights["decoder"], centred, pull.flatten(0, 1))

    def matrices(first: int, last: int) -> Weights:
        encoder, decoder = back.matrices(first, last)
        taught.add_to(first, last, encoder, decoder)
        return {"encoder": encoder, "decoder": decoder}

    b_enc, along = taught.add_to_vectors(back.bias, back.along)
    by_encoder = b_enc @ weights["encoder"]  # which sees x - b_dec
    step.workers.sum_([by_encoder])
    b_dec = pull[:, 0].sum(0) - by_encoder
    return Pass(
        residual=residuals[:, -1],
        n_active=bag_totals((codes.values > 0).to(x.dtype), codes.offsets).long(),
        fired=bag_totals((back.values > 0).to(x.dtype), back.offsets) > 0,
        gradients=Gradients({"b_enc": b_enc, "b_dec": b_dec}, matrices, codes.n_latents, along),
        penalty=x.new_zeros(()),
        auxiliary=auxiliary,
        threshold=least,
    )


def segments_of(shares: Sequence[float], n_latents: int) -> tuple[int, ...]:
    """The last latent, exclusive, of each nested prefix."""
    return tuple(max(1, round(share * n_latents)) for share in shares)


def _by_segment(codes: Codes, segments: tuple[int, ...], first: int) -> Codes:
    """The codes with a bag for each row and segment instead of one for each row; `first` is the number of latent 0."""
    if len(segments) == 1:
        return codes
    ends = torch.tensor(segments, device=codes.latents.device)
    bags = codes.rows() * len(segments) + torch.searchsorted(ends, codes.latents + first, right=True)
    order = bags.argsort(stable=True)
    offsets = offsets_of(torch.bincount(bags, minlength=len(codes) * len(segments)))
    return Codes(offsets, codes.latents[order], codes.values[order], codes.n_latents)


def _residuals(
    codes: Codes, decoder: Float[Tensor, "f d"], centred: Float[Tensor, "n d"], n_segments: int, workers: Workers
) -> Float[Tensor, "n segments d"]:
    """Reconstruction minus input, for each prefix."""
    parts = gather_sum(decoder, codes.latents, codes.values, codes.offsets)
    workers.sum_([parts])
    parts = parts.unflatten(0, (-1, n_segments))
    return (parts.cumsum(1) if n_segments > 1 else parts).sub_(centred[:, None])
