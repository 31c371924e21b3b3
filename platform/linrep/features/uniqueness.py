"""How many of its top samples a latent has to itself."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse

AT_ONCE = 1024


@dataclass(frozen=True)
class Unique:
    """Of f latents.

    Attributes:
        uniqueness: 1 - the largest Jaccard index of a latent's top samples with another one's; NaN where it has none.
        most_alike: The latent with that index (the first of equals), -1 where no other shares a sample.
    """

    uniqueness: Float64[np.ndarray, " f"]
    most_alike: Int64[np.ndarray, " f"]


def unique(latent: Int64[np.ndarray, " n"], sample: Int64[np.ndarray, " n"], n_latents: int) -> Unique:
    """How far the top samples of each latent are its own.

    Args:
        latent: Latent of each top example.
        sample: Its sample, of either modality, by any number.
        n_latents: f.

    Source: the Jaccard index |A and B| / |A or B| of two latents' sets of samples; the nearest latent decides.
    """
    of = np.unique(sample, return_inverse=True)[1] if len(sample) else sample
    sets = sparse.csr_matrix(
        (np.ones(len(latent), np.int32), (latent, of)), (n_latents, int(of.max(initial=-1)) + 1 if len(of) else 1)
    )
    sets.data[:] = 1
    sizes = np.asarray(sets.sum(1)).ravel()
    closest, which = np.zeros(n_latents), np.full(n_latents, -1)
    others = sets.T.tocsr()
    for start in range(0, n_latents, AT_ONCE):
        both = (sets[start : start + AT_ONCE] @ others).tocoo()
        row, column, shared = both.row + start, both.col, both.data
        apart = row != column
        row, column, shared = row[apart], column[apart], shared[apart]
        index = shared / (sizes[row] + sizes[column] - shared)
        order = np.lexsort((column, -index, row))
        first = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
        closest[row[first]], which[row[first]] = index[first], column[first]
    return Unique(np.where(sizes > 0, 1 - closest, np.nan), which)
