"""Both new measures separate a trained SAE from all controls on planted data, agree between seeds, and do nothing on noise."""

import numpy as np
import pytest
import torch

from linrep.sae.controls import Training
from linrep.sae.panel.beside import CONTROLS, controls
from linrep.sae.panel.causal import LATENTS, Cases
from linrep.sae.panel.detection import halves
from linrep.sae.panel.explained import explained
from linrep.sae.panel.intervals import Resampled, Successes, seed_reach, with_seeds
from linrep.sae.panel.judge import CLASS_MEAN, Bench, judge_all, resampled, rows_of, separates, successes
from linrep.sae.panel.variance import GRID, squared_errors
from linrep.stats.bootstrap import draws
from linrep.stats.interval import Interval, ends
from tests.sae.panel.planted import (
    ACTIVE,
    CLASSES,
    Parts,
    data,
    noise_world,
    pairs,
    random_directions,
    trained,
    trial,
    world,
)

N = 600


def panel(make, blind=False, steps=500):
    """The table of a trained SAE of three seeds and its controls, in some world."""
    train, held = make(N, 0), make(N, 1)
    x = train.rows.x
    saes = {"trained": tuple(trained(x, seed, steps) for seed in range(3))}
    training = Training(rows=256 * steps, batch=256, learning_rate=1e-2, dead_after=5000)
    saes |= controls({"image": x}, 96, {"image": ACTIVE}, (0, 1, 2), training)
    bench = Bench(data(train, held), train.of_class, resamples=200)
    judged = dict(judge_all(bench, saes))
    measures = resampled(judged) | successes(bench, judged, pairs(), trial(held, blind=blind))
    return {(row.measure, row.sae): row for row in rows_of(measures, "trained")}


@pytest.fixture(scope="module")
def planted():
    return panel(world)


@pytest.fixture(scope="module")
def noise():
    return panel(noise_world, blind=True)


def which(rows, measure, fewer=False):
    return separates(list(rows.values()), measure, fewer)


@pytest.mark.slow
def test_a_trained_sae_beats_every_control_where_there_is_structure(planted):
    for measure in ("interpretable", "interpretable_0.70", "success_1", "success_2", "success_4", "success_8", "one_to_one"):
        assert which(planted, measure) == dict.fromkeys(CONTROLS, True), measure
    assert which(planted, "latents_needed_class", fewer=True) == dict.fromkeys(CONTROLS, True)


@pytest.mark.slow
def test_a_trained_sae_comes_to_the_truth_of_the_world(planted):
    """What the values explain of the variance; two latents for a difference of classes, which act as the class means do."""
    truth, row = world(N, 1).meant, planted["interpretable_0.70", "trained"]
    assert row.found.low - 0.01 < truth < row.found.high + 0.01
    assert planted["latents_needed_class", "trained"].found.value < 2.1
    assert planted["one_to_one", "trained"].found.value > 0.98
    assert planted["success_2", CLASS_MEAN].apart.low > -0.05
    # A direction of one latent leaves the source where it is: it cannot do what the difference does.
    assert planted["success_1", CLASS_MEAN].apart.high < 0


@pytest.mark.slow
def test_seeds_agree(planted):
    for measure in ("interpretable", "success_4"):
        row = planted[measure, "trained"]
        nearest = min(row.found.value - planted[measure, name].found.value for name in CONTROLS)
        assert row.seeds == 3
        assert row.highest - row.lowest < 0.5 * nearest


@pytest.mark.slow
def test_on_noise_a_trained_sae_beats_no_control_that_knows_as_much(noise):
    """Gaussian rows and values dealt by chance: nothing is interpretable, and a model that answers by chance is not moved."""
    for name in ("trained", *CONTROLS):
        assert abs(noise["interpretable", name].found.value) < 0.03
        assert noise["interpretable_0.70", name].found.value == pytest.approx(0, abs=0.02)
        assert noise["agreement", name].found.low < 0.02
        assert abs(noise["agreement", name].found.value) < 0.02
        assert noise["retrieval", name].found.value == pytest.approx(0.1, abs=0.06)
    assert not any(which(noise, "interpretable_0.70").values())
    for m in LATENTS:
        assert not any(which(noise, f"success_{m}").values())


