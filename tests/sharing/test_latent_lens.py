"""The lenses: planted neighbours and words are found, shares are counted, and other images' values give the base rate."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from linrep.sharing.config import LensConfig, SharingConfig
from linrep.sharing.latent_lens import LensShare, lens, likeliest_words, shares
from linrep.sharing.lens_tokens import LensTokens, evenly, named_by, read_tokens
from linrep.sharing.study import Pairs, plan_study
from linrep.sharing.sums import unit
from linrep.stats.jackknife import jackknife
from linrep.vlm.unembed import Unembedding
from tests.sharing.planted import write_pairs

IMAGES, EACH, VALUES, D, CONTEXTS, VOCABULARY = 40, 6, 4, 16, 150, 60
WORDS = {"class": tuple(((v,), (10 + v,), (20, 21)) for v in range(VALUES))}
"""Value v is token v or 10 + v; the way that has two tokens does not count where the logit lens says one."""
CONFIG = LensConfig(nearest=3)
COVERED, ENOUGH = 60, 52
"""Of 60 intervals at 95%, 51 or fewer hold the truth in 2 cases of 1,000."""
World = tuple[dict[int, LensTokens], Pairs, Unembedding]


def pairs_of(label: np.ndarray) -> Pairs:
    of = np.arange(len(label))
    return Pairs(
        {"image": of, "text": of}, tuple(map(str, of)), of % 5, np.ones(len(of), bool), ("a", "b", "c", "d"), label, label,
        np.zeros(len(of), bool),
    )  # fmt: skip


def planted(seed: int, share: float, images: int = IMAGES, spread: float = 0.0) -> World:
    """Two layers. A share of the image tokens at layer 0 lies where texts name their value at layer 1 alone, and where the output
    matrix has its word; the others lie where nothing is named. With a spread images differ in their share.
    """
    rng = np.random.default_rng(seed)
    label, pair = rng.integers(VALUES, size=images), np.repeat(np.arange(images), EACH)
    axes = np.linalg.qr(rng.standard_normal((D, D)))[0]
    named = np.where(np.arange(CONTEXTS) % 3 == 0, rng.integers(VALUES, size=CONTEXTS), -1)
    own = rng.beta(share / spread, (1 - share) / spread, size=images) if spread else np.full(images, share)
    where = np.where(rng.random(len(pair)) < own[pair], label[pair], VALUES)
    found = {}
    for layer in (0, 1):
        # At layer 0 texts of all values, and of none, lie at one place.
        at = np.where(named >= 0, named, VALUES) if layer == 1 else np.full(CONTEXTS, VALUES + 1)
        text, image = (
            axes[at] + 0.05 * rng.standard_normal((CONTEXTS, D)),
            axes[where] + 0.05 * rng.standard_normal((len(pair), D)),
        )
        found[layer] = LensTokens(torch.from_numpy(image).float(), pair, unit(torch.from_numpy(text)).float(), {"class": named})
    matrix = 0.05 * rng.standard_normal((VOCABULARY, D))
    matrix[:VALUES] += axes[:VALUES]
    matrix[30:40] += axes[VALUES]
    matrix[40:50] += 0.5 * axes[:VALUES].sum(0)  # of the words that come second none names a value
    return found, pairs_of(label), Unembedding(torch.from_numpy(matrix).float(), ("w",) * VOCABULARY)


def of_image_layer_0(world: World, pairs: Pairs | None = None) -> dict[str, LensShare]:
    layers, own, unembedding = world
    return {m.contexts: m for m in lens(layers, pairs or own, CONFIG, WORDS, unembedding) if m.image_layer == 0}


def test_planted_neighbours_are_found_in_the_contexts_of_their_layer_and_not_among_embeddings():
    world = planted(0, 1.0)
    found = of_image_layer_0(world)
    for contexts in ("all", "logit"):
        own = found[contexts]
        assert own.value > 0.99
        assert own.over_low > 0.5
        # Another image has the same value as often as two images have.
        n = np.bincount(world[1].label)
        assert own.permuted == pytest.approx((n * (n - 1)).sum() / (IMAGES * (IMAGES - 1)), abs=0.01)
        assert (own.tokens, own.images) == (IMAGES * EACH, IMAGES)
    assert (found["all"].text_layer, found["logit"].text_layer) == (1.0, None)
    # Among embeddings all texts lie at one place: as good as drawn at random.
    for contexts in ("own", "first"):
        assert found[contexts].over_low <= 0 <= found[contexts].over_high
        assert found[contexts].text_layer == 0


@pytest.mark.slow
def test_intervals_hold_the_planted_share_and_what_is_beyond_other_images():
    """Truth by construction: a share of .4, and as other images have the value one time in four, .3 beyond them.

    Among embeddings, where texts lie at one place, images of a value are near the same few texts: beyond others is nothing.
    """
    inside = {(contexts, what): 0 for contexts in ("all", "logit") for what in ("value", "over")} | {("first", "over"): 0}
    for seed in range(COVERED):
        found = of_image_layer_0(planted(seed, 0.4, spread=0.3))
        for contexts in ("all", "logit"):
            own = found[contexts]
            inside[contexts, "value"] += own.low <= 0.4 <= own.high
            inside[contexts, "over"] += own.over_low <= 0.3 <= own.over_high
        alike = of_image_layer_0(planted(seed, 1.0))["first"]
        inside["first", "over"] += alike.over_low <= 0 <= alike.over_high
    assert min(inside.values()) >= ENOUGH, inside


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_with_values_dealt_anew_among_images_the_interval_holds_nothing_as_often_as_it_says(share):
    inside = dict.fromkeys(("all", "logit"), 0)
    for seed in range(COVERED):
        world = planted(seed, share, spread=0.3 if share < 1 else 0.0)
        dealt = np.random.default_rng(seed + 1000).permutation(world[1].label)
        found = of_image_layer_0(world, pairs_of(dealt))
        for contexts in inside:
            own = found[contexts]
            inside[contexts] += own.over_low <= 0 <= own.over_high
            assert own.value == pytest.approx(own.permuted, abs=0.25)
    assert min(inside.values()) >= ENOUGH, inside


def test_shares_are_those_counted_one_by_one():
    rng = np.random.default_rng(1)
    named, rate = rng.random((24, 3)) < 0.4, np.array([0.1, 0.3, 0.2])
    image = np.repeat(np.arange(8), 3)
    label = rng.integers(3, size=8)
    found = shares(named, rate, label[image], image, 2)
    assert found is not None
    hits = [row[label[i]] for i, row in zip(image, named, strict=True)]
    assert found["value"] == pytest.approx(np.mean(hits))
    others = [np.mean([row[label[j]] for j in range(8) if j != i]) for i, row in zip(image, named, strict=True)]
    assert found["permuted"] == pytest.approx(np.mean(others))
    assert found["over"] == pytest.approx(np.mean(hits) - np.mean(others))
    # The jackknife over values: all shares of the images of the others alone.
    without = []
    for v in range(3):
        rest = label[image] != v
        less = shares(named[rest], rate, label[image][rest], image[rest], 2)
        assert less is not None
        without.append(less["over"])
    assert (found["over_low"], found["over_high"]) == pytest.approx(jackknife(found["over"], without))
    # Of two contexts drawn at random one names it: by hand .19, .51 and .36.
    assert found["random"] == pytest.approx(np.mean(np.array([0.19, 0.51, 0.36])[label]))
    # Tokens of images without a value do not count, nor is there a share of one image.
    unknown = np.where(image < 4, label[image], -1)
    half = shares(named, rate, unknown, image, 2)
    assert half is not None
    assert (half["tokens"], half["images"]) == (12, 4)
    assert half["value"] == pytest.approx(np.mean(hits[:12]))
    assert shares(named[:3], rate, label[image[:3]], image[:3], 2) is None


def test_nearest_contexts_are_those_of_a_plain_search():
    layers, pairs, unembedding = planted(2, 0.6)
    # All image tokens lie far to one side, as a modality's do.
    layers[1] = replace(layers[1], image=layers[1].image + torch.linspace(-3, 3, D))
    found = {m.contexts: m for m in lens(layers, pairs, CONFIG, WORDS, unembedding) if m.image_layer == 1}
    text, layer = torch.cat([layers[0].text, layers[1].text]).numpy(), np.repeat([0, 1], CONTEXTS)
    image = layers[1].image.numpy()
    centred = image - image.mean(0)
    named = np.tile(layers[0].named["class"], 2)
    hits, depth, words = [], [], []
    for x, raw, pair in zip(centred, image, layers[1].pair, strict=True):
        nearest = sorted(range(len(text)), key=lambda c, x=x: -float(x @ text[c]))[:3]
        hits.append(pairs.label[pair] in named[nearest])
        depth.append(layer[nearest].mean())
        # The final norm's scale changes no order.
        likeliest = np.argsort(-(unembedding.matrix.numpy() @ raw))[:3]
        words.append(bool({pairs.label[pair], 10 + pairs.label[pair]} & set(likeliest)))
    assert found["all"].value == pytest.approx(np.mean(hits))
    assert found["all"].text_layer == pytest.approx(np.mean(depth))
    assert found["logit"].value == pytest.approx(np.mean(words))


def test_a_name_counts_among_likeliest_words_by_the_pieces_that_begin_it_where_it_is_cut_into_fewest():
    matrix = torch.eye(5)
    found = likeliest_words(matrix, Unembedding(matrix, ("w",) * 5), {"class": (((0,), (1,), (2, 3)), ((3, 4),), ())}, 1)
    assert found.named["class"].tolist() == [[i in (0, 1), i == 3, False] for i in range(5)]
    assert found.rate["class"].tolist() == [0.4, 0.2, 0.0]


def test_what_no_caption_and_no_word_names_has_no_share():
    layers, pairs, unembedding = planted(0, 1.0)
    silent = {k: replace(own, named={"class": np.full(CONTEXTS, -1)}) for k, own in layers.items()}
    assert {m.contexts for m in lens(silent, pairs, CONFIG, WORDS, unembedding)} == {"logit"}
    assert list(lens(silent, pairs, CONFIG, {"class": ((),) * VALUES}, unembedding)) == []
    assert "logit" not in {m.contexts for m in lens(layers, pairs, CONFIG, WORDS)}


def test_images_of_some_pairs_are_read_and_captions_of_others(tmp_path):
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((2, 60, 3, D)) + 2
    store = write_pairs(tmp_path, images, texts, np.arange(60) % 4, tokens=3)
    pairs = plan_study(store, SharingConfig(groups=10, reservoir=32)).pairs["trained"]
    found = read_tokens(store, 0, pairs, {}, LensConfig(images=5, texts=7))
    assert np.bincount(found.pair)[np.unique(found.pair)].tolist() == [3] * 5
    assert set(pairs.group[found.pair]) <= {0, 5}
    number = [int(name.rsplit("/", 1)[1]) for name in pairs.names]
    for x, pair in zip(found.image.numpy(), found.pair, strict=True):
        assert np.abs(images[number[pair]] - x).max(1).min() < 2e-3
    # Captions of the first other pairs, about their mean.
    others = np.flatnonzero(pairs.group % 5)[:7]
    rows = np.concatenate([texts[number[pair]] for pair in others])
    rows -= rows.mean(0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert len(found.text) == 21
    assert np.sort(found.text.numpy(), axis=0) == pytest.approx(np.sort(rows, axis=0), abs=3e-3)


def test_values_are_named_where_their_last_token_stands():
    pair, position, token = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 1]), np.array([5, 8, 9, 9, 7])
    assert named_by(pair, position, token, (((8, 9),), ((7,), (5,)))).tolist() == [1, -1, 0, -1, 1]


def test_of_long_samples_tokens_are_kept_evenly():
    kept = evenly(np.repeat([3, 4], [10, 2]), 5)
    assert kept.tolist() == [1, 3, 5, 7, 9, 10, 11]
