"""Geometry and concepts on planted pairs: the truth inside the interval, the null where nothing is shared, sums equal to rows."""

import dataclasses
from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import homogeneity_score

from linrep.errors import RecipeError
from linrep.sharing.concepts import concepts
from linrep.sharing.crossfit import products, sizes_without_groups, value_sums
from linrep.sharing.geometry import cka, debiased_cka, from_sums, hub, permuted_cka, principal_angles
from linrep.sharing.intervals import of_classes
from linrep.sharing.rows import centred, from_rows, homogeneity, neighbourhood_overlap
from linrep.sharing.study import TRAINED, plan_study
from linrep.sharing.sums import unit
from linrep.stats.jackknife import jackknife
from tests.sharing.planted import CONFIG, gathered, in_memory, write_pairs

N, D, K = 600, 24, 3
LETTERS = tuple("abcdefghijklmnop")
RNG = np.random.default_rng(3)
BASIS = np.linalg.qr(RNG.standard_normal((D, D)))[0]
LABELS = np.arange(N) % 4
CLASS_AXES = BASIS[12:16]


def pairs(shared: bool, offset: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Images and texts with three leading directions each: the same ones and the same coordinates, or others.

    Class directions are the same or, unshared, those of the next class; modality is an offset along an axis of its own.
    """
    rng = np.random.default_rng(0)
    z = rng.standard_normal((N, K)) * 2
    other = rng.standard_normal((N, K)) * 2
    noise = [0.3 * rng.standard_normal((N, D)) for _ in range(2)]
    own = 1.5 * CLASS_AXES[LABELS]
    images = z @ BASIS[:K] + own + noise[0] + offset * BASIS[20]
    if shared:
        return images, z @ BASIS[:K] + own + noise[1] - offset * BASIS[20]
    return images, other @ BASIS[K : 2 * K] + 1.5 * BASIS[16:20][LABELS] + noise[1] - offset * BASIS[20]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    images, texts = pairs(True)
    study, found = gathered(write_pairs(tmp_path_factory.mktemp("s") / "s", images, texts, LABELS))
    return images, texts, study, found


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    images, texts = pairs(False)
    study, found = gathered(write_pairs(tmp_path_factory.mktemp("a") / "a", images, texts, LABELS))
    return images, texts, study, found


def measures(fixture) -> dict:
    _, _, study, found = fixture
    own = study.pairs[TRAINED]
    return {m.metric: m for m in [*from_sums(found, CONFIG), *from_rows(found, own, CONFIG), *concepts(found, own, CONFIG)]}


@pytest.fixture(scope="module")
def of_shared(shared):
    return measures(shared)


@pytest.fixture(scope="module")
def of_apart(apart):
    return measures(apart)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def test_every_pair_is_found_once_and_groups_are_of_one_size(shared):
    _, _, study, found = shared
    own = study.pairs[TRAINED]
    assert len(own) == found.n == N
    assert set(np.bincount(own.group)) == {N // 10}
    assert own.drawn.sum() == len(found.drawn.pair) == 400
    assert (np.bincount(own.shuffled) == np.bincount(own.label)).all()
    assert 0.15 < (own.shuffled == own.label).mean() < 0.35
    # The rows of a pair stand side by side: without the offset, images and texts share all but noise.
    x, y = centred(found.drawn.x), centred(found.drawn.y)
    assert float(torch.nn.functional.cosine_similarity(x, y).median()) > 0.8


def test_the_streamed_hub_score_is_the_one_over_all_pairs_of_rows(shared):
    images, texts, _, found = shared
    all_cosines = cosine(images.astype(np.float16).astype(float), texts.astype(np.float16).astype(float))
    others = (all_cosines.sum() - np.trace(all_cosines)) / (N * (N - 1))
    assert hub(found.total(range(10))) == pytest.approx(np.diag(all_cosines).mean() - others, abs=1e-12)


def unbiased_hsic(k: torch.Tensor, m: torch.Tensor) -> float:
    """The unbiased estimator of HSIC from two kernels, term by term (Song et al., 2012, equation 5)."""
    n = len(k)
    k, m = k - torch.diag(k.diagonal()), m - torch.diag(m.diagonal())
    inside = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) @ m.sum(1))
    return float(inside) / (n * (n - 3))


@pytest.mark.parametrize("which", ["shared", "apart"])
def test_streamed_cka_is_the_one_of_kernels(which, request):
    images, texts, _, found = request.getfixturevalue(which)
    x, y = (torch.from_numpy(z.astype(np.float16).astype(np.float64)) for z in (images, texts))
    x, y = x - x.mean(0), y - y.mean(0)
    k, m = x @ x.T, y @ y.T
    s = found.total(range(10))
    assert cka(s) == pytest.approx(float((k * m).sum() / (k.norm() * m.norm())), rel=1e-9)
    # The unbiased estimator does not centre: that it is the same with and without is its own law.
    raw_k, raw_m = (torch.from_numpy(z.astype(np.float16).astype(np.float64)) for z in (images, texts))
    raw_k, raw_m = raw_k @ raw_k.T, raw_m @ raw_m.T
    for a, b in ((k, m), (raw_k, raw_m)):
        slow = unbiased_hsic(a, b) / (unbiased_hsic(a, a) * unbiased_hsic(b, b)) ** 0.5
        assert debiased_cka(s) == pytest.approx(slow, rel=1e-6, abs=1e-9)


def test_the_null_of_cka_is_its_mean_over_all_permutations_of_all_pairs(tmp_path):
    """Of seven pairs there are 5,040 permutations; the reservoir holds fewer pairs and does not matter."""
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(z) for z in rng.standard_normal((2, 7, 3)))
    _, found = in_memory(x.numpy(), y.numpy(), np.arange(7) % 2, CONFIG.model_copy(update={"groups": 7, "reservoir": 3}))
    k, m = centred(x) @ centred(x).T, centred(y) @ centred(y).T
    orders = torch.tensor(list(permutations(range(7))))
    plain = (k * m[orders[:, :, None], orders[:, None, :]]).sum((1, 2)) / (k.norm() * m.norm())
    fair = [unbiased_hsic(k, m[order][:, order]) for order in orders[::20]]
    assert permuted_cka(found.everything) == pytest.approx(float(plain.mean()), rel=1e-9)
    assert abs(np.mean(fair)) < 3 * np.std(fair) / len(fair) ** 0.5


def test_the_null_of_class_directions_holds_nothing_of_what_pairs_share(of_shared):
    """Whole pairs dealt to classes anew would read .9 here; classes dealt anew in one modality alone read nothing."""
    m = of_shared["direction_cosine"]
    assert m.null == 0
    assert m.null_low < 0 < m.null_high
    assert m.value > 0.9


def test_a_share_has_an_interval_where_all_pairs_are_right_too(of_shared):
    assert of_shared["modality_probe"].low == pytest.approx(1 / (1 + 1.96**2 / 400), abs=1e-3)  # Wilson, 400 of 400


def test_halves_of_the_pairs_are_measured_as_if_the_others_were_not_there(shared, of_shared):
    _, _, study, found = shared
    own = study.pairs[TRAINED]
    other = np.isin(own.group[found.drawn.pair], range(1, 10, 2))
    changed = dataclasses.replace(
        found,
        sums=tuple(s if g % 2 == 0 else found.sums[0] for g, s in enumerate(found.sums)),
        drawn=dataclasses.replace(found.drawn, x=torch.where(torch.from_numpy(other)[:, None], 0.1, found.drawn.x)),
    )
    for m in [*from_rows(changed, own, CONFIG), *concepts(changed, own, CONFIG)]:
        assert m.halves[0] == pytest.approx(of_shared[m.metric].halves[0], abs=1e-9), m.metric


def test_shared_structure_is_returned_within_its_interval(of_shared):
    m = of_shared
    # What is shared has variance 4 in three directions and 1.5^2 / 4 in three (of class means), noise .09 in all 24.
    signal, noise = np.array([4.0] * 3 + [1.5**2 / 4] * 3 + [0.0] * 18), 0.3**2
    truth = (signal**2).sum() / ((signal + noise) ** 2).sum()
    assert m["cka_debiased"].low <= truth <= m["cka_debiased"].high
    assert m["subspace_overlap"].value > 0.99
    assert m["subspace_overlap"].null == pytest.approx(K / D)
    # Class directions are one and the same: their cosine is 1 up to the noise of class means.
    assert m["direction_cosine"].value > 0.97
    assert m["class_retrieval_image_to_text"].value == m["class_retrieval_text_to_image"].value == 1
    assert m["class_retrieval_image_to_text"].null == 0.25
    # Four classes of four say that much about classes in general, and no more (Wilson).
    assert (m["class_retrieval_image_to_text"].low, m["class_retrieval_image_to_text"].high) == (
        pytest.approx(0.5101, abs=1e-4),
        1,
    )
    assert m["transfer_image_to_text_centred"].low > 0.9
    assert m["neighbourhood_overlap"].low > 10 * m["neighbourhood_overlap"].null
    assert m["pair_retrieval_image_to_text"].low > 100 * m["pair_retrieval_image_to_text"].null


def test_nothing_shared_gives_the_nulls(of_apart):
    m = of_apart
    for name in ("hub", "cka_debiased", "hub_centred", "cosine_matched_centred", "direction_cosine"):
        assert abs(m[name].value - m[name].null) < 0.06, name
    assert m["hub"].low <= 0.01
    assert m["subspace_overlap"].value < 0.02  # orthogonal by construction: below even random subspaces
    assert m["pair_retrieval_image_to_text"].value < 0.03
    assert m["neighbourhood_overlap"].value < 3 * m["neighbourhood_overlap"].null + 0.02
    # Chance is one in four classes; a probe carried over knows no more.
    assert m["transfer_image_to_text_centred"].value < 0.45
    assert m["probe_image"].low > 0.9


def test_controls_are_at_chance(of_shared, of_apart):
    for m in (of_shared, of_apart):
        assert m["modality_probe"].value == 1
        assert abs(m["modality_probe"].null - 0.5) < 0.08
        assert abs(m["probe_image"].null - 0.25) < 0.08
        assert m["cluster_homogeneity"].value > 0.99
        assert m["cluster_homogeneity"].null < 0.03


def test_without_an_offset_nothing_tells_the_modalities_apart(tmp_path):
    images, texts = pairs(True, offset=0.0)
    study, found = gathered(write_pairs(tmp_path / "s", images, texts))
    m = {m.metric: m for m in [*from_sums(found, CONFIG), *from_rows(found, study.pairs[TRAINED], CONFIG)]}
    assert abs(m["modality_probe"].value - 0.5) < 0.06
    assert m["cluster_homogeneity"].value < 0.05
    assert m["cosine_matched"].value == pytest.approx(np.diag(cosine(images, texts)).mean(), abs=1e-3)
    assert m["cosine_matched"].low > 0.8
    assert not concepts(found, study.pairs[TRAINED], CONFIG)  # nobody named classes


def test_intervals_of_the_jackknife_hold_the_truth():
    # Of a mean the jackknife over single values is Student's interval.
    from scipy.stats import t

    values = np.random.default_rng(0).standard_normal(30) + 1
    low, high = jackknife(values.mean(), [np.delete(values, i).mean() for i in range(30)])
    assert (low, high) == pytest.approx(t.interval(0.95, 29, values.mean(), values.std(ddof=1) / 30**0.5))


def test_the_planted_cosine_lies_in_its_interval_in_most_worlds(tmp_path):
    # x = s + m, y = s - m with |s|^2 : |m|^2 known: matched cosine (1 - r) / (1 + r), here .6.
    inside = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        s = unit(torch.from_numpy(rng.standard_normal((300, 64)))).numpy()
        m = rng.standard_normal((300, 64))
        m -= (m * s).sum(1, keepdims=True) * s
        m *= 0.5 / np.linalg.norm(m, axis=1, keepdims=True)
        _, found = gathered(write_pairs(tmp_path / str(seed), s + m, s - m, chunk=100), CONFIG)
        own = found.total(range(10))
        assert float(own.uv / own.n) == pytest.approx(0.6, abs=1e-3)
        low, high = jackknife(hub(own), [hub(own - found.sums[g]) for g in range(10)])
        inside += low - 2e-3 <= 0.6 <= high + 2e-3
    assert inside >= 6


def test_homogeneity_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, clusters = rng.integers(2, size=90), rng.integers(5, size=90)
    assert homogeneity(labels, clusters) == pytest.approx(homogeneity_score(labels, clusters))


def test_neighbourhood_overlap_by_hand():
    u = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    swapped = u[[0, 2, 1, 3]]
    assert neighbourhood_overlap(unit(u), unit(u), 1).tolist() == [1, 1, 1, 1]
    assert neighbourhood_overlap(unit(u), unit(swapped), 1).tolist() == [0, 0, 0, 0]


def test_principal_angles_by_hand(shared):
    *_, found = shared
    s = found.total(range(10))
    zero = torch.zeros(D, dtype=torch.float64)
    # Leading planes of axes 0, 1 and of axes 0, 2: one angle is 0, the other 90 degrees.
    one = torch.diag(torch.tensor([3.0, 2.0, 1.0] + [0.1] * (D - 3), dtype=torch.float64))
    other = torch.diag(torch.tensor([3.0, 1.0, 2.0] + [0.1] * (D - 3), dtype=torch.float64))
    assert principal_angles(dataclasses.replace(s, x=zero, y=zero, xx=one, yy=other), 2) == pytest.approx((0.5, 1.0))


def test_transfer_is_that_of_scikit_learns_discriminant(shared, of_shared):
    images, texts, *_ = shared
    x, y = (z.astype(np.float16).astype(float) for z in (images, texts))
    fitted = LinearDiscriminantAnalysis(priors=[0.25] * 4).fit(x - x.mean(0), LABELS)
    theirs = (fitted.predict(y - y.mean(0)) == LABELS).mean()
    assert of_shared["transfer_image_to_text_centred"].value == pytest.approx(theirs, abs=0.03)


def test_products_of_class_directions_are_those_of_all_pairs_of_different_groups():
    """Written out, image by image and text by text, each about the mean of the classes."""
    rng = np.random.default_rng(0)
    x, y, labels = rng.standard_normal((60, 5)), rng.standard_normal((60, 5)), rng.integers(3, size=60)
    own, found = in_memory(x, y, labels, CONFIG)

    def slow(one, other):
        means = np.zeros((3, 3))
        for k in range(3):
            for c in range(3):
                at = [(i, j) for i in range(60) for j in range(60) if (labels[i], labels[j]) == (k, c)]
                means[k, c] = np.mean([one[i] @ other[j] for i, j in at if own.group[i] != own.group[j]])
        return means - means.mean(0) - means.mean(1)[:, None] + means.mean()

    a, b = (z.numpy() for z in found.references)
    whole = products(next(value_sums(found, own)), range(10))
    for fast, wanted in ((whole.xy, slow(x - a, y - b)), (whole.xx, slow(x - a, x - a)), (whole.yy, slow(y - b, y - b))):
        assert fast == pytest.approx(wanted)
    without = slow(x - a, y - b)[:2, :2]
    without = without - without.mean(0) - without.mean(1)[:, None] + without.mean()
    assert whole.without_each_class()[2, 0] == pytest.approx(np.trace(without))
    # Without the third group, the fast way and by leaving it out.
    sums = next(value_sums(found, own))
    left = products(sums, [g for g in range(10) if g != 2])
    assert sizes_without_groups(sums)[2] == pytest.approx(left.sizes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": (7,)}, "no layer 7"),
        ({"groups": 400}, "has 600 image-caption pairs, at least 800 are needed"),
    ],
)
def test_what_is_not_there_is_one_clear_line(shared, changes, message):
    store = shared[2].stores[TRAINED]
    with pytest.raises(RecipeError, match=message) as raised:
        plan_study(store, CONFIG.model_copy(update=changes))
    assert "\n" not in str(raised.value)


def test_stores_of_one_modality_or_without_the_view_are_refused(tmp_path):
    images, texts = pairs(True)
    one = write_pairs(tmp_path / "one", images[:50], texts[:50], modalities=("image",))
    with pytest.raises(RecipeError, match="has no rows of modality text"):
        plan_study(one, CONFIG)
    two = write_pairs(tmp_path / "two", images[:50], texts[:50], views=("tokens",))
    with pytest.raises(RecipeError, match="no view 'pooled'"):
        plan_study(two, CONFIG)


@pytest.mark.parametrize(("signal", "chance"), [(0.0, 1 / 16), (0.55, None)])
def test_the_interval_of_a_share_of_classes_holds_the_truth_as_often_as_it_says(signal, chance):
    """Classes drawn anew each time, so the truth is the share over very many of them; a share is never below 0 or above 1."""
    rng = np.random.default_rng(0)

    def hits() -> np.ndarray:
        x = rng.standard_normal((16, 24))
        y = signal * x + rng.standard_normal((16, 24))
        return (unit(torch.from_numpy(x - x.mean(0))) @ unit(torch.from_numpy(y - y.mean(0))).T).argmax(1).numpy() == np.arange(
            16
        )

    truth = float(np.mean([hits().mean() for _ in range(2000)]))
    assert chance is None or truth == pytest.approx(chance, abs=0.01)
    found = [
        of_classes("share", lambda _, own=own: own, 2, 1 / 16, 100, tuple("abcdefghijklmnop"), "class")
        for own in (hits() for _ in range(300))
    ]
    assert all(0 <= m.low <= m.value <= m.high <= 1 for m in found)
    assert np.mean([m.low <= truth <= m.high for m in found]) > 0.91  # of 300 at 95%: three deviations
