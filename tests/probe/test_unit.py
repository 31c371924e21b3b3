"""A unit from store to results: planted signals found, controls at chance, transfers and attributes as the truth says."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from linrep.directions import DirectionSet
from linrep.errors import CorpusError, RecipeError
from linrep.explorer.probes import main_probes
from linrep.probe.config import Attributes, Latents, ProbeConfig, Softmax
from linrep.probe.encoded import check_latents
from linrep.probe.labels import read_attributes
from linrep.probe.moments import merge
from linrep.probe.report import Result
from linrep.probe.study import Study, Unit, plan_study
from linrep.probe.unit import Part, gather_part, parts_of, probe_unit
from linrep.store import Store
from linrep.store.blocks import blocks, files_of
from linrep.store.samples import CLASS
from tests.probe.planted import AXES, CLASSES, TOKENS, D, write_colours, write_planted


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def study(store, tmp_path_factory) -> Study:
    path = write_colours(tmp_path_factory.mktemp("attributes"))
    config = ProbeConfig(
        attributes=Attributes(path=path, columns=("colour", "group")),
        alphas=(1e-3, 1e-1), shrinkages=(0.01, 0.5), sparse=(1, 5), curve=(5,), resamples=300,
        softmax=Softmax(penalties=(1e-1, 1e-2)),
    )  # fmt: skip
    table, _ = read_attributes(config.attributes, path)
    return plan_study(store, config, table)


@pytest.fixture(scope="module")
def found(study) -> dict[str, Result]:
    units = (Unit("pooled", 2), Unit("tokens", 2), Unit("last", 0))
    return {u.view: probe_unit(study, u, [gather_part(study, u, part) for part in parts_of(study, u)]) for u in units}


@pytest.fixture(scope="module")
def results(found) -> dict[str, tuple[pl.DataFrame, DirectionSet]]:
    return {view: (pl.DataFrame(pl.from_arrow(result.probes)), result.directions) for view, result in found.items()}


def main(frame: pl.DataFrame, **where: str) -> pl.DataFrame:
    return main_probes(frame).filter(**where)


@pytest.mark.parametrize("view", ["pooled", "tokens"])
def test_planted_classes_are_read_and_shuffled_ones_are_not(results, view):
    frame, _ = results[view]
    for modality in ("image", "text"):
        rows = main(frame, attribute=CLASS, tested_on=modality)
        assert set(rows["kind"]) == {"ridge", "lda", "class_mean"} | ({"softmax"} if view == "pooled" else set())
        for row in rows.iter_rows(named=True):
            assert row["top1"] > 0.9, row
            assert row["top1_low"] <= row["top1"] <= row["top1_high"]
            assert row["auroc"] > 0.95
            assert row["shuffled_low"] < 0.45, row
            assert abs(row["shuffled"] - 1 / 3) < 0.17
            assert row["selectivity"] == pytest.approx(row["top1"] - row["control_task"])
            if row["control_type"] == "attributes":  # the store names no words: all text tokens are of one type
                assert row["top1"] > row["control_task"]


def test_a_constant_token_is_at_chance_whatever_reads_it(results):
    """The last token at layer 0 is the same in every image: nothing may be read from it."""
    frame, _ = results["last"]
    for row in main(frame, attribute=CLASS, tested_on="image").iter_rows(named=True):
        assert row["top1"] <= row["chance"] + 1e-9, row
        assert row["balanced"] == pytest.approx(1 / 3)
        assert row["auroc"] == pytest.approx(0.5, abs=1e-6)


def test_special_tokens_newlines_and_other_samples_take_no_part(results, study):
    frame, _ = results["tokens"]
    images = main(frame, attribute=CLASS, tested_on="image", kind="ridge").row(0, named=True)
    split = [s for s, role in zip(study.samples.split, study.samples.role, strict=True) if role == "image"]
    assert images["n_train"] == TOKENS * split.count(0)
    assert images["n_test"] == TOKENS * split.count(2)
    assert images["n_test_samples"] == split.count(2)
    captions = main(frame, attribute=CLASS, tested_on="text", kind="ridge").row(0, named=True)
    assert captions["n_test_samples"] == images["n_test_samples"]  # not those read under their image, not unlabelled texts


def test_whole_samples_are_held_out(study, store):
    train = study.samples.split == 0
    for part in files_of(store, "tokens", 2, "image", 3):
        for block in blocks(store, part, "tokens", train):
            assert train[block.sample].all()
    images = {}
    for image, split in zip(study.samples.image_name, study.samples.split, strict=True):
        assert images.setdefault(image, split) == split or not image


def test_parts_of_a_layer_merge_to_the_whole(study, store):
    unit = Unit("tokens", 2)
    (files,) = files_of(store, "tokens", 2, "image", 1)
    several = files_of(store, "tokens", 2, "image", 4)
    assert len(several) == 4
    assert [f for part in several for f in part] == list(files)
    whole = gather_part(study, unit, Part("image", files))
    merged = [merge(m) for m in zip(*[gather_part(study, unit, Part("image", part)) for part in several], strict=True)]
    for one, other in zip(whole, merged, strict=True):
        assert one.n == other.n
        assert torch.allclose(one.scatter, other.scatter, rtol=1e-9, atol=1e-6)
        for column in one.sums:
            assert torch.equal(one.counts[column], other.counts[column])
            assert torch.allclose(one.between(column), other.between(column), atol=1e-9)


def test_attributes_are_read_from_images_and_captions(results):
    frame, _ = results["pooled"]
    for modality in ("image", "text"):
        row = main(frame, attribute="colour", tested_on=modality, kind="lda").row(0, named=True)
        assert row["top1"] > 0.9
        assert abs(row["shuffled"] - 0.5) < 0.2
        assert row["n_classes"] == 2


def test_accuracies_of_classes_are_the_confusions_own_whatever_else_is_probed_on_the_same_rows(found):
    """Colour and group have two values each and the same rows; each has its own labels."""
    where = ["attribute", "kind", "tested_on", "class_name"]
    for view in ("pooled", "tokens"):
        classes, confusions = (pl.DataFrame(pl.from_arrow(t)) for t in (found[view].classes, found[view].confusions))
        right = confusions.filter(pl.col("class_name") == pl.col("predicted")).select(*where, right="n")
        both = classes.join(right, on=where, how="left").with_columns(pl.col("right").fill_null(0))
        assert {"colour", "group"} < set(both["attribute"])
        for row in both.iter_rows(named=True):
            assert row["accuracy"] == pytest.approx(row["right"] / row["n_test"]), row


def test_image_and_text_are_told_apart_on_equal_numbers_of_samples(results, study):
    frame, directions = results["pooled"]
    row = main(frame, attribute="modality", kind="lda").row(0, named=True)
    assert row["top1"] > 0.95
    assert row["fitted_on"] == row["tested_on"] == "both"
    assert abs(row["shuffled"] - 0.5) < 0.2
    assert row["chance"] == 0.5
    found = directions.select("class_mean", 2, "pooled", "both", "modality").between("image", "text")
    assert float(found @ torch.from_numpy(AXES[5]).float() / found.norm()) > 0.95


def test_a_class_read_in_images_is_found_in_captions_and_the_other_way_round(results):
    frame, _ = results["pooled"]
    moved = frame.filter(pl.col("fitted_on") != pl.col("tested_on"), attribute=CLASS)
    assert set(zip(moved["fitted_on"], moved["tested_on"], strict=True)) == {("image", "text"), ("text", "image")}
    assert moved["centred"].sum() == len(moved) / 2
    for row in moved.filter(pl.col("centred")).iter_rows(named=True):
        assert row["top1"] > 0.9, row


def test_more_samples_and_more_coordinates_read_more(results):
    frame, _ = results["tokens"]
    images = frame.filter(attribute=CLASS, tested_on="image", fitted_on="image")
    few = images.filter(pl.col("n_per_class") == 5, kind="ridge").row(0, named=True)
    assert few["n_train"] == 3 * 5 * TOKENS
    assert few["top1"] < images.filter(pl.col("n_per_class").is_null(), kind="ridge")["top1"][0] + 0.02
    sparse = {row["k"]: row["auroc"] for row in images.filter(kind="sparse").iter_rows(named=True)}
    assert sparse.keys() == {1, 5}
    assert 0.5 < sparse[1] < sparse[5]


def test_every_probe_of_its_own_rows_has_a_control_at_chance_and_its_selectivity(results):
    """Few coordinates and few samples, too: what they read off shuffled labels is what chance gives them."""
    for view in ("pooled", "tokens"):
        frame, _ = results[view]
        own = frame.filter(pl.col("fitted_on") == pl.col("tested_on"))
        assert {"sparse", "ridge", "lda"} < set(own["kind"])
        assert own["n_per_class"].n_unique() == 2  # all samples, and five a class
        assert (own["control_task"].is_null() == (own["attribute"] == "modality")).all()
        for row in own.drop_nulls("control_task").iter_rows(named=True):
            assert row["selectivity"] == pytest.approx(row["top1"] - row["control_task"])
            assert row["selectivity_low"] <= row["selectivity"] <= row["selectivity_high"]
        for row in own.iter_rows(named=True):
            assert abs(row["shuffled"] - 1 / row["n_classes"]) < 0.22, row
        few = own.filter(kind="sparse", attribute=CLASS, k=5)
        assert (few["top1"] - few["shuffled"]).min() > 0.2


class PlainSae:
    """Latents are the planted directions, thresholded above what lies in every vector, and one that never fires."""

    d_model, n_latents = D, D + 1
    directions = torch.from_numpy(np.concatenate([AXES, 0 * AXES[:1]])).float()

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.directions.T - 1.0).clamp(min=0)


@pytest.fixture(scope="module")
def of_latents(study) -> Result:
    unit = Unit("pooled", 2)
    light = replace(study, config=study.config.model_copy(update={"softmax": None}))
    return probe_unit(light, unit, [gather_part(light, unit, part) for part in parts_of(light, unit)], encoder=PlainSae())


def test_one_planted_latent_of_an_sae_reads_its_class(of_latents):
    rows = pl.DataFrame(pl.from_arrow(of_latents.probes))
    latents = rows.filter(attribute=CLASS, kind="latents", tested_on="image")
    coordinates = rows.filter(attribute=CLASS, kind="sparse", tested_on="image", fitted_on="image")
    assert latents["k"].to_list() == [1, 5]
    assert latents["auroc"][0] > 0.97
    assert latents["auroc"][0] > coordinates["auroc"][0]
    assert (latents["shuffled"] - 1 / 3).abs().max() < 0.2
    assert latents["selectivity_low"].min() > 0.2


def test_latents_are_read_by_every_kind_with_controls_classes_and_transfers(of_latents):
    rows, classes = (pl.DataFrame(pl.from_arrow(t)) for t in (of_latents.probes, of_latents.classes))
    for kind in ("latents_ridge", "latents_lda", "latents_class_mean"):
        for modality in ("image", "text"):
            (row,) = main(rows, attribute=CLASS, kind=kind, tested_on=modality).iter_rows(named=True)
            assert row["top1"] > 0.9, row
            assert abs(row["shuffled"] - 1 / 3) < 0.2
            named = classes.filter(attribute=CLASS, kind=kind, tested_on=modality)
            assert named["class_name"].to_list() == list(CLASSES)
        moved = rows.filter(pl.col("fitted_on") != pl.col("tested_on"), pl.col("centred"), attribute=CLASS, kind=kind)
        assert moved["top1"].min() > 0.9
    kinds = {"ridge", "ridge_pattern", "lda", "class_mean", "shuffled_mean"}
    assert {entry.kind for entry in of_latents.directions.entries} == kinds


def test_modalities_of_unequal_numbers_of_tokens_weigh_the_same(tmp_path):
    """A text of twelve tokens beside an image of four: top-1 is the mean of both modalities' shares, and chance is a half."""
    store = write_planted(tmp_path, n_images=90, text_tokens=12, noise=2.5)
    softmax = Softmax(penalties=(1e-2,), views=("tokens",))
    study = plan_study(
        store, ProbeConfig(alphas=(1e-3,), shrinkages=(0.1,), sparse=(1,), curve=(), resamples=100, softmax=softmax)
    )
    unit = Unit("tokens", 2)
    result = probe_unit(study, unit, [gather_part(study, unit, part) for part in parts_of(study, unit)], encoder=PlainSae())
    rows = pl.DataFrame(pl.from_arrow(result.probes)).filter(attribute="modality")
    assert {"ridge", "lda", "softmax", "class_mean", "sparse", "latents", "latents_ridge"} < set(rows["kind"])
    train = [len(block.sample) for block in blocks(store, files_of(store, "tokens", 2, "image", 1)[0], "tokens",
             (study.codes["image"]["modality"] >= 0) & (study.samples.split == 0))]  # fmt: skip
    confusions = pl.DataFrame(pl.from_arrow(result.confusions)).filter(attribute="modality")
    for row in rows.iter_rows(named=True):
        assert row["chance"] == pytest.approx(0.5)
        assert row["top1"] == pytest.approx(row["balanced"]), row["kind"]
        assert row["n_train"] == 2 * sum(train), row["kind"]
        assert abs(row["shuffled"] - 0.5) < 0.2
    seen = confusions.filter(kind="ridge").group_by("class_name").agg(pl.col("n").sum())
    assert dict(seen.iter_rows())["text"] == 3 * dict(seen.iter_rows())["image"]


