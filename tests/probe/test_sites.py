"""Probes of another site than the residual stream: they read its rows, in its width, and say where."""

import json
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from linrep.cluster.probe import probe_plainly
from linrep.cluster.run_evaluate import _directions
from linrep.cluster.run_probe import ProbeStage, metrics, plan_probe
from linrep.cluster.run_steer import find_directions
from linrep.config import digest
from linrep.corpora import Corpora, ImageFolder, TextFiles
from linrep.errors import RecipeError
from linrep.harvest.chunk import harvest_chunk, prepare_chunk
from linrep.harvest.config import HarvestConfig, Pool
from linrep.harvest.finish import complete_manifest
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import plan_harvest
from linrep.places import Place, place
from linrep.probe.artefact import finish, open_probes
from linrep.probe.config import ProbeConfig
from linrep.recipe import Recipe
from linrep.store.commit import read_commits
from linrep.store.layout import NO_LAYER
from linrep.store.manifest import write_manifest
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from tests.conftest import encoded_image

PROBE = ProbeConfig(
    views=("pooled",), softmax=None, curve=(5,), sparse=(1,), resamples=20, alphas=(1e-2, 1.0), shrinkages=(0.1, 1.0)
)
WIDTH = 16


@pytest.fixture(scope="module")
def recipe(random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Place]:
    """A harvest of stream, MLP and tower in a workspace: images of one class are dark, of the other bright."""
    folder = tmp_path_factory.mktemp("two")
    for i in range(60):
        path = folder / "images" / ("n01" if i % 2 else "n02") / f"p{i:03d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image(i, 0.2 if i % 2 else 1.0))
    (folder / "images" / "classes.json").write_text(json.dumps({"n01": "night", "n02": "day"}))
    (folder / "text.jsonl").write_text("".join(json.dumps({"id": f"t{i}", "text": "a boat"}) + "\n" for i in range(3)))
    corpora = Corpora(images=ImageFolder(path=str(folder / "images")), text=TextFiles(path=str(folder / "text.jsonl")))
    config = HarvestConfig(layers=(0, 4), sites=("mlp", "tower"), tokens_per_sample=4)
    found = Recipe(name="two", corpora=corpora, model=random_vlm, harvest=config, probe=PROBE, pool=Pool())
    workspace = place(folder / "ws")
    plan = plan_harvest(found.name, corpora, random_vlm, config, workspace)
    write_manifest(plan.place, plan.manifest)
    harvester = Harvester(load(random_vlm, 4), plan.job.config, plan.job.layers, 4000)
    for chunk in plan.chunks:
        samples = prepare_chunk(chunk, plan.job.corpora, Preparer.from_path(random_vlm))
        harvest_chunk(harvester, samples, plan.place, chunk.number)
    write_manifest(plan.place, complete_manifest(plan.place, read_commits(plan.place)))
    return found, workspace


@pytest.fixture
def probed(recipe) -> Callable[..., ProbeStage]:
    """The finished stage of a site."""
    found, workspace = recipe

    def of(site: str, **fields: object) -> ProbeStage:
        section = PROBE.model_copy(update={"site": site, **fields})
        stage = plan_probe(found.model_copy(update={"probe": section}), workspace)
        begun = stage.of(stage.artefact.begun())
        units = [unit for unit in begun.study.units if unit.name in begun.artefact.todo()]
        list(probe_plainly(begun.study, units, begun.artefact))
        finish(begun.artefact, begun.study)
        begun.artefact.closing().close()
        return begun.of(open_probes(begun.artefact.place))

    return of


def test_the_tower_is_probed_in_its_own_width_and_beside_its_controls(probed):
    stage = probed("tower")
    assert [unit.name for unit in stage.study.units] == ["pooled-tower"]
    frame = stage.artefact.frame().filter((pl.col("kind") == "ridge") & pl.col("n_per_class").is_null())
    assert frame["layer"].unique().to_list() == [NO_LAYER]
    assert frame["tested_on"].unique().to_list() == ["image"]  # texts have no tower
    (row,) = frame.filter(pl.col("attribute") == "class").to_dicts()
    assert row["top1"] == 1.0  # dark or bright
    assert row["shuffled"] < 0.9
    directions = open_probes(stage.artefact.place).directions
    (means,) = [entry for entry in directions.entries if (entry.kind, entry.attribute) == ("class_mean", "class")]
    table = stage.study.store.select("pooled", NO_LAYER, "image", split="train")
    labels, x = np.array(table.table(["label"])["label"].to_pylist()), table.numpy().astype(np.float64)
    wanted = np.stack([x[labels == label].mean(0) for label in (0, 1)])
    assert means.vectors.shape == (2, WIDTH)
    assert np.allclose(means.vectors.numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_its_numbers_name_no_layer(probed):
    stage = probed("tower")
    shown = stage.show()
    said = "\n".join([*shown.headline, *shown.lines])
    assert "is read at the vision tower: 1.00" in said
    assert "layer -1" not in said
    assert metrics(stage.artefact)["top1/class_image_pooled_ridge"] == 1.0
    assert not stage.records().figures


def test_single_patches_are_probed_and_padding_is_left_out(probed):
    stage = probed("tower", views=("tokens",))
    (row,) = (
        stage.artefact.frame()
        .filter((pl.col("kind") == "ridge") & (pl.col("attribute") == "class") & pl.col("n_per_class").is_null())
        .to_dicts()
    )
    rows = stage.study.store.select("tokens", NO_LAYER, "image", "train", special=False)
    assert row["n_train"] == len(rows)
    assert row["top1"] > row["shuffled"]


def test_another_site_has_the_streams_layers_where_a_block_begins(probed):
    stage = probed("mlp")
    assert [unit.name for unit in stage.study.units] == ["pooled-layer-000"]
    assert stage.artefact.frame()["layer"].unique().to_list() == [0]
    assert stage.artefact.manifest.name == "two-mlp"


def test_a_recipe_of_the_stream_has_the_digest_that_it_had_before_there_were_sites():
    assert "site" not in PROBE.model_dump()
    assert digest(PROBE) != digest(PROBE.model_copy(update={"site": "tower"}))
    assert ProbeConfig.model_validate(PROBE.model_copy(update={"site": "mlp"}).model_dump()).site == "mlp"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"site": "tower", "layers": (4,)}, r"layers: the tower has none, got \[4\]: leave the field out"),
        ({"site": "mlp", "sae": {"path": "x", "layer": 4}}, "sae: SAEs are of the residual stream, not of mlp"),
    ],
)
def test_what_a_site_has_not_is_refused(fields, reason):
    with pytest.raises(ValueError, match=reason):
        ProbeConfig(**fields)


def test_a_site_that_was_not_harvested_is_refused_in_one_line(recipe):
    found, workspace = recipe
    with pytest.raises(
        RecipeError, match=r"probe.site: no attention in .*: it has residual, mlp, tower; name it in harvest.sites"
    ):
        plan_probe(found.model_copy(update={"probe": PROBE.model_copy(update={"site": "attention"})}), workspace)


def test_what_acts_on_the_stream_takes_no_directions_of_another_site(recipe):
    found, workspace = recipe
    of_tower = found.model_copy(update={"probe": PROBE.model_copy(update={"site": "tower"})})
    with pytest.raises(RecipeError, match="edits act on the residual stream, and this recipe's probes are of the site tower"):
        find_directions(of_tower, workspace)
    assert _directions(of_tower, workspace) == (None, {})
