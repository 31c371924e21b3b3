"""Monosemanticity: whether the images that excite a latent look alike to an encoder that had no part in it.

MS_k = sum over pairs n < m of a_n a_m s_nm / sum of a_n a_m, with a the latent's largest activation on each image, scaled from
its least to its largest, and s the cosine in the other encoder. Both sums over pairs are functions of sums over images (the
weighted sum of unit vectors, the sums of a and of a^2), so one pass is exact, and no image is compared with another.

Source: Pach et al., "Sparse autoencoders learn monosemantic features in vision-language models", NeurIPS 2025.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64
from scipy import sparse

from linrep.features.peaks import Peaks


@dataclass(frozen=True)
class Embedded:
    """Vectors of the store's s samples by an independent encoder.

    Attributes:
        of: Row of each sample, -1 for those without.
        units: The vectors, at norm 1.
    """

    of: Int64[np.ndarray, " s"]
    units: Float32[np.ndarray, "m e"]


class Weighted:
    """Sums over images, for f latents. Bytes: 8 f e and a little more."""

    def __init__(self, f: int, e: int) -> None:
        self.vectors: Float64[np.ndarray, "f e"] = np.zeros((f, e))
        self.total: Float64[np.ndarray, " f"] = np.zeros(f)
        self.squares: Float64[np.ndarray, " f"] = np.zeros(f)
        self.least: Float32[np.ndarray, " f"] = np.full(f, np.inf, np.float32)
        self.present: Int64[np.ndarray, " f"] = np.zeros(f, np.int64)
        self.all: Float64[np.ndarray, " e"] = np.zeros(e)
        self.images = 0

    def add(self, found: Peaks, samples: Int64[np.ndarray, " m"], embedded: Embedded) -> None:
        """Take in some samples: what fires on them, and all of them."""
        rows = embedded.of[samples]
        rows = rows[rows >= 0]
        self.images += len(rows)
        self.all += embedded.units[rows].sum(0, dtype=np.float64)
        own = embedded.of[found.sample]
        has = own >= 0
        latent, value, row = found.latent[has], found.value[has].astype(np.float64), own[has]
        if not len(latent):
            return
        there, column = np.unique(row, return_inverse=True)
        # Only the latents that fire here: a product over all of them would cost more than the encoder.
        live, nth = np.unique(latent, return_inverse=True)
        weights = sparse.csr_matrix((value, (nth, column)), (len(live), len(there)))
        self.vectors[live] += weights @ embedded.units[there].astype(np.float64)
        f = len(self.total)
        self.total += np.bincount(latent, value, f)
        self.squares += np.bincount(latent, value * value, f)
        self.present += np.bincount(latent, minlength=f)
        np.minimum.at(self.least, latent, found.value[has])

    def merge(self, other: "Weighted") -> None:
        """Take in what another one did."""
        for name in ("vectors", "total", "squares", "present", "all", "images"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.least = np.minimum(self.least, other.least)

    def scores(self, min_samples: int) -> Float64[np.ndarray, " f"]:
        """The score of each latent; NaN where it fires on too few images, or equally on all."""
        # A latent that fires on every image has a least activation; any other is 0 on some.
        least = np.where(self.present == self.images, self.least, 0.0)
        least[self.present == 0] = 0.0
        vectors = self.vectors - least[:, None] * self.all
        total = self.total - least * self.images
        squares = self.squares - 2 * least * self.total + least**2 * self.images
        above, below = (vectors**2).sum(1) - squares, total**2 - squares
        enough = (self.present >= max(min_samples, 2)) & (below > 1e-9 * np.maximum(self.total**2, 1e-30))
        return np.divide(above, below, out=np.full(len(below), np.nan), where=enough)

    @property
    def chance(self) -> float:
        """The score of a latent that is blind: the mean cosine of any two images."""
        n = self.images
        return float((self.all @ self.all - n) / (n * (n - 1))) if n > 1 else float("nan")
