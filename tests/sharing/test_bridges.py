"""Partners of latents: chosen on one half of the pairs and scored on the other, as a dense reference says and as planted."""

import numpy as np
import pytest
import torch

from linrep.sharing.bridges import partners
from linrep.sharing.fires import ReservoirFires


def kept_of(*means: np.ndarray) -> tuple[ReservoirFires, ReservoirFires]:
    """Activations of images and of captions, pairs by latents, as they are kept: without zeros."""
    images, texts = (ReservoirFires(*np.nonzero(own), own[np.nonzero(own)], len(own)) for own in means)
    return images, texts


def firing(rng: np.random.Generator, n: int, f: int) -> np.ndarray:
    """Latents that each fire on a fifth of the pairs."""
    return np.where(rng.random((n, f)) < 0.2, rng.exponential(1.0, (n, f)), 0.0)


def dense(means: tuple[np.ndarray, np.ndarray], decoder: np.ndarray, pairs: slice) -> np.ndarray:
    """All scores of some pairs at once, for both ways round."""
    z, w = (own[pairs] for own in means)
    return np.stack([z.T @ w, w.T @ z]) / len(z) * (decoder @ decoder.T)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("room", [2**20, 8 * 24 * 5])
def test_partner_and_score_are_those_of_the_whole_matrices_of_both_halves(room, signed):
    """Dense reference: the largest score of the even pairs, the larger way round, no diagonal; its value on the odd pairs."""
    rng = np.random.default_rng(0)
    means = firing(rng, 60, 24), firing(rng, 60, 24)
    for own in means:
        own[:, 0] += 0.1  # a pair on which nothing fires is in neither half
        own *= rng.choice([-1, 1], own.shape) if signed else 1
    decoder = rng.standard_normal((24, 5))
    chosen, reported = (dense(means, decoder, slice(half, None, 2)) for half in range(2))
    larger = chosen.max(0)
    np.fill_diagonal(larger, 0)
    best = larger.argmax(1)
    way, own = chosen.argmax(0)[np.arange(24), best], np.arange(24)
    partner, score = partners(kept_of(*means), torch.from_numpy(decoder), room)
    assert partner.tolist() == best.tolist()
    assert score == pytest.approx(reported[way, own, best])
    assert (way == 1).any()


def test_pairs_on_which_nothing_fires_count_in_both_halves():
    rng = np.random.default_rng(1)
    means, decoder = (firing(rng, 40, 6), firing(rng, 40, 6)), torch.from_numpy(rng.random((6, 3)))
    few = kept_of(*means)
    partner, score = partners(few, decoder)
    with_silent = tuple(ReservoirFires(own.pair, own.latent, own.mean, 2 * own.n) for own in few)
    again, halved = partners((with_silent[0], with_silent[1]), decoder)
    assert again.tolist() == partner.tolist()
    assert halved == pytest.approx(score / 2)


def test_without_bridges_the_score_of_a_partner_is_that_of_other_pairs():
    """Of latents that fire independently every score is 0.04, the product of the means; the largest of 300 is far above it."""
    n, f = 200, 300
    scores, on_the_same = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        means = firing(rng, n, f), firing(rng, n, f)
        scores.append(partners(kept_of(*means), torch.ones(f, 1))[1].mean())
        on_the_same.append(dense(means, np.ones((f, 1)), slice(None)).max((0, 2)).mean())
    assert min(on_the_same) > 0.08  # what the pairs that chose the partners would say
    error = np.std(scores, ddof=1) / 20**0.5
    assert abs(np.mean(scores) - 0.04) < 3 * error
    assert error < 0.002


def test_planted_bridges_are_found_with_their_strength():
    """Latent i of images and latent i + f of captions fire together: mean square of the activation, 2 in a fifth of the pairs."""
    n, f = 400, 100
    rng = np.random.default_rng(2)
    concept, nothing = firing(rng, n, f), np.zeros((n, f))
    means = np.hstack([concept, nothing]), np.hstack([nothing, concept])
    partner, score = partners(kept_of(*means), torch.ones(2 * f, 1))
    assert partner.tolist() == [*range(f, 2 * f), *range(f)]
    assert score[:f] == pytest.approx(score[f:])
    assert score.mean() == pytest.approx(0.2 * 2.0, abs=0.04)


def test_a_latent_of_images_and_the_latent_of_their_words_are_partners():
    """By hand: latent 0 fires by 2 on all images, latent 3 by 1 on captions 0 and 1 of 4, and their rows' product is 5."""
    images, texts = np.zeros((4, 4)), np.zeros((4, 4))
    images[:, 0], texts[:2, 3], texts[2:, 1] = 2.0, 1.0, 1.0
    decoder = torch.tensor([[1.0, 2.0], [1.0, -1.0], [1.0, 2.0], [1.0, 2.0]])
    partner, score = partners(kept_of(images, texts), decoder)
    assert partner.tolist() == [3, -1, -1, 0]
    assert score[[0, 3]].tolist() == pytest.approx([5.0, 5.0])
    assert np.isnan(score[[1, 2]]).all()


@pytest.mark.parametrize("n", [0, 1])
def test_without_pairs_to_score_on_there_is_no_partner_or_no_score(n):
    partner, score = partners(kept_of(np.ones((n, 2)), np.ones((n, 2))), torch.ones(2, 1))
    assert partner.tolist() == ([-1, -1] if n == 0 else [1, 0])
    assert np.isnan(score).all()