def test_directions_are_the_planted_ones(results):
    _, directions = results["pooled"]
    for kind in ("class_mean", "lda", "ridge", "ridge_pattern", "softmax"):
        found = directions.select(kind, 2, "pooled", "image", CLASS)
        assert found.names == CLASSES
        pair = found.between("boat", "key")
        planted = torch.from_numpy(AXES[2] - AXES[0]).float()
        assert float(pair @ planted / pair.norm() / planted.norm()) > 0.9, kind
        assert found.token_norm == pytest.approx(40.4, abs=0.5)
    mean = directions.select("class_mean", 2, "pooled", "image", CLASS).between("boat", "key")
    assert float(mean.norm()) == pytest.approx(3 * 2**0.5, rel=0.1)
    control = directions.select("shuffled_mean", 2, "pooled", "image", CLASS).between("boat", "key")
    assert float(control.norm()) < 0.5 * float(mean.norm())


def test_the_control_deals_every_class_as_often_as_the_truth(study):
    for modality in ("image", "text"):
        codes, shuffled = (study.codes[modality][c] for c in (CLASS, f"{CLASS}/shuffled"))
        for split in range(3):
            own = (study.samples.split == split) & (codes >= 0)
            assert np.bincount(codes[own]).tolist() == np.bincount(shuffled[own]).tolist()
        assert 0.15 < (codes == shuffled)[codes >= 0].mean() < 0.55
    again = plan_study(study.store, study.config, {f"photo-{i:04d}": {"colour": "red", "group": "a"} for i in range(3)})
    assert (again.codes["image"][f"{CLASS}/shuffled"] == study.codes["image"][f"{CLASS}/shuffled"]).all()


