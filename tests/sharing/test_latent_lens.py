"""LatentLens: planted neighbours are found, their words are counted, and other images' values give the base rate."""

import numpy as np
import pytest
import torch

from linrep.sharing.config import LensConfig
from linrep.sharing.latent_lens import LensTokens, evenly, lens, named_by, shares
from linrep.sharing.study import Pairs
from linrep.sharing.sums import unit

IMAGES, EACH, VALUES, D, CONTEXTS = 40, 6, 4, 16, 150


def planted(seed: int, ahead: bool) -> tuple[dict[int, LensTokens], Pairs]:
    """Two layers. Image tokens at layer 0 lie where texts name their value at layer 1 alone; or nowhere."""
    rng = np.random.default_rng(seed)
    label = rng.integers(VALUES, size=IMAGES)
    of = np.arange(IMAGES)
    pairs = Pairs(
        {"image": of, "text": of}, tuple(map(str, of)), of % 5, np.ones(IMAGES, bool), ("a", "b", "c", "d"), label, label,
        np.zeros(IMAGES, bool),
    )  # fmt: skip
    pair = np.repeat(of, EACH)
    directions = rng.standard_normal((VALUES, D))
    named = np.where(np.arange(CONTEXTS) % 3 == 0, rng.integers(VALUES, size=CONTEXTS), -1)
    found = {}
    for layer in (0, 1):
        text = rng.standard_normal((CONTEXTS, D))
        if ahead and layer == 1:
            text[named >= 0] = directions[named[named >= 0]] + 0.05 * rng.standard_normal(((named >= 0).sum(), D))
        image = directions[label[pair]] + 0.05 * rng.standard_normal((len(pair), D))
        found[layer] = LensTokens(
            *(unit(torch.from_numpy(image)).float(), pair), unit(torch.from_numpy(text)).float(), {"class": named}
        )
    return found, pairs


CONFIG = LensConfig(nearest=3)


def test_planted_neighbours_are_found_in_the_contexts_of_their_layer_and_not_among_embeddings():
    layers, pairs = planted(0, True)
    found = {m.contexts: m for m in lens(layers, pairs, CONFIG) if m.image_layer == 0}
    assert found["all"].value > 0.99
    assert found["all"].text_layer > 0.9
    assert found["all"].over_low > 0.5
    # Another image has the same value as often as two images have.
    n = np.bincount(pairs.label)
    assert found["all"].permuted == pytest.approx((n * (n - 1)).sum() / (IMAGES * (IMAGES - 1)))
    assert found["first"].value < 0.6
    assert (found["all"].tokens, found["all"].images) == (IMAGES * EACH, IMAGES)


def test_where_nothing_is_planted_other_images_do_as_well():
    inside = 0
    for seed in range(10):
        layers, pairs = planted(seed, False)
        (m,) = (m for m in lens(layers, pairs, CONFIG) if m.image_layer == 0 and m.contexts == "all")
        inside += m.over_low <= 0 <= m.over_high
    assert inside >= 7


def test_shares_are_those_counted_one_by_one():
    rng = np.random.default_rng(1)
    nearest, named = rng.integers(-1, 3, size=(24, 2)), rng.integers(-1, 3, size=50)
    image = np.repeat(np.arange(8), 3)
    label = rng.integers(3, size=8)
    told = shares(nearest, label[image], image, named, 3)
    assert told is not None
    hits = [label[i] in row for i, row in zip(image, nearest, strict=True)]
    assert told["value"] == pytest.approx(np.mean(hits))
    others = [np.mean([label[j] in row for j in range(8) if j != i]) for i, row in zip(image, nearest, strict=True)]
    assert told["permuted"] == pytest.approx(np.mean(others))
    assert told["over"] == pytest.approx(np.mean(hits) - np.mean(others))
    draws = rng.choice(named, size=(20000, 2))
    expected = np.mean([(draws == v).any(1).mean() for v in label])
    assert told["random"] == pytest.approx(expected, abs=0.02)
    assert shares(nearest[:3], label[image[:3]], image[:3], named, 3) is None


def test_nearest_contexts_are_those_of_a_plain_search():
    layers, pairs = planted(2, True)
    (m,) = (m for m in lens(layers, pairs, CONFIG) if m.image_layer == 1 and m.contexts == "all")
    text = torch.cat([layers[0].text, layers[1].text]).numpy()
    named = np.tile(layers[0].named["class"], 2)
    hits = []
    for x, pair in zip(layers[1].image.numpy(), layers[1].pair, strict=True):
        nearest = sorted(range(len(text)), key=lambda c, x=x: -float(x @ text[c]))[:3]
        hits.append(pairs.label[pair] in named[nearest])
    assert m.value == pytest.approx(np.mean(hits))


def test_values_are_named_where_their_last_token_stands():
    pair, position, token = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 1]), np.array([5, 8, 9, 9, 7])
    assert named_by(pair, position, token, (((8, 9),), ((7,), (5,)))).tolist() == [1, -1, 0, -1, 1]


def test_of_long_samples_tokens_are_kept_evenly():
    kept = evenly(np.repeat([3, 4], [10, 2]), 5)
    assert kept.tolist() == [1, 3, 5, 7, 9, 10, 11]
