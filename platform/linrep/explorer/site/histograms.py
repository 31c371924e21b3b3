"""How strongly latents fire, by modality: counts of their activations in equal steps, from the codes of their features."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from linrep.features.artefact import Features, StudiedSae
from linrep.features.codes import read_codes
from linrep.store.layout import MODALITIES, Modality

BINS = 16
ENTRIES = 200_000_000
"""Activations counted, at most of each modality: a part of a large store tells as much."""


@dataclass(frozen=True)
class Histograms:
    """Counts of the activations of the f latents of an SAE.

    Attributes:
        counts: By modality: how many activations lie in each step; steps are of equal width and end at the latent's largest.
        tokens: Tokens that were looked at, by modality.
        whole: Whether these are all that the features know.
    """

    counts: dict[Modality, Int64[np.ndarray, "f bins"]]
    tokens: dict[Modality, int]
    whole: bool


def histograms(features: Features, sae: StudiedSae, largest: Float32[np.ndarray, " f"], most: int = ENTRIES) -> Histograms:
    """Count the activations of all latents of an SAE.

    Args:
        features: Where it was looked into.
        sae: It.
        largest: Its latents' largest activations; 0 of those that never fire.
        most: Activations counted, at most of each modality, in whole files.
    """
    counts, tokens, whole = {}, {}, True
    scale = np.divide(BINS, largest, out=np.zeros(len(largest)), where=largest > 0)
    for modality in MODALITIES:
        found, seen, n = np.zeros(len(largest) * BINS, np.int64), 0, 0
        for file in features.codes(sae.folder, modality):
            if n >= most:
                whole = False
                break
            coded = read_codes(file)
            step = np.minimum((coded.values * scale[coded.latents]).astype(np.int64), BINS - 1)
            found += np.bincount(coded.latents.astype(np.int64) * BINS + step, minlength=len(found))
            seen, n = seen + len(coded), n + len(coded.values)
        counts[modality], tokens[modality] = found.reshape(-1, BINS), seen
    return Histograms(counts, tokens, whole)
