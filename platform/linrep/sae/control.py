"""The control of every trained SAE: random directions with as many latents, as many of them active."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.architectures.topk import Largest
from linrep.sae.coder import Sae
from linrep.sae.start import unit_rows


def random_sae(sample: Float[Tensor, "n d"], n_latents: int, k: int, seed: int = 0) -> Sae:
    """The control: random directions as decoder and encoder, k active latents, about the mean of a sample.

    Its activations are shrunk by the one factor that reconstructs the sample best: without it, k projections on directions
    chosen for being large would overshoot.

    Source: the control of "Sanity checks for sparse autoencoders", 2026.
    """
    decoder = unit_rows(n_latents, sample.shape[1], seed, "control").to(sample)
    raw = Sae(decoder, sample.new_zeros(n_latents), decoder, sample.mean(0), Largest(k), sees_centred=True)
    written, wanted = raw.rebuild(sample) - raw.b_dec, sample - raw.b_dec
    shrink = (written * wanted).sum() / written.square().sum().clamp_min(torch.finfo(sample.dtype).tiny)
    return replace(raw, encoder=decoder * shrink, about={"control": "random directions", "seed": seed})
