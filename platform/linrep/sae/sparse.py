"""The fast pass of TopK, BatchTopK and Matryoshka: one dense product, the encoder's, and everything else on the active entries.

What is left of the input pulls on the reconstruction, and `linrep.sae.backward` takes that to the weights.

Source: Bussmann et al., "Learning multi-level features with Matryoshka sparse autoencoders", 2025 (the mean over prefixes).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.auxk import Revival, revive
from linrep.sae.backward import Backward
from linrep.sae.config import BatchTopK, Matryoshka, TopK
from linrep.sae.ops import bag_totals, gather_sum, offsets_of
from linrep.sae.passes import Gradients, Pass, Weights
from linrep.sae.select import Codes, Encoder, batch_top_k, top_k


def sparse_pass(
    weights: Weights,
    x: Float[Tensor, "n d"],
    activation: TopK | BatchTopK | Matryoshka,
    room: Float[Tensor, "r f"],
    scale: Float[Tensor, " f"] | None = None,
    revival: Revival | None = None,
) -> Pass:
    """Loss and gradients of a batch.

    Args:
        weights: The dictionary.
        x: Inputs.
        activation: How latents are chosen.
        room: Scratch for pre-activations, see `linrep.sae.select.scratch`.
        scale: Norms of the decoder's rows where activations are compared by what they contribute.
        revival: Dead latents, and how they are taught.
    """
    n = len(x)
    centred = x - weights["b_dec"]
    encoder = Encoder(weights["encoder"], weights["b_enc"], scale, room)
    codes, least = (top_k(encoder, centred, activation.k), None) if isinstance(activation, TopK) else (
        batch_top_k(encoder, centred, activation.k)
    )  # fmt: skip
    segments = segments_of(activation, codes.n_latents)
    nested = _by_segment(codes, segments)
    residuals = _residuals(nested, weights["decoder"], centred, len(segments))
    auxiliary, taught = revive(weights, centred, residuals[:, -1], revival, room)
    # A latent of segment s is part of the reconstructions s, s + 1, ...: it feels the sum of their gradients.
    pull = residuals.mul(2 / (n * len(segments)))
    pull = pull.flip(1).cumsum(1).flip(1) if len(segments) > 1 else pull
    back = Backward.of(nested, weights["decoder"], centred, pull.flatten(0, 1))

    def matrices(first: int, last: int) -> tuple[Tensor, Tensor]:
        encoder, decoder = back.matrices(first, last)
        taught.add_to(first, last, encoder, decoder)
        return encoder, decoder

    b_enc, along = taught.add_to_vectors(back.bias, back.along)
    b_dec = pull[:, 0].sum(0) - b_enc @ weights["encoder"]  # the encoder sees x - b_dec
    return Pass(
        residual=residuals[:, -1],
        n_active=bag_totals((codes.values > 0).to(x.dtype), codes.offsets).long(),
        fired=bag_totals((back.values > 0).to(x.dtype), back.offsets) > 0,
        gradients=Gradients({"b_enc": b_enc, "b_dec": b_dec}, matrices, along),
        penalty=x.new_zeros(()),
        auxiliary=auxiliary,
        threshold=least,
    )


def segments_of(activation: TopK | BatchTopK | Matryoshka, n_latents: int) -> tuple[int, ...]:
    """The last latent, exclusive, of each nested prefix; one segment for architectures without prefixes."""
    shares = activation.prefixes if isinstance(activation, Matryoshka) else (1.0,)
    return tuple(max(1, round(share * n_latents)) for share in shares)


def _by_segment(codes: Codes, segments: tuple[int, ...]) -> Codes:
    """The codes with a bag for each row and segment instead of one for each row."""
    if len(segments) == 1:
        return codes
    ends = torch.tensor(segments, device=codes.latents.device)
    bags = codes.rows() * len(segments) + torch.searchsorted(ends, codes.latents, right=True)
    order = bags.argsort(stable=True)
    offsets = offsets_of(torch.bincount(bags, minlength=len(codes) * len(segments)))
    return Codes(offsets, codes.latents[order], codes.values[order], codes.n_latents)


def _residuals(
    codes: Codes, decoder: Float[Tensor, "f d"], centred: Float[Tensor, "n d"], n_segments: int
) -> Float[Tensor, "n segments d"]:
    """Reconstruction minus input, for each prefix."""
    parts = gather_sum(decoder, codes.latents, codes.values, codes.offsets).unflatten(0, (-1, n_segments))
    return (parts.cumsum(1) if n_segments > 1 else parts).sub_(centred[:, None])
