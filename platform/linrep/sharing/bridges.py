"""Bridges between latents: which other one each is tied to most strongly, in blocks: never the scores of all with all."""

import numpy as np
from jaxtyping import Float, Int64
from scipy.sparse import csr_array
from torch import Tensor

from linrep.sharing.fires import Kept

ROOM = 2**26
"""Bytes of a block of bridge scores."""


def partners(
    kept: tuple[Kept, Kept], decoder: Float[Tensor, "f d"], room: int = ROOM
) -> tuple[Int64[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """The other latent with which each has its largest bridge score, and that score; -1 and NaN where none is above 0.

    A score is of a latent on images with one on captions: of the two ways round the larger counts, so that a latent of pictures
    and the latent of words for them are each other's.

    Args:
        kept: What fires on the images, and on the captions, of some pairs.
        decoder: What a unit of each latent writes.
        room: Bytes of a block of scores.

    Source: Papadimitriou et al., COLM 2025.
    """
    f = len(decoder)
    partner, score = np.full(f, -1), np.full(f, np.nan)
    alive, at = np.unique(np.concatenate([kept[0].latent, kept[1].latent]), return_inverse=True)
    n_pairs = max(kept[0].n, 1)
    rows = 1 + max((int(own.pair.max()) for own in kept if len(own.pair)), default=0)
    columns = np.split(at, [len(kept[0].latent)])
    images, texts = (
        csr_array((own.mean / n_pairs**0.5, (own.pair, column)), shape=(rows, len(alive)))
        for own, column in zip(kept, columns, strict=True)
    )
    written = decoder[alive].double().numpy()
    step = max(1, room // (8 * max(len(alive), 1)))
    for start in range(0, len(alive), step):
        block = np.arange(start, min(start + step, len(alive)))
        together = np.maximum((images[:, block].T @ texts).toarray(), (texts[:, block].T @ images).toarray())
        together *= written[block] @ written.T
        together[np.arange(len(block)), block] = 0.0
        best = together.argmax(1)
        found = together[np.arange(len(block)), best]
        partner[alive[block]] = np.where(found > 0, alive[best], -1)
        score[alive[block]] = np.where(found > 0, found, np.nan)
    return partner, score
