"""Latents of a known share of bimodal ones: scores, overlaps, co-firing and weights as planted; nulls where nothing is shared."""

import numpy as np
import pytest
import torch

from linrep.encoder import Active, Latents
from linrep.sharing.fires import Codes, Fires
from linrep.sharing.latents import (
    bridge,
    bridge_cosine,
    cofire_null,
    diagonal_null,
    latent_measures,
    latent_rows,
    modality_scores,
)
from linrep.sharing.shares import overlaps, scores, shares
from linrep.sharing.weights import compare
from tests.sharing.planted import CONFIG, fired, write_pairs

F, BOTH, T, N = 24, 6, 4, 240
CONFIG = CONFIG.model_copy(update={"thresholds": (0.05,)})


class Identity:
    """An SAE whose latents are the coordinates, active above zero."""

    d_model = n_latents = F

    def encode(self, x):
        return x.relu()


def tokens(matched: bool) -> tuple[np.ndarray, np.ndarray]:
    """Latents 0..5 fire on both modalities, 6..14 on images, 15..23 on text; each concept in a third of the pairs.

    With `matched`, a bimodal latent that fires on an image fires on its caption; else on another's.
    """
    rng = np.random.default_rng(0)
    present = rng.random((N, BOTH)) < 1 / 3
    images, texts = -np.ones((2, N, T, F))
    other = present if matched else present[rng.permutation(N)]
    images[:, :, :BOTH] = np.where(present[:, None], 1.0, -1.0)
    texts[:, :, :BOTH] = np.where(other[:, None], 1.0, -1.0)
    images[:, :, BOTH:15] = np.where(rng.random((N, T, 9)) < 0.25, 1.0, -1.0)
    texts[:, :, 15:] = np.where(rng.random((N, T, 9)) < 0.25, 1.0, -1.0)
    return images, texts


def run(folder, matched: bool):
    images, texts = tokens(matched)
    latents = Latents("identity", Identity(), torch.eye(F))
    store = write_pairs(folder, images, texts, tokens=T)
    pairs, found = fired(store, latents, CONFIG)
    weights = compare(store, 0, pairs, found, latents)
    measures = latent_measures(found, weights, latents, pairs, CONFIG)
    return found, latent_rows(found, weights, latents), {m.metric: m for m in measures}


def fires(z: torch.Tensor, w: torch.Tensor, decoder: torch.Tensor) -> Fires:
    """The sums of pairs of one token each: rows of activations on images and on captions."""
    one = np.ones(len(z), np.int64)
    codes = [Codes.of(Active(*(own > 0).nonzero(as_tuple=True), own[own > 0]), one, z.shape[1]) for own in (z, w)]
    return Fires.of(
        (codes[0], codes[1]),
        len(z),
        torch.zeros(2, decoder.shape[1], dtype=torch.float64),
        torch.ones(2, dtype=torch.float64),
        decoder,
    )


def test_texts_are_encoded_by_what_is_there_for_texts(tmp_path):
    class Backwards(Identity):
        def encode(self, x):
            return x.flip(1).relu()

    images, texts = tokens(matched=True)
    found = []
    for i, own in enumerate((texts, texts[:, :, ::-1])):
        latents = Latents("identity", Identity(), torch.eye(F), Backwards() if i else None)
        store = write_pairs(tmp_path / str(i), images, np.ascontiguousarray(own), tokens=T)
        pairs, fires = fired(store, latents, CONFIG)
        found.append(latent_rows(fires, compare(store, 0, pairs, fires, latents), latents))
    for one, other in zip(*found, strict=True):
        assert [one[name] for name in ("rate_image", "rate_text")] == [other[name] for name in ("rate_image", "rate_text")]


@pytest.fixture(scope="module")
def matched(tmp_path_factory):
    return run(tmp_path_factory.mktemp("m") / "m", True)


@pytest.fixture(scope="module")
def unmatched(tmp_path_factory):
    return run(tmp_path_factory.mktemp("u") / "u", False)


