"""The regions job: what is counted, Ray's path equals the plain one, nothing is left to do, and what is missing is said."""

import json
from pathlib import Path

import polars as pl
import pytest

from linrep.cluster import run_regions as job
from linrep.cluster.regions import label_plainly, label_units
from linrep.cluster.run_harvest import run_harvest
from linrep.cluster.run_probe import plan_probe
from linrep.cluster.run_regions import plan_stage, run_regions
from linrep.errors import CorpusError, RecipeError, StoreError
from linrep.harvest.config import HarvestConfig, Pool
from linrep.places import place
from linrep.probe.config import ProbeConfig
from linrep.recipe import Recipe
from linrep.regions.artefact import open_regions
from linrep.regions.config import RegionsConfig
from linrep.regions.matching import OTHER_SIZE, UNKNOWN
from linrep.regions.study import deal
from tests.conftest import SIZES, write_corpora

HARVEST = HarvestConfig(layers=(0,), views=("pooled", "tokens"), tokens_per_sample=8, chunk_size=8)
N = 22


def write_boxes(folder: Path) -> str:
    """Boxes of all images but two: a boat left in all, and a tree in every third; one image has other proportions."""
    images, annotations = [], []
    for i in range(N - 2):
        height, width = SIZES[i % len(SIZES)]
        images.append({"id": i, "file_name": f"p{i:03d}.jpg", "height": height, "width": width * (2 if i == 5 else 1)})
        annotations.append({"image_id": i, "category_id": 0, "bbox": [0, 0, width / 2, height]})
        if i % 3 == 0:
            annotations.append({"image_id": i, "category_id": 1, "bbox": [width / 2, 0, 1, 1]})  # too small
    images.append({"id": 99, "file_name": "elsewhere.jpg", "height": 9, "width": 9})
    annotations.append({"image_id": 0, "category_id": 1})
    categories = [{"id": 0, "name": "boat"}, {"id": 1, "name": "tree"}]
    path = folder / "boxes.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return str(path)


@pytest.fixture(scope="module")
def made(random_vlm, local_ray, tmp_path_factory):
    """A recipe with boxes, and the workspace of its harvest."""
    folder = tmp_path_factory.mktemp("regions")
    corpora = write_corpora(folder / "c", n_images=N)
    regions = RegionsConfig.model_validate({"source": {"path": write_boxes(folder)}})
    recipe = Recipe(name="t", corpora=corpora, model=random_vlm, harvest=HARVEST, regions=regions, pool=Pool(threads=1))
    workspace = place(folder / "w")
    run_harvest(recipe, workspace)
    return recipe, workspace


def test_the_job_counts_what_has_regions_and_what_has_none(made):
    recipe, workspace = made
    outcome = run_regions(recipe, workspace)
    assert outcome.n_new == 3  # chunks of images; those of texts and pairs have none
    found = open_regions(workspace)
    images = pl.DataFrame(pl.from_arrow(found.table("images")))
    assert len(images) == N
    assert dict(images.group_by("why_not").len().iter_rows()) == {None: N - 3, UNKNOWN: 2, OTHER_SIZE: 1}
    assert (found.about.unmatched, found.about.unmatched_names) == (1, ("elsewhere.jpg",))
    assert found.about.left_out == {"without a box and a segmentation": 1}
    categories = {row["category"]: row for row in found.table("categories").to_pylist()}
    assert (categories["boat"]["images"], categories["boat"]["without_patch"]) == (N - 3, 0)
    trees = {key: categories["tree"][key] for key in ("images", "regions", "without_patch", "patches")}
    assert trees == {"images": 7, "regions": 7, "without_patch": 7, "patches": 0}
    assert sum(categories["boat"][f"images_{split}"] for split in ("train", "val", "test")) == N - 3
    assert f"19 of {N} images have regions: 26 of 2 categories" in outcome.text
    assert "1 of other proportions" in outcome.text
    assert "elsewhere.jpg" in outcome.text
    assert run_regions(recipe, workspace).n_new == 0


