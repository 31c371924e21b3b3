"""Trends of planted worlds: the same pairs at every layer, with what a class has in common at each known."""

import numpy as np
import pytest

from linrep.sharing.artefact import left_out_rows, rows_of
from linrep.sharing.concepts import concepts
from linrep.sharing.config import SharingConfig
from linrep.sharing.geometry import from_sums
from linrep.sharing.study import Study, Unit
from linrep.sharing.trends import trends
from tests.sharing.planted import in_memory, write_pairs

CONFIG = SharingConfig(groups=20, reservoir=64, resamples=50)
N, D, C = 800, 32, 10


def world(seed: int, shared: tuple[float, ...], n: int = N) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images and texts by layer: classes agree at each as far as is said, and nuisance and noise are the same at all."""
    rng = np.random.default_rng(seed)
    both, image, text = np.linalg.qr(rng.standard_normal((D, 3 * C)))[0].T.reshape(3, C, D)
    labels = rng.integers(C, size=n)
    common, *noise = 0.3 * rng.standard_normal((3, n, D))
    layers = []
    for share in shared:
        rows = [
            (share**0.5 * both + (1 - share) ** 0.5 * own)[labels] + common + e
            for own, e in zip((image, text), noise, strict=True)
        ]
        layers.append((rows[0], rows[1], labels))
    return layers


def moved(tmp_path, layers, model: str = "trained", base: int | None = 0):
    """The trends of some layers, through the rows of both tables."""
    store = write_pairs(tmp_path / "store", np.ones((60, 4)), np.ones((60, 4)))
    rows, left_out = [], []
    for k, (x, y, labels) in enumerate(layers):
        pairs, sums = in_memory(x, y, labels, CONFIG)
        study = Study({model: store}, CONFIG, {model: pairs})
        for measures in (list(from_sums(sums, CONFIG)), concepts(sums, pairs, CONFIG)):
            rows += [one | {"layer": k} for one in rows_of(study, Unit(model, 0), "concept", measures, {})]
            left_out += [one | {"layer": k} for one in left_out_rows(study, Unit(model, 0), "concept", measures)]
    return {(row["metric"], row["base"]): row for row in trends(rows, left_out, base)}


def test_a_planted_rise_is_found_over_pairs_and_over_classes(tmp_path):
    found = moved(tmp_path, world(0, (0.2, 0.4, 0.8)))["direction_cosine", 0]
    assert found["low"] <= 0.6 <= found["high"]
    assert found["slope_low"] <= 0.3 <= found["slope_high"]
    assert (found["verdict"], found["classes_verdict"], found["over"], found["last"]) == ("rises", "rises", "pairs", 2)


def test_trends_count_from_layer_one_and_from_the_first_beside_it(tmp_path):
    found = moved(tmp_path, world(1, (0.1, 0.8, 0.3)), base=None)
    main, first = found["direction_cosine", 1], found["direction_cosine", 0]
    assert (main["main"], main["verdict"]) == (True, "falls")
    assert (first["main"], first["verdict"]) == (False, "rises")


def test_the_same_pairs_make_intervals_of_changes_narrow(tmp_path):
    """Layers that are alike but for what classes share: their common noise drops out of the hub score's change."""
    found = moved(tmp_path, world(2, (0.5, 0.5)))["hub", 0]
    assert (found["change"], found["verdict"]) == (pytest.approx(0, abs=1e-9), "flat")


def test_the_change_is_compared_with_the_untrained_models_over_the_same_pairs(tmp_path):
    rows, left_out = [], []
    store = write_pairs(tmp_path / "store", np.ones((60, 4)), np.ones((60, 4)))
    for model, shared in (("trained", (0.2, 0.8)), ("untrained", (0.2, 0.4))):
        for k, (x, y, labels) in enumerate(world(3, shared)):
            pairs, sums = in_memory(x, y, labels, CONFIG)
            study = Study({model: store}, CONFIG, {model: pairs})
            measures = concepts(sums, pairs, CONFIG)
            rows += [one | {"layer": k} for one in rows_of(study, Unit(model, 0), "concept", measures, {})]
            left_out += [one | {"layer": k} for one in left_out_rows(study, Unit(model, 0), "concept", measures)]
    (found,) = (row for row in trends(rows, left_out, 0) if (row["model"], row["metric"]) == ("trained", "direction_cosine"))
    assert found["untrained_change"] == pytest.approx(0.2, abs=0.1)
    assert found["over_untrained_low"] <= 0.4 <= found["over_untrained_high"]
    assert found["over_untrained_verdict"] == "rises"


def test_a_measure_of_one_layer_has_no_trend(tmp_path):
    assert moved(tmp_path, world(4, (0.5,))) == {}


@pytest.mark.slow
@pytest.mark.parametrize("shared", [(0.2, 0.6), (0.5, 0.5), (0.8, 0.3)])
def test_the_interval_of_a_change_holds_the_truth_of_these_classes_as_often_as_it_says(tmp_path, shared):
    """Orthogonal directions of one length: the truth is the same for every class, so pairs are all that is drawn."""
    held = []
    for seed in range(60):
        found = moved(tmp_path / str(seed), world(seed, shared, 400))["direction_cosine", 0]
        held.append(found["low"] <= shared[1] - shared[0] <= found["high"])
    assert np.mean(held) >= 0.88  # of 60 at 95%: two and a half deviations
