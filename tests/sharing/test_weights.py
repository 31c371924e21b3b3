"""Cross-modal weights: exact in tokens and cosines however the store is cut; halves are of pairs; one draw for all passes."""

from functools import reduce
from itertools import product

import numpy as np
import pytest
import torch

from linrep.encoder import Latents
from linrep.sharing import tokens as reading
from linrep.sharing.fires import TOP, add_fired, fire_part
from linrep.sharing.grouped import Part
from linrep.sharing.study import TRAINED, Pairs, plan_study
from linrep.sharing.tokens import matched_tokens, pieces
from linrep.sharing.weights import KINDS, compare, weight_measures
from linrep.store import Store
from tests.sharing.planted import CONFIG, write_pairs

F, D, T, N = 6, 10, 5, 90


class First:
    """An SAE whose latents are the first coordinates, active above zero."""

    d_model, n_latents = D, F

    def encode(self, x):
        return x[:, :F].relu()


LATENTS = Latents("first", First(), torch.eye(D)[:F])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Store, Pairs, np.ndarray]:
    """Tokens whose activations are 0, 1, 2 or 3, so that ties are everywhere, also within a pair; latent 5 is of texts alone."""
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((2, N, T, D)).astype(np.float16)
    tokens[..., :F] = rng.choice([0, 0, 0, 1, 2, 3], (2, N, T, F))
    tokens[0, ..., 5] = 0
    store = write_pairs(tmp_path_factory.mktemp("w") / "w", tokens[0], tokens[1], tokens=T, chunk=16)
    return store, plan_study(store, CONFIG).pairs[TRAINED], tokens.astype(np.float64)


def chunks(store: Store) -> list[Part]:
    images, texts = (store.select("tokens", 0, m).files for m in ("image", "text"))
    return [{"image": (image,), "text": (text,)} for image, text in zip(images, texts, strict=True)]


def by_brute_force(tokens: np.ndarray, pairs: Pairs, latent: int, own: list[int], kind: int) -> tuple[list, list, np.ndarray]:
    """All tokens of some pairs sorted: by activation, then by the pair's number, then in the store's order; their cosines."""
    place = [int(name.rsplit("/", 1)[-1]) for name in pairs.names]
    top, units = [], []
    for m in range(2):
        mean = tokens[m][[place[p] for p in own]].reshape(-1, D).mean(0)
        entries = [
            (-tokens[m, place[p], t, latent], p, t) for p, t in product(own, range(T)) if tokens[m, place[p], t, latent] > 0
        ]
        best = sorted(entries)[:TOP]
        top.append([p for _, p, _ in best])
        rows = np.array([tokens[m, place[p], t] for _, p, t in best]).reshape(-1, D) - (kind > 0) * mean
        if kind == 2:
            rows[:, latent] = 0  # what the latent writes is a coordinate
        units.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return top[0], top[1], units[0] @ units[1].T


@pytest.mark.parametrize("cut", ["one part", "each chunk", "two parts", "backwards"])
def test_top_tokens_and_cosines_are_exactly_those_of_brute_force_however_the_store_is_cut(drawn, cut):
    store, pairs, tokens = drawn
    own = chunks(store)
    whole: Part = {m: tuple(file for part in own for file in part[m]) for m in ("image", "text")}
    two = [{m: files[at] for m, files in whole.items()} for at in (slice(2), slice(2, None))]
    parts = {"one part": [whole], "each chunk": own, "two parts": two, "backwards": own[::-1]}[cut]
    found = reduce(add_fired, (fire_part(store, pairs, part, LATENTS, CONFIG) for part in parts))
    # A block of two latents at a time: several passes.
    weights = compare(store, 0, pairs, found, LATENTS, room=2 * 2 * 2 * TOP * D * 2)
    everyone = range(len(pairs))
    halves = [[p for p in everyone if pairs.group[p] % 2 == half] for half in range(2)]
    for compared, some in zip(weights, (list(everyone), *halves), strict=True):
        for kind, latent in product(range(3), range(F)):
            image, text, cosines = by_brute_force(tokens, pairs, latent, some, kind)
            assert [p for p in compared.pair[0, latent].tolist() if p >= 0] == image
            assert [p for p in compared.pair[1, latent].tolist() if p >= 0] == text
            there = compared.cosines[kind, latent, : len(image), : len(text)].numpy()
            assert np.allclose(there, cosines, atol=1e-5)
            wanted = cosines.mean() if min(len(image), len(text)) > 1 else np.nan
            assert float(compared.weights(kind)[latent]) == pytest.approx(wanted, abs=1e-6, nan_ok=True)


