"""What an SAE's latents do on single training tokens of images: their means by class, and how often each fires.

A class mean of the stream is a vector that no token has, and its latents are not those of the class's tokens. So tokens are
encoded one by one, and their latents are averaged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sample import unit_hash
from linrep.steer.latents import SaeLike
from linrep.store.blocks import blocks
from linrep.store.layout import View
from linrep.store.read import Store
from linrep.store.samples import class_values, read_samples

IMAGES = 64
"""Training images of each class that are encoded, at most."""
ENCODED_BYTES = 2**26
"""Latents held at once: all of them, of as many rows as this has room for."""
VIEW_OF_SITE: Mapping[str, View] = {"image": "tokens", "patches": "tokens", "everywhere": "tokens", "last": "last"}
"""Which single tokens of the store are like those that are edited at a site."""


@dataclass(frozen=True)
class TokenLatents:
    """Latents of single tokens of the training images.

    Attributes:
        names: The classes.
        means: Mean activation of each latent over the tokens of each class, silent ones included.
        rates: Share of all tokens on which each latent fires.
    """

    names: tuple[str, ...]
    means: Float[Tensor, "c f"]
    rates: Float[Tensor, " f"]

    def mean(self, name: str) -> Float[Tensor, " f"]:
        """The mean of a class.

        Raises:
            ValueError: No training token of this class was read.
        """
        if name not in self.names:
            raise ValueError(f"no training image of {name!r} was encoded: there are {', '.join(self.names) or 'none'}")
        return self.means[self.names.index(name)]


def read_token_latents(store: Store, sae: SaeLike, layer: int, view: View, names: Sequence[str]) -> TokenLatents:
    """Encode single tokens of the training images of some classes: of each class `IMAGES` images, drawn by a hash.

    Args:
        store: The activations.
        sae: The SAE of this layer.
        layer: Layer k.
        view: tokens, or last.
        names: Classes as the probes call them; those without a training image are left out.
    """
    table = store.samples()
    samples = read_samples(table)
    classes = class_values(table, samples)
    train = samples.of("image", "train")
    number = np.full(len(classes), -1)
    for c, name in enumerate(names):
        own = [i for i, value in enumerate(classes) if train[i] and value == name]
        number[sorted(own, key=lambda i: unit_hash(samples.ids[i], "latents"))[:IMAGES]] = c
    sums, fires = torch.zeros(len(names), sae.n_latents, dtype=torch.float64), torch.zeros(sae.n_latents, dtype=torch.float64)
    n, step = torch.zeros(len(names), dtype=torch.float64), max(1, ENCODED_BYTES // (4 * sae.n_latents))
    for block in blocks(store, store.select(view, layer, "image").files, view, number >= 0):
        of_class = torch.from_numpy(number[block.sample])
        for x, c in zip(block.x.split(step), of_class.split(step), strict=True):
            z = sae.encode(x.float()).double()
            sums.index_add_(0, c, z)
            fires += (z > 0).sum(0)
            n += torch.bincount(c, minlength=len(names))
    seen = [c for c in range(len(names)) if n[c] > 0]
    means = (sums[seen] / n[seen, None]).float()
    return TokenLatents(tuple(names[c] for c in seen), means, (fires / n.sum().clamp(min=1)).float())
