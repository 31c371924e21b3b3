"""Images at one layer beside texts at every other: what is planted is found where it is, and nothing elsewhere."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
import torch

from linrep.sharing.across import AcrossMeasure, across, best_layers
from linrep.sharing.concepts import concepts
from linrep.sharing.config import AcrossConfig, SharingConfig
from linrep.sharing.crossfit import direction_cosine, value_sums
from linrep.sharing.geometry import from_sums
from linrep.sharing.intervals import Measure
from linrep.sharing.kernels import cka_of, hsic_without_groups
from linrep.sharing.layers import CommonRows, LayerRows, in_common
from linrep.sharing.study import Pairs
from linrep.sharing.sums import Drawn, PassSums
from tests.sharing.planted import in_memory

N, D, C, L, AHEAD = 400, 24, 8, 4, 2
CONFIG = SharingConfig(groups=5, reservoir=N)
WHOLE = ("direction_cosine", "class_retrieval_image_to_text", "class_retrieval_text_to_image")


def world(seed: int, shared: bool, nuisance: float = 0.0) -> tuple[Pairs, list[PassSums], CommonRows]:
    """Directions of classes that differ from layer to layer; those of images at layer i are those of texts at layer i + 2.

    Args:
        seed: Of the world.
        shared: Whether they are; else texts have others at every layer.
        nuisance: Deviation of what an image and its caption have in common at every layer, beside their class.
    """
    rng = np.random.default_rng(seed)
    labels, common = rng.integers(C, size=N), nuisance * rng.standard_normal((N, D))
    of_images = rng.standard_normal((L, C, D)) / D**0.5
    of_texts = rng.standard_normal((L, C, D)) / D**0.5
    if shared:
        of_texts[AHEAD:] = of_images[:-AHEAD]
    x, y = (own[:, labels] + common + 0.2 * rng.standard_normal((L, N, D)) for own in (of_images, of_texts))
    sums = [in_memory(one, other, labels, CONFIG) for one, other in zip(x, y, strict=True)]
    rows = CommonRows(tuple(range(L)), np.arange(N), torch.from_numpy(x).float(), torch.from_numpy(y).float())
    return sums[0][0], [own for _, own in sums], rows


def values(found: Sequence[AcrossMeasure], metric: str) -> np.ndarray:
    return np.array([m.measure.value for m in found if m.measure.metric == metric]).reshape(L, L)


@pytest.fixture(scope="module")
def ahead() -> list[AcrossMeasure]:
    pairs, _, rows = world(0, True)
    return list(across(rows, pairs, CONFIG))


METRICS = (*WHOLE, "transfer_image_to_text_centred", "transfer_text_to_image_centred")


@pytest.mark.parametrize("metric", METRICS)
def test_the_largest_value_is_two_layers_ahead_where_it_was_planted(ahead, metric):
    own = [m for m in ahead if m.measure.metric == metric]
    assert [(m.image_layer, m.text_layer) for m in own] == [(i, j) for i in range(L) for j in range(L)]
    for i in range(L - AHEAD):
        best = [m.text_layer for m in own if m.image_layer == i and m.best]
        assert best == [i + AHEAD]
        (there,) = (m.measure for m in own if (m.image_layer, m.text_layer) == (i, i + AHEAD))
        assert there.value > 0.5
        assert there.low > there.null
    elsewhere = [m.measure for m in own if m.text_layer != m.image_layer + AHEAD]
    assert max(m.value for m in elsewhere) < 0.4
    if metric in WHOLE:  # the null of a transfer is itself a draw
        assert sum(m.low <= m.null <= m.high for m in elsewhere) >= len(elsewhere) - 2


def test_kernels_are_alike_two_layers_ahead_whatever_the_axes_and_nowhere_else():
    """No classes: what an image has at layer i its caption has at layer i + 2, turned."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, L, N, D))
    y[AHEAD:] = x[:-AHEAD] @ np.linalg.qr(rng.standard_normal((D, D)))[0] + 0.5 * rng.standard_normal((L - AHEAD, N, D))
    pairs, *_ = world(0, False)
    rows = CommonRows(tuple(range(L)), np.arange(N), torch.from_numpy(x).float(), torch.from_numpy(y).float())
    found = [m for m in across(rows, pairs, CONFIG) if m.measure.metric == "cka_debiased"]
    for m in found:
        if m.text_layer == m.image_layer + AHEAD:
            # Covariance of y: 1 + .25; kernels of x and of y are alike as far as y is x.
            assert m.measure.value == pytest.approx(0.8, abs=0.05)
            assert m.best
        else:
            assert abs(m.measure.value) < 0.05
    assert sum(m.measure.low <= 0 <= m.measure.high for m in found) >= L * L - 2 - 2


def test_what_pairs_share_beside_their_class_is_at_no_layer_a_likeness_of_classes():
    pairs, _, rows = world(1, False, nuisance=0.5)
    found = [m.measure for m in across(rows, pairs, CONFIG) if m.measure.metric == "direction_cosine"]
    assert len(found) == L * L
    assert sum(m.low <= 0 <= m.high for m in found) >= L * L - 2
    assert abs(np.mean([m.value for m in found])) < 0.1


