"""Bridges between latents: which other one each is tied to most strongly, in blocks: never the scores of all with all."""

import numpy as np
from jaxtyping import Float, Int64
from scipy.sparse import csr_array
from torch import Tensor

from linrep.sharing.fires import ReservoirFires

ROOM = 2**26
"""Bytes of a block of bridge scores."""


def partners(
    kept: tuple[ReservoirFires, ReservoirFires], decoder: Float[Tensor, "f d"], room: int = ROOM
) -> tuple[Int64[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """The other latent with which each has its largest bridge score, and the score of the two; -1 and NaN where none is above 0.

    A score is of a latent on images with one on captions: of the two ways round the larger counts, so that a latent of images
    and the latent of words for them are each other's. Partner and way are chosen on every second pair, the score is that of the
    other pairs: the largest of thousands of scores is larger than it is on pairs that did not choose it.

    Args:
        kept: What fires on the images, and on the captions, of some pairs.
        decoder: What a unit of each latent writes.
        room: Bytes of a block of scores.

    Source: Papadimitriou et al., COLM 2025.
    """
    f = len(decoder)
    partner, score = np.full(f, -1), np.full(f, np.nan)
    alive = np.unique(np.concatenate([kept[0].latent, kept[1].latent]))
    choosing, reporting = _halves(kept, alive)
    scored = len(np.unique(np.concatenate([own.pair for own in kept]))) > 1  # both halves have pairs
    written = decoder[alive].double().numpy()
    step = max(1, room // (8 * max(len(alive), 1)))
    for start in range(0, len(alive), step):
        block = np.arange(start, min(start + step, len(alive)))
        together = written[block] @ written.T
        ways = [(one[:, block].T @ other).toarray() * together for one, other in (choosing, choosing[::-1])]
        chosen, forward, own = np.maximum(*ways), ways[0] >= ways[1], np.arange(len(block))
        chosen[own, block] = 0.0
        best = chosen.argmax(1)
        found = chosen[own, best] > 0
        there, back = (one[:, block].multiply(other[:, best]).sum(0) for one, other in (reporting, reporting[::-1]))
        reported = np.where(forward[own, best], np.ravel(there), np.ravel(back)) * together[own, best]
        partner[alive[block]] = np.where(found, alive[best], -1)
        score[alive[block]] = np.where(found & scored, reported, np.nan)
    return partner, score


def _halves(
    kept: tuple[ReservoirFires, ReservoirFires], alive: Int64[np.ndarray, " a"]
) -> tuple[tuple[csr_array, csr_array], ...]:
    """What fires on images and on captions of every second pair, and of the others: a product of both is a mean over the half.

    Pairs are numbered in the order of a hash of their names, and share no image.
    """
    seen = np.unique(np.concatenate([own.pair for own in kept]))
    halves = []
    for half in range(2):
        chosen = seen[half::2]
        # Pairs on which nothing fires are not listed: each half has as many of them as of the others.
        n_pairs = max(kept[0].n, 1) * len(chosen) / max(len(seen), 1)
        matrices = []
        for own in kept:
            mine = np.isin(own.pair, chosen)
            entries = (
                own.mean[mine] / n_pairs**0.5,
                (np.searchsorted(chosen, own.pair[mine]), np.searchsorted(alive, own.latent[mine])),
            )
            matrices.append(csr_array(entries, shape=(len(chosen), len(alive))))
        halves.append((matrices[0], matrices[1]))
    return halves[0], halves[1]
