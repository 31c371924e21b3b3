"""Measures of designs by hand, their intervals on planted codes, and designs on planted worlds."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from linrep.sae.paired.designs import (
    COSINE,
    CROSSCODER,
    DEALT,
    DESIGNS,
    MATCHED,
    MIXED,
    RANDOM,
    RANDOM_MATCHED,
    Budget,
    crosscoder,
    designs,
)
from linrep.sae.paired.judge import TRUTH, by_measure, held_pairs, judge_pairs, judge_planted, null_of
from linrep.sae.paired.matching import correlations
from linrep.sae.paired.measures import HeldPairs, dead, retrieval, sharing, unexplained
from linrep.sae.paired.recovery import recovered
from linrep.sae.paired.rows import PairRows, standardised
from linrep.sae.paired.sides import Codes, Sides
from linrep.sae.paired.world import WORLDS, Planted, World, feature_directions, planted
from linrep.stats.interval import ends


def pairs(n: int, label: list[int] | None = None, weights: torch.Tensor | None = None) -> HeldPairs:
    rows = PairRows(torch.zeros(n, 2), torch.zeros(n, 2))
    classes = torch.tensor(label if label is not None else [-1] * n)
    return HeldPairs(rows, classes, torch.arange(n) >= n // 2, torch.ones(1, n) if weights is None else weights)


def test_unexplained_is_about_the_mean_of_the_rows_that_count():
    """Rows 0 and 2 about 1: spread 2. Rebuilt as 1 and 2: error 1. The first alone, twice: no spread but its own."""
    x, rebuilt = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [2.0]])
    assert unexplained(x, rebuilt, torch.tensor([[1.0, 1.0], [1.0, 3.0]])).tolist() == [0.5, pytest.approx(1 / 3)]


def test_energy_is_that_of_what_the_other_half_calls():
    """Latent 0 is shared in the first half and absent from the second; latent 1 the other way round; latent 2 fires alone."""
    n = 80
    on = (torch.arange(n) % 4 == 0).float()
    first, second = (torch.arange(n) < n // 2).float(), (torch.arange(n) >= n // 2).float()
    alone = torch.stack([on * first, on * second, torch.ones(n)], dim=1)
    found = sharing(Codes(alone, alone), pairs(n))
    assert float(found["energy_image"]) == 0  # what one half calls is silent in the other
    assert float(found["called"]) == 1  # the constant latent fires everywhere: no chance, no correlation
    whole = torch.stack([2 * on, 0 * on, torch.ones(n)], dim=1)
    found = sharing(Codes(whole, whole), pairs(n))
    assert float(found["energy_image"]) == pytest.approx(4 * 0.25 / (4 * 0.25 + 1))
    assert float(found["correlation"]) == pytest.approx(0.5)
    assert float(found["bimodal"]) == pytest.approx(1.0)
    once = torch.stack([2 * on, 0 * on, 0 * on], dim=1)
    assert float(sharing(Codes(whole, once), pairs(n))["bimodal"]) == pytest.approx(1.0 / 2.0)


def test_retrieval_by_hand():
    """Four classes of ten pairs in each half, a latent each; of the last class the latent is silent: chance there."""
    label = [i % 4 for i in range(80)]
    z = torch.nn.functional.one_hot(torch.tensor(label), 4).float()
    z[:, 3] = 0
    found = retrieval(Codes(z, z), pairs(80, label))
    others = 9 / 39
    assert float(found["retrieval"]) == pytest.approx(0.75 + 0.25 * others)
    assert float(found["chance"]) == pytest.approx(others)
    nothing = retrieval(Codes(torch.zeros(80, 4), z), pairs(80, label))
    assert float(nothing["retrieval"]) == pytest.approx(others)
    # Pairs without a class take no part.
    some = retrieval(Codes(z, z), pairs(80, [c if i % 8 < 4 else -1 for i, c in enumerate(label)]))
    assert float(some["retrieval"]) == pytest.approx(0.75 + 0.25 * 4 / 19)


def test_its_own_pair_does_not_count_as_found():
    """Every pair has a latent of its own; classes say nothing of them."""
    rng = np.random.default_rng(0)
    z = torch.eye(40).repeat(2, 1)
    label = rng.integers(0, 4, 80).tolist()
    found = retrieval(Codes(z, z), pairs(80, label))
    assert abs(float(found["retrieval"]) - float(found["chance"])) < 0.05


def test_dead_latents_are_silent_in_both():
    assert dead(Codes(torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0.0, 1, 0, 0]]))) == 0.5


def test_a_world_is_what_it_says():
    world = World(6, 4, 2, 1, cosine=0.5, width=16)
    found = planted(world, 3000, 1, 2)
    image, text = found.truth.image, found.truth.text
    assert image.shape == (3000, 14)
    assert (image > 0).sum(1).unique().tolist() == [3]
    assert ((image[:, :6] > 0) == (text[:, :6] > 0)).all()
    assert not image[:, 10:].any()
    assert not text[:, 6:10].any()
    of_images, of_texts = feature_directions(world, 1)
    torch.testing.assert_close(torch.linalg.vecdot(of_images, of_texts)[:6], torch.full((6,), 0.5))
    torch.testing.assert_close(of_texts.norm(dim=1), torch.ones(10))
    wanted = image[:, :10] @ of_images
    assert float((found.rows.image - wanted).std()) == pytest.approx(0.02, rel=0.05)
    same = feature_directions(replace(world, same_directions=True), 1)
    torch.testing.assert_close(same[0][6:], same[1][6:])


def test_the_truth_is_found_as_it_is():
    held = planted(World(10, 10, 2, 2), 600, 0, 1)
    found = recovered(held.truth, held)
    assert (found.called, found.recall, found.precision, found.hedged) == (10, (10, 10), (10, 10), (0, 20))
    assert (found.one_latent, found.apart, found.private, found.auroc) == pytest.approx((1.0, 1.0, 1.0, 1.0))


def test_split_features_and_hedging_are_seen():
    """Shared features in two latents, one of each modality; private ones whose latent also fires on the captions."""
    held = planted(World(10, 10, 2, 2), 600, 0, 1)
    image, text = held.truth.image, held.truth.text
    nothing = torch.zeros(600, 10)
    split = Codes(torch.cat([image, nothing], dim=1), torch.cat([nothing, text[:, 10:], text[:, :10]], dim=1))
    found = recovered(split, held)
    assert found.apart == pytest.approx(1.0)
    assert found.one_latent < 0.1
    assert found.recall == (0, 10)
    assert found.called == 0
    text[:, 10:20] = image[:, 10:20]
    hedging = recovered(Codes(image, text), Planted(held.rows, Codes(image, held.truth.text), 10, 10))
    assert hedging.hedged == (10, 20)
    assert hedging.precision == (10, 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["half shared", "nothing shared"])
def test_intervals_hold_the_truth_of_the_world(name):
    """Of shares of energy and of correlation, from the planted features of 400 pairs; the truth from 60,000."""
    world = WORLDS[name]
    large = planted(world, 60_000, 0, 999).truth
    truth = {n: float(v) for n, v in sharing(large, pairs(60_000)).items()}
    hits: dict[str, list[bool]] = {}
    for seed in range(40):
        held = planted(world, 400, 0, seed)
        drawn = held_pairs(held.rows, torch.full((400,), -1), 200, seed)
        found = sharing(held.truth, drawn)
        for measure in ("energy_image", "energy_text", "correlation", "bimodal"):
            low, high = ends(found[measure][1:].numpy())
            hits.setdefault(measure, []).append(low - 1e-9 <= truth[measure] <= high + 1e-9)
        null = null_of(held.truth, drawn, seed)
        assert null["called"] <= 0.5
        assert abs(null["correlation"]) < 0.05
    assert min(np.mean(own) for own in hits.values()) >= 0.85


TINY = World(8, 8, 2, 2, width=24)
QUICK = Budget(decoder_rows=80, k=4, steps=4, batch=128, learning_rate=2e-2, dead_after=2_000)


def small(seed: int) -> tuple[PairRows, Planted]:
    """Training pairs of a small world, and held-out ones on their scale."""
    train, held = planted(TINY, 4096, seed, 0), planted(TINY, 512, seed, 1)
    rows, held_rows = standardised(train.rows, held.rows)
    return rows, Planted(held_rows, held.truth, 8, 8)


@pytest.fixture(scope="module")
def tiny() -> tuple[dict[str, Sides], Planted]:
    """Designs that hardly began."""
    rows, held = small(0)
    return designs(rows, QUICK, 0), held


def test_designs_have_the_same_budget(tiny):
    sides, held = tiny
    rows = {name: int(own.image.decoder.any(1).sum() + own.text.decoder.any(1).sum()) for name, own in sides.items()}
    assert rows.pop(MIXED) == rows.pop(RANDOM) == 2 * 80  # one SAE, read twice
    assert rows == dict.fromkeys((MATCHED, COSINE, CROSSCODER, DEALT, RANDOM_MATCHED), 80)
    for own in sides.values():
        codes = own.codes(held.rows)
        assert int((codes.image > 0).sum(1).max()) <= 4
        assert int((codes.text > 0).sum(1).max()) <= 4
    with pytest.raises(ValueError, match="multiple of 4, got 42"):
        Budget(decoder_rows=42)


def test_a_crosscoder_finds_what_pairs_share_and_nothing_where_pairs_are_dealt():
    rows, held = small(1)
    budget = replace(QUICK, steps=100)
    found, dealt = (recovered(crosscoder(own, budget, 1).codes(held.rows), held) for own in (rows, rows.dealt(0)))
    assert found.one_latent > 0.6
    assert found.recall[0] >= 4
    assert found.hedged[0] == 0
    assert dealt.one_latent < 0.2
    assert dealt.called == 0
    assert dealt.apart > 0.5  # the features are found, in latents of one modality


def test_matching_by_cosine_keeps_the_same_two_saes(tiny):
    sides, _ = tiny
    one, other = sides[MATCHED], sides[COSINE]
    torch.testing.assert_close(one.image.decoder, other.image.decoder)
    torch.testing.assert_close(one.text.decoder.sort(dim=0).values, other.text.decoder.sort(dim=0).values)
    rows, _ = small(0)

    def matched(own: Sides) -> tuple[float, float]:
        """Sum of the correlations on training pairs, and of the cosines."""
        codes = own.codes(rows)
        seen, written = correlations(codes.image, codes.text), own.image.decoder @ own.text.decoder.t()
        return float(seen.trace()), float(written.trace())

    assert matched(one)[0] > matched(other)[0] + 0.1
    assert matched(other)[1] > matched(one)[1] + 0.1


def test_pairs_of_a_store_are_judged_with_intervals_over_pairs_and_seeds():
    train, held = planted(TINY, 1000, 0, 0), planted(TINY, 300, 0, 1)
    label = held.truth.image[:, :8].argmax(1)
    budget = replace(QUICK, steps=20)
    found = by_measure(judge_pairs(train.rows, held.rows, label, budget, (0, 1), 30))
    assert set(found["retrieval"]) == {*DESIGNS, DEALT, RANDOM, RANDOM_MATCHED}
    for name in DESIGNS:
        row = found["fvu_image"][name]
        assert row.found.low < row.found.value < row.found.high
        assert row.seeds == 2
    assert found["chance"][MIXED].found.value == pytest.approx(float((label[:, None] == label).double().mean()), abs=0.03)
    assert found["called"][DEALT].found.value < 1
    assert not math.isnan(found["called"][MIXED].null)
    assert math.isnan(found["fvu_text"][MIXED].null)


WIDE = Budget(steps=1000)


@pytest.fixture(scope="module")
def worlds():
    """Two worlds of each kind, at the bench's budget."""
    kinds = ("half shared", "half shared, directions apart", "nothing shared", "nothing shared, same directions")
    budgets = {name: replace(WIDE, k=WORLDS[name].active_latents) for name in kinds}
    return {name: by_measure(judge_planted(WORLDS[name], budget, range(2))) for name, budget in budgets.items()}


