"""How often and how strongly each latent fires, on the tokens and the samples of one modality."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float32, Float64, Int64

from linrep.features.columns import Firings
from linrep.features.peaks import Peaks


@dataclass(frozen=True)
class Rates:
    """Sums over t tokens of n samples, for f latents.

    Attributes:
        tokens: Tokens.
        samples: Samples.
        fired: Tokens on which each latent fires.
        total: Sum of its activations.
        squares: Sum of their squares.
        most: The largest.
        present: Samples on which it fires.
    """

    tokens: int
    samples: int
    fired: Int64[np.ndarray, " f"]
    total: Float64[np.ndarray, " f"]
    squares: Float64[np.ndarray, " f"]
    most: Float32[np.ndarray, " f"]
    present: Int64[np.ndarray, " f"]

    @staticmethod
    def none(f: int) -> "Rates":
        """Of no tokens."""
        count, total = np.zeros(f, np.int64), np.zeros(f)
        return Rates(0, 0, count, total, total, np.zeros(f, np.float32), count)

    @staticmethod
    def of(fired: Firings, own: Peaks, f: int) -> "Rates":
        """Of some whole samples."""
        value = fired.value.astype(np.float64)
        most = np.zeros(f, np.float32)
        np.maximum.at(most, own.latent, own.value)
        return Rates(
            tokens=fired.tokens,
            samples=len(fired.samples),
            fired=np.bincount(fired.latent, minlength=f),
            # Of nothing, bincount gives whole numbers.
            total=np.bincount(fired.latent, value, f).astype(np.float64),
            squares=np.bincount(fired.latent, value * value, f).astype(np.float64),
            most=most,
            present=np.bincount(own.latent, minlength=f),
        )

    def __add__(self, other: "Rates") -> "Rates":
        both = ((getattr(self, f.name), getattr(other, f.name), f.name) for f in fields(self))
        return Rates(*(np.maximum(a, b) if name == "most" else a + b for a, b, name in both))

    @property
    def mean(self) -> Float64[np.ndarray, " f"]:
        """Mean activation over all tokens, silent ones included; 0 without tokens."""
        return self.total / max(self.tokens, 1)

    @property
    def std(self) -> Float64[np.ndarray, " f"]:
        """Standard deviation of the same."""
        return np.sqrt(np.maximum(self.squares / max(self.tokens, 1) - self.mean**2, 0.0))
