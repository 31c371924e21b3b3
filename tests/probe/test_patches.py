"""Probes of single patches: what they read of planted regions, what places alone say, and what the control says of it."""

import numpy as np
import polars as pl
import pytest

from linrep.errors import RecipeError
from linrep.probe.config import ProbeConfig
from linrep.probe.groups import PatchGroups
from linrep.probe.patches import GroupRows, with_regions
from linrep.probe.rows import StreamRows
from linrep.probe.study import Study, Unit, plan_study
from linrep.probe.unit import gather_part, parts_of, probe_unit
from linrep.regions.patches import PatchLabels, Places
from tests.regions.planted import CATEGORIES, drawn_things, label, write_patches

N = 160
CONFIG = ProbeConfig(alphas=(1e-3, 1e-1), shrinkages=(0.1,), sparse=(2,), curve=(), resamples=200)
UNIT = Unit("tokens", 0)
D = 8


def content(i, category, row, col, rng):
    """What a patch shows, along an axis of its own."""
    x = 0.3 * rng.standard_normal(D)
    if category >= 0:
        x[category] += 1
    return x


def position(i, category, row, col, rng):
    """Where a patch lies, and nothing else."""
    return np.array([row < 3, col < 3, row / 5, col / 5, row == col, 0, 0, 0]) + 0.05 * rng.standard_normal(D)


def study_of(folder, things, vector, config=CONFIG, **regions) -> Study:
    store = write_patches(folder / "store", things, vector)
    return with_regions(plan_study(store, config, regions=True), label(folder / "w", store, things, **regions))


def probed(study: Study, unit: Unit = UNIT):
    return probe_unit(study, unit, [gather_part(study, unit, part) for part in parts_of(study, unit)])


