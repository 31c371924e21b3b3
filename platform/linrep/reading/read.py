"""A sequence read: pure functions from its activations to the record that pages and terminals show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from linrep.encoder import Encoder
from linrep.reading.latents import Peaks, Strongest, peaks, strongest
from linrep.reading.probes import Probe, ProbeReading, read_probes
from linrep.reading.tokens import Tokens
from linrep.store.layout import View
from linrep.vlm.nearest_words import NearestWords, nearest_words
from linrep.vlm.prepared import Role
from linrep.vlm.unembed import Unembedding

HighNorm = Bool[Tensor, "l t"]


@dataclass(frozen=True)
class ReadSae:
    """An SAE to read with.

    Attributes:
        layer: Its layer.
        name: What tables call it.
        encoder: What encodes.
    """

    layer: int
    name: str
    encoder: Encoder


@dataclass(frozen=True)
class Fires:
    """What an SAE sees in a sequence.

    Attributes:
        layer: Its layer.
        sae: What tables call it.
        strongest: Its latents at each position; none at those of high norm.
    """

    layer: int
    sae: str
    strongest: Strongest


@dataclass(frozen=True)
class Reading:
    """What is read in one sequence, or in those of its positions that a store holds.

    Attributes:
        layers: Layers that are read.
        tokens: The positions.
        n_image: Image positions of the whole sequence, newlines included, of which `tokens` may hold a draw.
        n_text: Positions of its own text likewise.
        seen: Height and width of the image as the processor saw it; None without an image.
        high_norm: By layer and position, whether the norm is above the store's limit: no latents are read there, and pages show
            no words.
        fires: By SAE.
        words: The nearest words by layer and position; None without an output matrix.
        probes: What the probes read in the sequence's mean and in its last position.
    """

    layers: tuple[int, ...]
    tokens: Tokens
    n_image: int
    n_text: int
    seen: tuple[int, int] | None
    high_norm: HighNorm
    fires: tuple[Fires, ...]
    words: NearestWords | None
    probes: tuple[ProbeReading, ...]


@dataclass(frozen=True)
class Reader:
    """What sequences are read with.

    Attributes:
        saes: SAEs.
        unembedding: The model's output matrix and words; None leaves words out.
        probes: Discriminants, those of the sequence's modality.
        n_latents: Latents of a position.
        n_words: Words of a position and layer.
    """

    saes: Sequence[ReadSae] = ()
    unembedding: Unembedding | None = None
    probes: Sequence[Probe] = ()
    n_latents: int = 8
    n_words: int = 3

    def read(
        self,
        h: Float[Tensor, "l t d"],
        layers: Sequence[int],
        tokens: Tokens,
        high_norm: HighNorm,
        vectors: Mapping[tuple[View, int], Tensor],
        counts: tuple[int, int] | None = None,
        seen: tuple[int, int] | None = None,
    ) -> Reading:
        """Read a sequence.

        Args:
            h: Its stream, in the model's own scale.
            layers: Which layers.
            tokens: What its positions are.
            high_norm: Positions above the norm limit, by layer.
            vectors: Its mean and last vectors of shape [d], by view and layer, for the probes.
            counts: Image positions and own text positions of the whole sequence; None where these are all.
            seen: Height and width of the image as the processor saw it.

        Raises:
            ValueError: Layers or positions are not as many as the stream has.
        """
        if h.shape[:2] != (len(layers), len(tokens)):
            raise ValueError(f"{len(layers)} layers and {len(tokens)} positions for a stream of shape {tuple(h.shape)}")
        at = {layer: i for i, layer in enumerate(layers)}
        fires = tuple(
            Fires(one.layer, one.name, strongest(one.encoder, h[at[one.layer]], self.n_latents, ~high_norm[at[one.layer]]))
            for one in self.saes
            if one.layer in at
        )
        words = None if self.unembedding is None else nearest_words(h, self.unembedding, self.n_words)
        probes = read_probes(vectors, self.probes)
        n_image, n_text = counts or (int(tokens.of_image.sum()), int(tokens.of_text.sum()))
        return Reading(tuple(layers), tokens, n_image, n_text, seen, high_norm, fires, words, probes)


def strongest_of(reading: Reading, fires: Fires, n: int) -> Peaks:
    """The n latents of an SAE that fire most strongly in the image, or in the text where there is no image."""
    tokens = reading.tokens
    among = tokens.role == int(Role.IMAGE) if tokens.of_image.any() else tokens.of_text
    return peaks(fires.strongest, torch.from_numpy(np.ascontiguousarray(among)), n)


def mean_vector(h: Float[Tensor, "t d"], among: Bool[np.ndarray, " t"], high_norm: Bool[Tensor, " t"]) -> Tensor | None:
    """The mean of some positions without those of high norm, as the pooled view of a store has it; None where none is left.

    Args:
        h: The stream of one layer.
        among: Positions of the modality.
        high_norm: Those above the limit.
    """
    kept = torch.from_numpy(np.ascontiguousarray(among)) & ~high_norm
    return h[kept].float().mean(0) if bool(kept.any()) else None
