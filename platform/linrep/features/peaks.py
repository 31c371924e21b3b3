"""Where each latent fires most on each sample."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64

from linrep.features.columns import Firings


@dataclass(frozen=True)
class Peaks:
    """For each sample and each latent that fires on it, once: the token where it fires most (the first of equals).

    Attributes:
        sample: The sample.
        latent: The latent.
        value: Its activation there.
        position: The token's place in the sequence.
    """

    sample: Int64[np.ndarray, " p"]
    latent: Int64[np.ndarray, " p"]
    value: Float32[np.ndarray, " p"]
    position: Int32[np.ndarray, " p"]


def peaks(fired: Firings) -> Peaks:
    """Where each latent fires most on each sample, by latent and sample."""
    if not len(fired.value):
        return Peaks(fired.sample, fired.latent, fired.value, fired.position)
    starts = np.flatnonzero((np.diff(fired.latent, prepend=-1) != 0) | (np.diff(fired.sample, prepend=-1) != 0))
    lengths = np.diff(np.append(starts, len(fired.value)))
    most = np.maximum.reduceat(fired.value, starts)
    at = np.flatnonzero(fired.value == np.repeat(most, lengths))
    group = np.repeat(np.arange(len(starts)), lengths)[at]
    at = at[np.flatnonzero(np.diff(group, prepend=-1))]
    return Peaks(fired.sample[at], fired.latent[at], fired.value[at], fired.position[at])
