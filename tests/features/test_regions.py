"""Overlaps of latents with regions: planted latents, and sums over all patches, one by one."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score

from linrep.explorer.features import feature_metrics, features_headline, summary_lines
from linrep.features.study import Study, plan_study
from linrep.sample import unit_hash
from tests.features.planted import CONFIG, found_plainly, identity
from tests.regions.planted import CATEGORIES, drawn_things, label, write_patches

N, F = 120, 6
RNG = np.random.default_rng(5)
LOUD = np.round(RNG.gamma(2.0, 1.0, (N, 6, 6)), 1)
"""Activations of a latent that fires everywhere, in steps."""


def latents(i, category, row, col, rng):
    """By coordinate: exactly the boats; trees in even rows; the middle of any image; anywhere; keys loudly, all softly; never."""
    x = -np.ones(F)
    x[0] = 2.0 if category == 0 else -1
    x[1] = 1.0 if category == 1 and row % 2 == 0 else -1
    x[2] = 1.0 if row in (2, 3) and col in (2, 3) else -1
    x[3] = LOUD[i, row, col]
    x[4] = 5.0 if category == 2 else 0.25
    return x


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overlaps")
    things = drawn_things(N)
    store = write_patches(folder / "store", things, latents)
    study = plan_study(store, CONFIG, latents=identity(F), regions=label(folder / "r", store, things))
    return study, things, found_plainly(folder / "w", study)


def frame(table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


def best(found, sae: str = "own") -> dict[int, dict]:
    rows = frame(found[2].table("overlaps")).filter((pl.col("sae") == sae) & (pl.col("rank") == 0))
    return {row["latent"]: row for row in rows.iter_rows(named=True)}


def truth(things, study: Study) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activation [n, 2, 6, 6] of each latent, what each category covers, and the half of each image."""
    z, covered = np.zeros((F, len(things), 2, 6, 6)), np.zeros((3, len(things), 2, 6, 6), bool)
    for i, ((category, (a, b, e, f)),) in enumerate(things):
        for row in range(6):
            for col in range(6):
                inside = a <= col * 12 < e and b <= row * 12 < f
                covered[category, i, :, row, col] = inside
                z[:, i, :, row, col] = np.maximum(latents(i, category if inside else -1, row, col, None), 0)[:, None]
    ids = [f"images/{i}.jpg" for i in range(len(things))]
    order = sorted(range(len(ids)), key=lambda i: unit_hash(ids[i], f"{CONFIG.seed}/features"))
    half = np.empty(len(ids), int)
    half[order] = np.arange(len(ids)) % 2
    return z, covered, half


def test_a_latent_that_fires_exactly_on_a_category_overlaps_it_whole(found):
    own = best(found)
    assert (own[0]["category"], own[0]["iou"], own[0]["average_precision"]) == ("boat", 1.0, pytest.approx(1.0))
    assert 0.5 < own[0]["iou_low"] < own[0]["iou_high"] == 1
    assert own[0]["iou_dealt"] < 0.3
    assert own[0]["share"] == pytest.approx(0.25 / 3, rel=0.4)
    # Loud on keys and soft on all: the threshold lies between.
    assert (own[4]["category"], own[4]["iou"]) == ("key", 1.0)
    assert 0.25 < own[4]["threshold"] <= 5


def test_a_latent_of_places_overlaps_dealt_regions_as_much(found):
    row = best(found)[2]
    assert row["iou"] < 0.3
    assert row["iou_low"] < row["iou_dealt"] < row["iou_high"]


def test_a_latent_that_never_fires_has_no_overlap(found):
    assert 5 not in best(found)
    features = frame(found[2].table()).filter(pl.col("sae") == "own").sort("latent")
    assert features["best_region"].to_list()[5] is None
    assert features["best_region"].to_list()[:2] == ["boat", "tree"]
    assert features["region_iou"].to_list()[0] == 1.0
    assert features["region_iou_dealt"].to_list()[0] == best(found)[0]["iou_dealt"]