def test_wrong_input_is_one_clear_line(store, tmp_path):
    def refusal(config: ProbeConfig, kind: type[Exception] = RecipeError) -> str:
        with pytest.raises(kind) as caught:
            plan_study(store, config)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    assert "no layer 7" in refusal(ProbeConfig(layers=(7,)))
    assert "at least 1000 are needed" in refusal(ProbeConfig(min_per_class=1000))
    narrow = Store(store.place, store.manifest.__class__(**{**vars(store.manifest), "views": ("pooled",)}), store.commits)
    with pytest.raises(RecipeError, match="no view 'last'"):
        plan_study(narrow, ProbeConfig(views=("last",)))
    missing = Attributes(path=str(tmp_path / "none.jsonl"), columns=("colour",))
    with pytest.raises(CorpusError, match=r"no file at .*none\.jsonl"):
        read_attributes(missing, missing.path)
    (tmp_path / "a.jsonl").write_text('{"id": "photo-0001", "size": 3}\n')
    with pytest.raises(CorpusError, match=r"no column 'colour': it has id, size"):
        read_attributes(missing, str(tmp_path / "a.jsonl"))
    assert "no sample of the store is named" in refusal(ProbeConfig(attributes=missing))


def test_latents_that_cannot_be_probed_are_refused_before_any_row_is_read(store):
    def refusal(store: Store, encoder: PlainSae, **config) -> str:
        study = plan_study(store, ProbeConfig(sae=Latents(path="sae", layer=2), **config))
        with pytest.raises(RecipeError) as caught:
            check_latents(study, encoder)
        return str(caught.value)

    wide = PlainSae()
    wide.d_model = 7
    assert f"the SAE is 7 wide, the harvest {D}" in refusal(store, wide)
    without = Store(store.place, replace(store.manifest, views=("pooled", "last")), store.commits)
    assert "has no view tokens" in refusal(without, PlainSae())
    check_latents(plan_study(without, ProbeConfig(sae=Latents(path="sae", layer=2), views=("last",))), PlainSae())
    many = PlainSae()
    many.n_latents = 100_000
    assert "at most 32 fit: lower the largest number" in refusal(store, many, sparse=(50_000,))


def test_one_class_only_is_one_clear_line(tmp_path):
    store = write_planted(tmp_path, n_images=30)
    samples = store.samples()
    alone = samples.set_column(
        samples.schema.get_field_index("label"), samples.schema.field("label"), samples["label"].fill_null(0)
    )

    class OneClass(Store):
        def samples(self):
            mask = [
                m != "image" or c == "boat"
                for m, c in zip(alone["modality"].to_pylist(), alone["class_name"].to_pylist(), strict=True)
            ]
            return samples.filter(mask)

    with pytest.raises(RecipeError, match=r"class of image samples has one class only \(boat\)"):
        plan_study(OneClass(store.place, store.manifest, store.commits), ProbeConfig())