def test_rates_and_scores_are_those_of_the_tokens(matched):
    found, rows, _ = matched
    s = found.total(range(CONFIG.groups))
    images, texts = tokens(True)
    assert float(s.tokens) == N * T
    assert torch.equal(s.fired[0], torch.from_numpy((images > 0).sum((0, 1)).astype(float)))
    assert torch.equal(s.fired[1], torch.from_numpy((texts > 0).sum((0, 1)).astype(float)))
    assert modality_scores(s)[:BOTH].tolist() == [0.5] * BOTH
    assert modality_scores(s)[BOTH:].tolist() == [1.0] * 9 + [0.0] * 9
    assert rows[0]["cofire"] == rows[0]["rate_image"]
    assert rows[0]["cofire_null"] == pytest.approx(rows[0]["rate_image"] ** 2, abs=0.01)
    assert rows[20]["rate_image"] == 0


def test_the_planted_share_of_bimodal_latents_is_returned(matched):
    found, _, m = matched
    images, texts = tokens(True)
    mass = [(z > 0).sum((0, 1)) for z in (images, texts)]
    truth = (mass[0] + mass[1])[:BOTH].sum() / (mass[0] + mass[1]).sum()
    s = found.total(range(CONFIG.groups))
    assert scores(s.mass.numpy(), CONFIG)["bimodal_mass"][0] == pytest.approx(truth)
    # In the population a bimodal latent fires on a third of the tokens, the others on a quarter.
    expected = 2 * BOTH / 3 / (2 * BOTH / 3 + 18 / 4)
    assert m["bimodal_mass"].low <= expected <= m["bimodal_mass"].high
    assert m["overlap_0.05"].value == BOTH / F
    often = CONFIG.model_copy(update={"thresholds": (0.3,)})
    assert overlaps((s.fired / s.tokens).numpy(), often)["overlap_0.3"][0] == 1.0  # only the bimodal ones fire so often
    histogram = [v.value for name, v in m.items() if name.startswith("modality_score_")]
    assert histogram == pytest.approx([9 / F, 0, 0, 0, 0, BOTH / F, 0, 0, 0, 0, 9 / F])
    # Balanced latents lie inside of a bin, not at its end.
    assert m["modality_score_0.45_0.55"].value == BOTH / F


def test_cofiring_and_bridges_know_the_pairs_and_return_their_nulls_without(matched, unmatched):
    _, _, own = matched
    _, _, other = unmatched
    for name in ("cofire", "bridge_cosine"):
        assert own[name].low > own[name].null + 0.05, name
        assert other[name].low <= other[name].null <= other[name].high, name
    assert own["bridge_diagonal_share"].value == pytest.approx(1)  # the decoder's rows are orthogonal


def test_the_null_of_cofiring_is_the_mean_over_all_permutations():
    a, b = torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    s = fires(a[:, None], b[:, None], torch.eye(1))
    by_hand = np.mean([float(a[i] * b[j]) for i in range(4) for j in range(4) if i != j])
    assert float(cofire_null(s)) == pytest.approx(by_hand)


def test_streamed_bridge_is_the_sum_of_all_bridge_scores():
    torch.manual_seed(0)
    z, w, decoder = torch.rand(5, 7), torch.rand(5, 7), torch.randn(7, 3)
    s = fires(z[:2], w[:2], decoder) + fires(z[2:], w[2:], decoder)
    scores = bridge(z, w, decoder)
    assert float(s.inner / s.pairs) == pytest.approx(float(scores.sum()), rel=1e-5)
    assert torch.allclose((s.product / s.pairs).float() * decoder.square().sum(1), scores.diagonal(), rtol=1e-4)
    norms = ((z @ decoder).square().sum(1).mean() * (w @ decoder).square().sum(1).mean()).sqrt()
    assert bridge_cosine(s) == pytest.approx(float(scores.sum() / norms), rel=1e-5)


