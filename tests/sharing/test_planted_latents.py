"""Cross-modal weights and reliabilities whose truth is known lie in their intervals as often as these say; so do the nulls."""

from pathlib import Path

import numpy as np
import pytest
import torch

from linrep.encoder import Latents
from linrep.sharing.intervals import Measure
from linrep.sharing.reliability import correlation, reliabilities
from linrep.sharing.weights import KINDS, compare, weight_measures
from tests.sharing.planted import CONFIG, fired, write_pairs
from tests.sharing.test_planted_truth import ENOUGH, WORLDS

pytestmark = pytest.mark.slow

N, T, F, D = 200, 4, 40, 16
CONFIG = CONFIG.model_copy(update={"groups": 20})
GAP, OWN, PAIR, NOISE = 1.0, 2.0, 1.0, 0.3
"""Of a token: half the distance of the modalities, what its latent puts there, what its pair does, and noise along every axis."""


class First:
    """An SAE whose latents are the first coordinates, active above zero."""

    d_model, n_latents = F + D, F

    def encode(self, x):
        return x[:, :F].relu()


def directions(rng: np.random.Generator, f: int, alike: float) -> np.ndarray:
    """Unit directions of f latents in images and in texts; their cosine is between 0 and twice `alike`."""
    a, c = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in rng.standard_normal((2, f, D)))
    c -= (a * c).sum(1, keepdims=True) * a
    c /= np.linalg.norm(c, axis=1, keepdims=True)
    cosine = rng.uniform(0, 2 * alike, (f, 1))
    return np.stack([a, cosine * a + (1 - cosine**2) ** 0.5 * c])


def world(rng: np.random.Generator, folder: Path, alike: float) -> dict[str, Measure]:
    """A draw of latents and of pairs. A token has one latent, and its pair's own part, which the pair's other tokens have too."""
    axes = directions(rng, F, alike)
    latent = rng.integers(F, size=(2, N, T))
    content = OWN * np.stack([axes[m][latent[m]] for m in range(2)])
    content += PAIR * rng.standard_normal((2, N, 1, D)) / D**0.5 + NOISE * rng.standard_normal((2, N, T, D))
    content[..., 0] += GAP * np.array([1, -1])[:, None, None]
    # How strongly it fires says nothing about its content, and is too small to matter in a cosine.
    codes = np.zeros((2, N, T, F))
    np.put_along_axis(codes, latent[..., None], rng.uniform(0.01, 0.03, (2, N, T, 1)), -1)
    tokens = np.concatenate([codes, content], -1)
    latents, store = Latents("first", First(), torch.eye(F + D)[:F]), write_pairs(folder, tokens[0], tokens[1], tokens=T)
    pairs, found = fired(store, latents, CONFIG)
    return {m.metric: m for m in weight_measures(found, compare(store, 0, pairs, found, latents), pairs)}


def truth(alike: float) -> dict[str, float]:
    """Mean cosine of very many tokens of either modality that have one latent, each of another pair; with and without the gap."""
    rng = np.random.default_rng(1000)
    content = OWN * directions(rng, 200_000, alike)
    content += PAIR * rng.standard_normal(content.shape) / D**0.5 + NOISE * rng.standard_normal(content.shape)
    # What a latent writes is an axis of its own, beside the content.
    found = {KINDS[1]: content, KINDS[2]: content}
    found[KINDS[0]] = content.copy()
    found[KINDS[0]][..., 0] += GAP * np.array([1, -1])[:, None]
    return {
        name: float(np.mean((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)))
        for name, (x, y) in found.items()
    }


@pytest.fixture(scope="module")
def alike(tmp_path_factory) -> list[dict[str, Measure]]:
    folder = tmp_path_factory.mktemp("alike")
    return [world(np.random.default_rng(seed), folder / str(seed), 0.4) for seed in range(WORLDS)]


@pytest.mark.parametrize("name", KINDS)
def test_the_planted_weight_lies_in_the_interval_as_often_as_it_says(alike, name):
    wanted = truth(0.4)[name]
    assert sum(m[name].low <= wanted <= m[name].high for m in alike) >= ENOUGH
    # And no more often than need be: as wide as the values of other worlds are spread, give or take half.
    spread = np.std([m[name].value for m in alike], ddof=1)
    reach = np.mean([m[name].high - m[name].low for m in alike]) / 2
    assert 1.96 * spread / 1.5 < reach < 1.96 * spread * 1.5


@pytest.fixture(scope="module")
def unlike(tmp_path_factory) -> list[dict[str, Measure]]:
    folder = tmp_path_factory.mktemp("unlike")
    return [world(np.random.default_rng(100 + seed), folder / str(seed), 0.0) for seed in range(WORLDS)]


@pytest.mark.parametrize("name", KINDS)
def test_where_text_tokens_know_nothing_of_the_latent_the_null_lies_in_the_interval(unlike, name):
    found = [m[name] for m in unlike]
    assert sum(m.low <= m.null <= m.high for m in found) >= ENOUGH
    # Exactly: the same tokens without a latent in common.
    assert np.mean([m.null for m in found]) == pytest.approx(truth(0.0)[name], abs=0.02)


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy tails"])
def test_the_reliability_of_a_planted_signal_lies_in_its_interval_as_often_as_it_says(heavy):
    """Halves that are signal plus noise of variance v each: r = 1 / (1 + v), and of both together 1 / (1 + v / 2)."""
    v, f, inside = 0.8, 400, {"split_half_x": 0, "reliability_x": 0}
    for seed in range(WORLDS):
        rng = np.random.default_rng(seed)
        signal = rng.standard_normal(f)
        if heavy:
            signal = (rng.gamma(0.5, size=f) - 0.5) / 0.5**0.5
        halves = tuple(signal + v**0.5 * rng.standard_normal(f) for _ in range(2))
        for m in reliabilities({"x": (halves[0], halves[1])}, np.ones(f, bool)):
            wanted = 1 / (1 + v) if m.metric == "split_half_x" else 1 / (1 + v / 2)
            inside[m.metric] += m.low <= wanted <= m.high
    assert min(inside.values()) >= ENOUGH


def test_halves_that_know_nothing_of_each_other_have_their_null_in_the_interval():
    found = [correlation(*np.random.default_rng(seed).standard_normal((2, 100))) for seed in range(WORLDS)]
    assert sum(low <= 0 <= high for _, low, high in found) >= ENOUGH