def rows_of(result) -> dict[str, dict]:
    table = pl.DataFrame(pl.from_arrow(result.probes)).filter(pl.col("k").is_null())
    return {row["kind"]: row for row in table.iter_rows(named=True)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Objects anywhere, shown by the vectors."""
    study = study_of(tmp_path_factory.mktemp("content"), drawn_things(N), content)
    return study, probed(study)


def test_what_patches_show_is_read_and_neither_places_nor_dealt_regions_tell_it(found):
    rows = rows_of(found[1])
    ridge, place = rows["ridge"], rows["position"]
    assert (ridge["attribute"], ridge["view"], ridge["n_classes"]) == ("region", "tokens", 4)
    assert ridge["auroc"] > 0.97
    assert rows["lda"]["balanced"] > 0.8
    assert ridge["shuffled"] <= ridge["chance"] + 0.05  # against dealt regions it says background
    assert ridge["top1_low"] > ridge["shuffled"]
    assert (ridge["control_task"], ridge["selectivity"]) == (None, None)  # the types of patches are their places: see `position`
    # Objects lie anywhere, but more often in the middle: places tell object from background a little, and no object from another.
    assert 0.5 < place["auroc"] < 0.75
    assert place["auroc_high"] < ridge["auroc_low"]
    assert place["n_test"] == ridge["n_test"] == N // 4 * 72
    assert place["n_test_samples"] == ridge["n_test_samples"] == N // 4  # intervals draw images


def test_classes_and_directions_are_those_of_the_regions(found):
    study, result = found
    (task,) = study.patches.study.tasks
    assert task.names == ("background", *sorted(CATEGORIES))
    classes = pl.DataFrame(pl.from_arrow(result.classes)).filter(pl.col("kind") == "lda")
    assert dict(classes.select("class_name", "n_test").iter_rows())["background"] == N // 4 * 72 * 3 // 4
    assert (classes["accuracy"] > 0.6).all()
    assert (classes["accuracy_low"] < classes["accuracy"]).all()
    means = result.directions.select("class_mean", 0, "tokens", "image", "region")
    for c, name in enumerate(CATEGORIES):
        apart = means.vector(name) - means.vector("background")
        assert int(apart.argmax()) == c


def test_places_alone_tell_a_planted_label_of_places_and_so_do_dealt_regions(tmp_path):
    things = [[(0, (0, 0, 36, 72))] for _ in range(N)]  # a boat on the left of every image
    rows = rows_of(probed(study_of(tmp_path, things, position)))
    assert rows["position"]["auroc"] > 0.999
    assert rows["position"]["top1"] == 1
    assert rows["lda"]["top1"] > 0.95  # the vectors do tell it ...
    assert rows["lda"]["shuffled"] == pytest.approx(
        rows["lda"]["top1"], abs=0.02
    )  # ... but as well of the regions of other images


def test_groups_are_the_patches_of_an_image_with_one_label_and_one_of_the_control(found):
    study, _ = found
    groups: PatchGroups = study.patches.groups
    rows = StreamRows(
        study.store, "tokens", {"image": study.store.select("tokens", 0, "image").files}, columns=("tile", "row", "col")
    )
    every = np.ones(len(groups.sample), bool)
    counted = np.zeros(len(every), np.int64)
    for block in GroupRows(rows, study.patches).blocks("image", every):
        counted += np.bincount(block.sample, minlength=len(every))
        assert (groups.sample[block.sample] == block.columns["image"]).all()
    regions = label_table(study)
    wanted = {(row["sample_id"], row["category"], row["shuffled"]): row["patches"] for row in regions}
    names = (*groups.categories, None)
    ids = study.store.samples()["sample_id"].to_pylist()
    named = [(ids[s], names[a], names[b]) for s, a, b in zip(groups.sample, groups.own, groups.dealt, strict=True)]
    assert dict(zip(named, counted.tolist(), strict=True)) == wanted


def label_table(study):
    return study.patches.groups.labels._regions.table("groups").to_pylist()


def test_labels_are_found_by_place_whatever_the_chunk(found):
    study, _ = found
    labels: PatchLabels = study.patches.groups.labels
    things = drawn_things(N)
    asked = [(i, tile, row, col) for i in (0, 40, 159, 3) for tile in (0, 1) for row in range(6) for col in range(6)]
    places = Places(*np.array(asked).T)
    single, several = labels.single(places), labels.several(places)
    for at, (i, _, row, col) in enumerate(asked):
        ((category, (a, b, e, f)),) = things[i]
        inside = a <= col * 12 < e and b <= row * 12 < f
        assert single[at] == (sorted(CATEGORIES).index(CATEGORIES[category]) if inside else -1)
        assert several.category[several.token == at].tolist() == ([single[at]] if inside else [])
    assert several.known.all()


def test_categories_that_few_images_show_are_left_out_by_name(tmp_path):
    things = drawn_things(N)
    things = [[(0 if c == 2 and i > 8 else c, box)] for i, ((c, box),) in enumerate(things)]
    study = study_of(tmp_path, things, content)
    assert study.left_out["region of image"] == ("key",)
    (task,) = study.patches.study.tasks
    assert task.names == ("background", "boat", "tree")
    nothing = study_of(
        tmp_path / "none", [[] for _ in range(8)] + things[:24], content, CONFIG.model_copy(update={"min_per_class": 99})
    )
    assert nothing.patches is None


def test_regions_are_probed_where_nothing_else_is_known_and_only_in_the_view_of_tokens(found, tmp_path):
    study, _ = found
    assert study.tasks == ()
    assert [unit.name for unit in study.units] == [UNIT.name]
    with pytest.raises(RecipeError, match=r"no sample of .* has a class"):
        plan_study(study.store, CONFIG)


def test_an_attribute_may_not_be_called_as_regions_are():
    with pytest.raises(ValueError, match="modality, region or"):
        ProbeConfig.model_validate({"attributes": {"path": "x", "columns": ["region"]}})


def test_the_figure_and_the_sentence_set_places_alone_beside(found):
    from linrep.explorer.probes import layer_figures, probe_headline, summary_lines

    table = found[1].probes
    (sentence,) = probe_headline(table)
    place = rows_of(found[1])["position"]["auroc"]
    assert sentence.startswith("What a patch shows (3 categories of regions and background) is read best at layer 0: AUROC ")
    assert f"; places alone {place:.2f}".replace("0.", ".") in sentence
    assert any(sentence in line for line in summary_lines(table, {}))
    (axes,) = layer_figures(table)["layers_region"].axes[:1]
    assert axes.get_ylabel() == "mean AUROC"
    assert any("places alone" in text.get_text() for text in layer_figures(table)["layers_region"].legends[0].get_texts())