def test_cross_modal_weights_are_high_where_top_tokens_are_alike(matched):
    _, rows, m = matched
    weights = [row["cross_modal_weight"] for row in rows]
    assert [w is not None for w in weights] == [True] * BOTH + [False] * 18
    for name in ("cross_modal_weight", "cross_modal_weight_centred"):
        assert m[name].value > m[name].null


def population(rng: np.random.Generator, f: int, alike: float) -> np.ndarray:
    """Firing rates of f latents on images and on texts: a share of them fires on both alike, the others mostly on one."""
    score = np.where(rng.random(f) < alike, 0.5, rng.beta(0.4, 0.4, f))
    return 10 ** rng.uniform(-2.5, -0.5, f) * 2 * np.stack([score, 1 - score])


def seen(rng: np.random.Generator, rates: np.ndarray, tokens: int, config) -> dict:
    """What some groups of tokens show of such latents; each activation is 1."""
    fired = rng.poisson(rates * tokens, (20, *rates.shape)).astype(float)
    return {m.metric: m for m in shares(fired, fired, np.full(20, float(tokens)), config)}


def test_shares_of_latents_lie_in_their_intervals_as_often_as_they_say():
    """The truth is the share in the population that the latents were drawn from: of 20, 15 or fewer in 3 of 1,000 cases."""
    config = CONFIG.model_copy(update={"thresholds": (0.01,), "resamples": 60, "min_firings": 1})
    many = population(np.random.default_rng(99), 400_000, 0.3)
    truth = {name: share for name, (share, _) in {**overlaps(many, config), **scores(many, config)}.items()}
    worlds = [(rng := np.random.default_rng(seed), population(rng, 400, 0.3)) for seed in range(20)]
    found = [seen(rng, rates, 1000, config) for rng, rates in worlds]
    for name, wanted in truth.items():
        assert sum(m[name].low <= wanted <= m[name].high for m in found) >= 16, name


def test_dead_latents_are_no_reason_for_an_overlap_nor_against_one():
    """Three quarters dead, the rest above the rate on images and on texts independently: a b / (a + b - a b) of the living."""
    rng = np.random.default_rng(0)
    above = rng.random((2, 2000)) < 0.5
    rates = np.where(above, 0.2, 0.02) * (np.arange(2000) < 500)
    config = CONFIG.model_copy(update={"thresholds": (0.1,), "min_firings": 20})
    m = seen(rng, rates, 500, config)["overlap_0.1"]
    assert m.n == 500
    assert m.null == pytest.approx(1 / 3, abs=0.03)
    assert m.low <= m.null <= m.high


def test_scores_have_the_null_of_activations_on_texts_that_are_dealt_out_anew(unmatched):
    """By hand: 15 of 24 latents fire on images, 15 on texts; both by chance 24 (15 / 24)^2 = 9.4, with 18.75 of 30 shares."""
    _, _, m = unmatched
    assert m["bimodal_mass"].null == pytest.approx(18.75 / 30, abs=0.04)
    assert m["bimodal_mass"].null_low < m["bimodal_mass"].null < m["bimodal_mass"].null_high
    # Of the 20.6 that fire at all 5.6 are of images alone.
    assert m["modality_score_0.91_1.00"].null == pytest.approx(5.625 / 20.625, abs=0.03)


def test_the_null_of_the_diagonal_is_that_of_other_pairs():
    """By hand: the product of the means over all pairs of different pairs, on the diagonal and in all."""
    torch.manual_seed(0)
    z, w, decoder = torch.rand(5, 7), torch.rand(5, 7), torch.randn(7, 3)
    s = fires(z[:2], w[:2], decoder) + fires(z[2:], w[2:], decoder)
    others = sum(torch.outer(z[i], w[j]) for i in range(5) for j in range(5) if i != j) * (decoder @ decoder.T)
    assert diagonal_null(s, decoder) == pytest.approx(float(others.trace() / others.sum()), rel=1e-4)