def test_overlaps_are_those_of_a_count_patch_by_patch(found):
    study, things, features = found
    z, covered, half = truth(things, study)
    rows = frame(features.table("overlaps")).filter(pl.col("sae") == "own")
    names = sorted(CATEGORIES)
    assert len(rows) > 10
    for row in rows.iter_rows(named=True):
        activation, own = z[row["latent"]], covered[CATEGORIES.index(row["category"])]
        fires = (activation >= row["threshold"]) & (activation > 0)

        def iou(which, fires=fires, own=own):
            one, other = fires[half == which], own[half == which]
            return (one & other).sum() / (one | other).sum()

        assert row["iou_chosen"] == pytest.approx(iou(0)), row
        assert row["iou"] == pytest.approx(iou(1)), row
        assert row["n"] == own[half == 1].sum()
        assert row["share"] == pytest.approx(own[half == 1].mean())
        exact = average_precision_score(own[half == 1].ravel(), activation[half == 1].ravel())
        assert row["average_precision"] == pytest.approx(exact, abs=0.01)
    # Chosen: no category and no threshold does better on the half that is chosen on, but for those within a bin.
    for latent, row in best(found).items():
        activation = z[latent][half == 0]
        most = max(
            (fires & own[half == 0]).sum() / (fires | own[half == 0]).sum()
            for t in np.unique(activation[activation > 0])
            for own in covered
            for fires in [activation >= t]
        )
        assert most - 0.02 < row["iou_chosen"] <= most + 1e-12
    assert names == sorted({row["category"] for row in rows.iter_rows(named=True)})


def test_random_directions_stand_beside(found):
    control = best(found, "own/random")
    assert len(control) > 0
    assert {row["latent"] for row in control.values()} <= set(range(F))


def test_runs_of_latents_change_no_overlap(found, tmp_path):
    study, _, features = found
    tiny = CONFIG.model_copy(update={"memory_gb": 5e-6})
    other = Study(study.store, tiny, study.known, study.wanted, study.ids, study.n_tokens, study.latents)
    assert len(other.units) > len(study.units)
    split = found_plainly(tmp_path / "w", other)
    keys = ["sae", "latent", "rank"]
    assert frame(split.table("overlaps")).sort(keys).equals(frame(features.table("overlaps")).sort(keys))


def test_the_headline_says_how_many_overlap_a_region_and_which_best(found):
    table = found[2].table()
    (sentence,) = features_headline(table)
    own = frame(table).filter(pl.col("sae") == "own").drop_nulls("region_iou")
    share = (own["region_iou_low"] > own["region_iou_dealt"]).mean()
    assert f"the patches of {share:.0%} overlap a region more than regions of other images" in sentence
    assert "(best: latent 0 on boat, IoU 1.00 [" in sentence
    assert feature_metrics(table)["above_dealt/own"] == {0: pytest.approx(share)}
    assert any("> dealt" in line for line in summary_lines(table))


def test_without_regions_nothing_is_said(found, tmp_path):
    study = found[0]
    plain = plan_study(study.store, CONFIG, latents=identity(F))
    features = found_plainly(tmp_path / "w", plain)
    assert len(features.table("overlaps")) == 0
    assert set(features.table()["best_region"].to_pylist()) == {None}


def test_a_category_that_few_images_show_is_not_scored(tmp_path):
    things = [[(0 if c == 2 and i > 2 else c, box)] for i, ((c, box),) in enumerate(drawn_things(N))]
    store = write_patches(tmp_path / "store", things, latents)
    study = plan_study(store, CONFIG, latents=identity(F), regions=label(tmp_path / "r", store, things))
    assert study.known.regions.enough.tolist() == [name != "key" for name in study.known.regions.labels.categories]
    features = found_plainly(tmp_path / "w", study)
    assert "key" not in set(features.table("overlaps")["category"].to_pylist())