@pytest.mark.slow
def test_what_is_found_covers_the_truth_of_the_world():
    """The interval of interpretable variance over images holds what as many images again and again come to."""
    train = world(N, 0)
    at, truth, hits = GRID.index(0.8), world(6000, 99).meant, []
    for seed in range(1, 41):
        held = world(100, seed)
        both = data(train, held)
        errors = squared_errors(explained(Parts((train, held)), train.directions, both), both, halves(100, 0))
        _, curve = errors.explained(np.concatenate(list(draws(100, 400, seed))))
        low, high = ends(curve[:, at])
        hits.append(low <= truth <= high)
    assert np.mean(hits) >= 0.85


def test_the_judge_s_table_by_hand():
    """Two seeds of .6 and .8: the mean .7, Student's reach 12.7 * .1; images move each alike by .1 up and down."""
    values, moves = np.array([0.6, 0.8]), np.linspace(-0.1, 0.1, 401)
    one = Resampled(values, values[:, None] + moves)
    other = Resampled(np.array([0.5]), 0.5 + moves[None])
    found = one.interval()
    assert found.value == pytest.approx(0.7)
    reach = 12.706 * 0.1
    assert found.high - 0.7 == pytest.approx(np.hypot(0.095, reach), rel=1e-3)
    apart = one.less(other)  # on the same draws: images cancel
    assert apart.value == pytest.approx(0.2)
    assert apart.high - 0.2 == pytest.approx(reach, rel=1e-3)
    assert other.interval().high == pytest.approx(0.595)
    assert seed_reach(np.array([0.5])) == 0


def test_an_interval_is_never_narrower_than_over_images_and_keeps_to_its_range():
    assert with_seeds(0.5, 0.4, 0.7, 0.0) == Interval(0.5, 0.4, 0.7)
    wide = with_seeds(0.5, 0.4, 0.7, 0.3, 0.0, 0.6)
    assert wide.low == pytest.approx(0.5 - np.hypot(0.1, 0.3))
    assert wide.high == 0.6


def test_successes_are_compared_case_by_case():
    cases = Cases(*(np.array(x) for x in ([0, 0, 1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3, 0, 0], list(range(8)))))
    all_right, none = Successes(cases, np.ones((2, 8))), Successes(cases, np.zeros((1, 8)))
    assert all_right.interval().value == 1.0
    assert all_right.interval().low < 0.75  # eight cases of four pairs leave that open
    assert none.interval().high > 0.25
    apart = all_right.less(none)
    assert apart.value == 1.0
    assert apart.low > 0
    assert all_right.less(all_right).value == 0


def test_directions_come_to_the_model_with_the_norm_of_the_class_means():
    train, held = world(120, 0), world(120, 1)
    bench = Bench(data(train, held), train.of_class, resamples=3)
    judged = dict(judge_all(bench, {"one": (random_directions(0), random_directions(1))}))
    seen = []

    def keep(directions):
        seen.append(directions)
        return trial(held)(directions)

    found = successes(bench, judged, pairs(), keep)
    (directions,) = seen
    assert directions.shape[:2] == (1 + 2 * len(LATENTS), len(pairs()))
    means = torch.stack([train.rows.x[torch.from_numpy(train.of_class)[train.rows.image] == c].mean(0) for c in range(CLASSES)])
    source, target = pairs()[3]
    torch.testing.assert_close(directions[0, 3], means[target] - means[source], atol=1e-4, rtol=0)
    torch.testing.assert_close(directions.norm(dim=2), directions[:1].norm(dim=2).expand(9, -1), atol=1e-4, rtol=0)
    assert found["success_1"][CLASS_MEAN].values.shape[0] == 1
    assert found["success_1"]["one"].values.shape[0] == 2