def test_every_image_has_half_of_its_patches_and_the_control_those_of_another(made):
    recipe, workspace = made
    run_regions(recipe, workspace)
    found = open_regions(workspace)
    patches = pl.DataFrame(pl.from_arrow(found.patches(range(9))))
    images = pl.DataFrame(pl.from_arrow(found.table("images"))).drop_nulls("annotated")
    base = patches.filter((pl.col("tile") == 0) & ~pl.col("shuffled")).group_by("sample_id").len()
    assert set(base["sample_id"]) == set(images["sample_id"])
    assert base["len"].n_unique() == 1
    # All boats lie left in their image: at the same places those of any other are the same.
    order = ["sample_id", "tile", "row", "col"]
    own, dealt = (patches.filter(pl.col("shuffled") == shuffled).drop("shuffled").sort(order) for shuffled in (False, True))
    alone = set(dealt["sample_id"])  # a split of one image has no other
    assert own.filter(pl.col("sample_id").is_in(alone)).select(order).equals(dealt.select(order))
    assert len(alone) >= len(images) - 2


def test_ray_labels_as_this_process_does(made):
    recipe, workspace = made
    tables = []
    for label in (label_plainly, label_units):
        stage = plan_stage(recipe, workspace)
        here = stage.artefact
        target = type(here)(here.kind, workspace / "elsewhere" / label.__name__, here.manifest).begun()
        assert sorted(commit.unit for commit in label(stage.study, target.todo(), target)) == sorted(target.units)
        target.finish()
        tables.append([target.table(name) for name in here.kind.tables] + [target.part(unit, "patches") for unit in target.units])
    assert all(one.equals(other) for one, other in zip(*tables, strict=True))


def test_a_cluster_starts_only_where_there_are_many_images(made, monkeypatch):
    stage = plan_stage(*made)
    assert not stage.on_ray
    monkeypatch.setattr(job, "ALONE", N - 1)
    assert stage.on_ray


def test_what_the_recipe_asks_for_decides_the_digest_and_not_where_the_file_lies(made, tmp_path):
    recipe, workspace = made

    def name(**changes):
        return plan_stage(
            recipe.model_copy(update={"regions": recipe.regions.model_copy(update=changes)}), workspace
        ).artefact.digest

    copy = tmp_path / "other.json"
    copy.write_bytes(Path(recipe.regions.source.path).read_bytes())
    assert name() == name(source=recipe.regions.source.model_copy(update={"path": str(copy)}))
    assert name() != name(share=0.4)
    copy.write_bytes(copy.read_bytes() + b" ")
    assert name() != name(source=recipe.regions.source.model_copy(update={"path": str(copy)}))


def test_what_is_missing_is_said_in_one_line(made, tmp_path):
    recipe, workspace = made

    def said(match, error=CorpusError, **changes):
        with pytest.raises(error, match=match):
            run_regions(recipe.model_copy(update={"regions": recipe.regions.model_copy(update=changes)}), workspace)

    gone = recipe.regions.source.model_copy(update={"path": str(tmp_path / "gone.json")})
    said(r"regions\.source\.path: no file at .*gone\.json", source=gone)
    with pytest.raises(RecipeError, match="has no section regions"):
        run_regions(recipe.model_copy(update={"regions": None}), workspace)
    (tmp_path / "none.json").write_text('{"images": [], "annotations": [], "categories": []}')
    said(
        r"none of 0 annotated images .* \(22: no annotation", source=gone.model_copy(update={"path": str(tmp_path / "none.json")})
    )


def test_probes_ask_for_regions_that_are_not_there_and_read_those_that_are(made):
    recipe, workspace = made
    recipe = recipe.model_copy(update={"probe": ProbeConfig(min_per_class=2, softmax=None, curve=(), views=("tokens",))})
    other = recipe.model_copy(update={"regions": recipe.regions.model_copy(update={"share": 0.75})})
    with pytest.raises(
        StoreError, match=r"there are no regions of this recipe at .*: run jobs/regions\.py with the same recipe first"
    ):
        plan_probe(other, workspace)
    found = run_regions(recipe, workspace).artefact
    planned = plan_probe(recipe, workspace)
    assert planned.artefact.parents["regions"] == found.digest
    assert planned.study.patches.study.tasks[0].names == ("background", "boat")
    assert "region" in [task["attribute"] for task in planned.artefact.about.tasks]
    assert planned.study.left_out["region of image"] == ("tree",)  # no patch shows one
    assert plan_probe(recipe.model_copy(update={"regions": None}), workspace).study.patches is None


def test_each_image_is_dealt_another_one_of_its_split_and_each_is_dealt_once():
    names = {i: f"image {i}" for i in range(50)}
    split = [0] * 30 + [1] * 19 + [2]
    dealt = deal(names, split, 0)
    assert sorted(dealt) == sorted(dealt.values()) == list(range(49))  # the last one is alone in its split
    assert all(i != j and split[i] == split[j] for i, j in dealt.items())
    assert dealt != deal(names, split, 1)