def test_the_null_is_the_mean_over_all_other_latents(drawn):
    """By brute force: image tokens of each latent with the text tokens of each other one, weighted by the latent's energy."""
    store, pairs, tokens = drawn
    found = reduce(add_fired, (fire_part(store, pairs, part, LATENTS, CONFIG) for part in chunks(store)))
    everyone = list(range(len(pairs)))
    place = [int(name.rsplit("/", 1)[-1]) for name in pairs.names]
    for kind in range(3):
        means = []
        for m in range(2):
            middle = (kind > 0) * tokens[m].reshape(-1, D).mean(0)
            means.append([])
            for latent in range(F - 1):
                at = sorted((-tokens[m, place[p], t, latent], p, t) for p, t in product(everyone, range(T)))[:TOP]
                rows = np.array([tokens[m, place[p], t] for _, p, t in at]) - middle
                if kind == 2:
                    rows[:, latent] = 0
                means[m].append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0))
        energy = tokens[..., : F - 1].clip(0).sum((0, 1, 2))
        each = [np.mean([means[0][k] @ means[1][j] for j in range(F - 1) if j != k]) for k in range(F - 1)]
        null = compare(store, 0, pairs, found, LATENTS)[0].others[kind]
        assert null == pytest.approx(float(energy @ each / energy.sum()), abs=1e-6)


def test_half_of_a_weight_is_what_that_half_of_the_pairs_gives_alone(drawn, tmp_path):
    """A store of nothing but the pairs of even groups, whose own groups are whatever they are."""
    store, pairs, tokens = drawn
    found = reduce(add_fired, (fire_part(store, pairs, part, LATENTS, CONFIG) for part in chunks(store)))
    m = {m.metric: m for m in weight_measures(found, compare(store, 0, pairs, found, LATENTS), pairs)}
    assert set(m) == set(KINDS)
    kept = [int(pairs.names[p].rsplit("/", 1)[-1]) for p in range(len(pairs)) if pairs.group[p] % 2 == 0]
    # The others' rows are silent and without length: of another split they would be no pairs at all.
    alone = tokens.astype(np.float16).copy()
    for i in set(range(N)) - set(kept):
        alone[:, i] = np.nan
    part = write_pairs(tmp_path / "half", alone[0], alone[1], tokens=T, chunk=16)
    of_half = plan_study(part, CONFIG).pairs[TRAINED]
    again = reduce(add_fired, (fire_part(part, of_half, own, LATENTS, CONFIG) for own in chunks(part)))
    values = {m.metric: m.value for m in weight_measures(again, compare(part, 0, of_half, again, LATENTS), of_half)}
    for name in KINDS:
        assert m[name].halves[0] == pytest.approx(values[name], abs=1e-6)


def test_a_pair_gives_as_many_image_tokens_as_text_tokens_and_the_same_ones_whatever_the_block(drawn, monkeypatch):
    store, pairs, _ = drawn
    found = []
    for n_bytes in (2**25, 2 * D * 7):  # blocks of seven rows: pairs are cut in two
        monkeypatch.setattr("linrep.store.blocks.BATCH_BYTES", n_bytes)
        found.append([m for part in chunks(store) for m in matched_tokens(store, pairs, part, 3)])
    for one, other in zip(*found, strict=True):
        for a, b in ((one.image, other.image), (one.text, other.text)):
            assert a.pair.tolist() == b.pair.tolist()
            assert a.number.tolist() == b.number.tolist()
            assert torch.equal(a.x, b.x)
    assert sum(int(m.counts.sum()) for m in found[0]) == N * T


def test_no_more_tokens_are_held_than_the_captions_have_and_a_block(tmp_path, monkeypatch):
    """Images of forty tokens, captions of one: of 50 pairs a chunk no more than 50 image tokens and a block are held."""
    n, long = 100, 40
    texts = np.full((n, long, D), np.nan)
    texts[:, 0] = 1
    store = write_pairs(tmp_path / "w", np.ones((n, long, D)), texts, tokens=long, chunk=50)
    pairs = plan_study(store, CONFIG).pairs[TRAINED]
    monkeypatch.setattr("linrep.store.blocks.BATCH_BYTES", 2 * D * 30)
    held: list[int] = []
    smallest = reading._smallest
    monkeypatch.setattr(reading, "_smallest", lambda pair, *rest: (held.append(len(pair)), smallest(pair, *rest))[1])
    sizes = [len(m.image.pair) for part in chunks(store) for _, m in pieces(store, pairs, part, 0, 3)]
    assert sum(sizes) == n
    assert max(sizes) <= 3  # what is encoded at once
    assert max(held) <= 50 + 30


def test_of_an_image_with_more_tokens_than_its_caption_some_are_drawn_fairly(tmp_path):
    """One token of texts and five of images: each of the five is taken in a fifth of the pairs, and other seeds take others."""
    rng = np.random.default_rng(0)
    n = 300
    texts = rng.standard_normal((n, T, D)).astype(np.float16)
    texts[:, 1:] = np.nan  # rows that the number format could not hold are none
    store = write_pairs(tmp_path / "w", rng.standard_normal((n, T, D)), texts, tokens=T, chunk=100)
    pairs = plan_study(store, CONFIG).pairs[TRAINED]
    taken = []
    for seed in (0, 1):
        found = [m for part in chunks(store) for m in matched_tokens(store, pairs, part, seed)]
        assert all((m.counts == 1).all() for m in found)
        assert all(m.text.number.tolist() == [0] * len(m.pair) for m in found)
        taken.append(np.concatenate([m.image.number for m in found]))
    counts = np.bincount(taken[0], minlength=T)
    # Of 300 draws with a chance of 1/5: 60, give or take four standard deviations of 6.9.
    assert (np.abs(counts - n / T) < 28).all()
    assert (taken[0] == taken[1]).mean() < 0.4