def test_of_one_layer_it_is_what_the_layer_alone_has():
    pairs, sums, rows = world(2, True, nuisance=0.3)
    found = list(across(rows, pairs, CONFIG))
    for k in range(L):
        own = {m.measure.metric: m.measure for m in found if m.image_layer == m.text_layer == k}
        cosine = direction_cosine(next(value_sums(sums[k], pairs)), CONFIG.seed)
        assert own["direction_cosine"].value == pytest.approx(cosine.value, abs=2e-3)
        assert own["direction_cosine"].low == pytest.approx(cosine.low, abs=5e-3)
        assert (own["direction_cosine"].null_low, own["direction_cosine"].null_high) == pytest.approx(
            (cosine.null_low, cosine.null_high), abs=2e-3
        )
        alone = {m.metric: m for m in [*concepts(sums[k], pairs, CONFIG), *from_sums(sums[k], CONFIG)]}
        for name in ("class_retrieval_image_to_text", "transfer_image_to_text_centred", "transfer_text_to_image_centred"):
            assert own[name].value == pytest.approx(alone[name].value)
            assert own[name].null == pytest.approx(alone[name].null)
        # From kernels here, from cross-covariances there.
        assert own["cka_debiased"].value == pytest.approx(alone["cka_debiased"].value, abs=1e-6)
        assert own["cka_debiased"].low == pytest.approx(alone["cka_debiased"].low, abs=1e-6)


def test_hsic_is_the_mean_over_all_sets_of_different_pairs():
    """The U-statistic written out: means over two, three and four different pairs."""
    rng = np.random.default_rng(0)
    rows, group = rng.standard_normal((2, 9, 3)), np.array([0, 0, 1, 1, 1, 2, 2, 2, 0])

    def slow(x: np.ndarray, y: np.ndarray) -> float:
        k, m, n = x @ x.T, y @ y.T, len(x)
        two = np.mean([k[a, b] * m[a, b] for a, b in permutations(range(n), 2)])
        three = np.mean([k[a, b] * m[a, c] for a, b, c in permutations(range(n), 3)])
        four = np.mean([k[a, b] * m[c, d] for a, b, c, d in permutations(range(n), 4)])
        return float(two + four - 2 * three)

    whole, without = hsic_without_groups([torch.from_numpy(own) for own in rows], group, 3)
    assert whole[0, 1] == pytest.approx(slow(*rows))
    assert whole[1, 1] == pytest.approx(slow(rows[1], rows[1]))
    for g in range(3):
        assert without[g, 0, 1] == pytest.approx(slow(*rows[:, group != g]))
    assert cka_of(whole)[0, 1] == pytest.approx(slow(*rows) / (slow(rows[0], rows[0]) * slow(rows[1], rows[1])) ** 0.5)


def with_left_out(value: float, left_out: Sequence[float]) -> Measure:
    return Measure("m", value, 0, 1, 0.0, 9, left_out={f"pairs {g}": own for g, own in enumerate(left_out)})


def test_a_layer_is_among_the_best_unless_the_difference_is_seen_with_the_same_left_out():
    """By hand: errors of .1225 and .01225 of a difference of .1, four groups, two comparisons: t = 4.18."""
    top = with_left_out(0.5, (0.5, 0.6, 0.4, 0.5))
    unsure = with_left_out(0.4, (0.5, 0.5, 0.2, 0.4))
    below = with_left_out(0.4, (0.41, 0.5, 0.29, 0.4))
    assert best_layers([unsure, top, below]) == [True, True, False]
    nothing = with_left_out(float("nan"), (0.5, 0.5, 0.5, 0.5))
    assert best_layers([nothing, top]) == [None, True]
    assert best_layers([nothing, nothing]) == [None, None]


def test_rows_that_never_vary_have_no_value():
    pairs, _, rows = world(0, True)
    still = CommonRows(rows.layers, rows.pair, torch.ones_like(rows.x), rows.y)
    found = list(across(still, pairs, CONFIG))
    for metric in ("direction_cosine", "cka_debiased"):
        assert np.isnan(values(found, metric)).all()
    assert {m.best for m in found if m.measure.metric == "direction_cosine"} == {None}


def test_pairs_without_a_row_at_some_layer_are_left_out_of_all():
    def drawn(*pair: int) -> Drawn:
        rows = torch.tensor(pair)[:, None].float()
        return Drawn(np.array(pair), rows, -rows)

    found = in_common(LayerRows({4: drawn(1, 2, 5, 7), 0: drawn(2, 3, 7)}))
    assert found.layers == (0, 4)
    assert found.pair.tolist() == [2, 7]
    assert found.x[:, :, 0].tolist() == [[2, 7], [2, 7]]
    assert found.y[:, :, 0].tolist() == [[-2, -7], [-2, -7]]


def test_layers_are_chosen_evenly_and_must_be_several():
    assert AcrossConfig().chosen((0, 3, 5)) == (0, 3, 5)
    assert AcrossConfig(most=4).chosen(range(33)) == (0, 11, 21, 32)
    assert AcrossConfig(layers=(5, 1)).chosen(range(9)) == (1, 5)
    assert AcrossConfig().chosen((3,)) == (3,)
    with pytest.raises(ValueError, match="two layers or more"):
        AcrossConfig(layers=(5, 5))