@pytest.mark.slow
def test_where_half_is_shared_crosscoder_and_matching_find_it(worlds):
    for name in ("half shared", "half shared, directions apart"):
        own = worlds[name]
        for design in (MATCHED, CROSSCODER):
            assert own["recall"][design].found.value > 0.85
            assert own["auroc"][design].found.value > 0.95
            assert own["hedged"][design].found.value < 0.05
            assert own["energy_image"][design].found.value == pytest.approx(own["energy_image"][TRUTH].found.value, abs=0.1)
        for control in (DEALT, RANDOM, RANDOM_MATCHED):
            assert own["recall"][control].found.value == 0


@pytest.mark.slow
def test_one_mixed_sae_splits_features_whose_directions_differ(worlds):
    same, differing = worlds["half shared"], worlds["half shared, directions apart"]
    assert same["recall"][MIXED].found.value > differing["recall"][MIXED].found.high
    assert differing["recall"][MIXED].found.value < 0.2
    assert differing["apart"][MIXED].found.value > differing["one_latent"][MIXED].found.value + 0.3


@pytest.mark.slow
def test_where_nothing_is_shared_nothing_is_called(worlds):
    for name in ("nothing shared", "nothing shared, same directions"):
        own = worlds[name]
        for design in (*DESIGNS, TRUTH):
            assert own["called"][design].found.value <= 1
            assert own["energy_image"][design].found.value < 0.02
            assert abs(own["correlation"][design].found.value) < 0.03
    # The modality score knows no pairs: it takes same directions for sharing.
    assert worlds["nothing shared, same directions"]["bimodal"][MIXED].found.value > 0.8
