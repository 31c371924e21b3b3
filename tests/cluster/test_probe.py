"""The probe job: Ray's path equals the plain one, units are resumed, figures and tables are kept."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch

from linrep.cluster.probe import probe_plainly, probe_units
from linrep.cluster.run_probe import run_probe
from linrep.config import digest
from linrep.corpora import Corpora
from linrep.errors import FormatError, RecipeError, StoreError
from linrep.harvest.config import HarvestConfig, Pool
from linrep.places import place
from linrep.probe.artefact import finish, open_probes, plan_probes
from linrep.probe.config import Attributes, Latents, ProbeConfig, Softmax
from linrep.probe.labels import read_attributes
from linrep.probe.study import plan_study
from linrep.recipe import Recipe
from linrep.sae.architectures import Rectify
from linrep.sae.controls import random_sae
from linrep.sae.formats import saelens
from linrep.sae.sae import Sae
from linrep.vlm.config import ModelConfig
from tests.conftest import write_corpora
from tests.probe.planted import AXES, D, write_colours, write_planted
from tests.stores import files_in

CONFIG = ProbeConfig(
    views=("pooled", "tokens"), alphas=(1e-3, 1e-1), shrinkages=(0.1,), sparse=(2,), curve=(), resamples=200,
    softmax=Softmax(penalties=(1e-1,)),
)  # fmt: skip


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A study, and its artefact in two workspaces."""
    folder = tmp_path_factory.mktemp("planted")
    store = write_planted(folder / "store", n_images=150)
    config = CONFIG.model_copy(update={"attributes": Attributes(path=write_colours(folder), columns=("colour",))})
    table, named = read_attributes(config.attributes, config.attributes.path)
    study = plan_study(store, config, table)
    return study, [plan_probes(place(folder / name), "planted", study, {"attributes": named}) for name in ("plain", "ray")]


@pytest.mark.usefixtures("local_ray")
def test_the_ray_path_gives_the_results_of_the_plain_path(planned):
    study, artefacts = planned
    for probes, run in zip(artefacts, (probe_plainly, partial(probe_units, pool=Pool())), strict=True):
        commits = list(run(study, study.units, probes.begun()))
        assert {commit.unit for commit in commits} == {u.name for u in study.units} == set(probes.done())
        finish(probes, study)
        probes.closing().close()
    one, other = (open_probes(str(probes.place.parent.parent)) for probes in artefacts)
    for name in ("probes", "classes", "confusions", "labels"):
        mine, theirs = (pl.DataFrame(pl.from_arrow(p.table(name))) for p in (one, other))
        assert mine.height > 0
        numbers = [c for c, kind in mine.schema.items() if kind.is_float()]
        assert mine.drop(numbers).equals(theirs.drop(numbers))
        for column in numbers:
            # Threads may add in another order: counts agree to a row in a thousand, and nearly all to the bit.
            assert (mine[column].fill_null(-1) - theirs[column].fill_null(-1)).abs().max() < 0.02, column
    for entry in one.directions.entries:
        again = other.directions.select(entry.kind, entry.layer, entry.view, entry.modality, entry.attribute)
        assert torch.allclose(entry.vectors, again.vectors, rtol=1e-3, atol=1e-4)


def test_digests_name_what_decides_numbers_and_nothing_else(planned):
    study, _ = planned

    def name(config: ProbeConfig, attributes: str | None = "a") -> str:
        return plan_probes(place("/w"), "n", replace(study, config=config), {"attributes": attributes}).manifest.digest

    roomy = CONFIG.model_copy(update={"softmax": Softmax(penalties=(1e-1,), memory_gb=99)})
    assert name(CONFIG) == name(roomy)
    assert name(CONFIG) != name(CONFIG.model_copy(update={"seed": 5}))
    assert name(CONFIG) != name(CONFIG, "b")
    assert len(digest(1)) == len(name(CONFIG))


def test_an_sae_of_the_planted_axes_names_classes_with_one_latent_each(tmp_path):
    axes = torch.from_numpy(AXES).float()
    sae = Sae(axes, torch.zeros(D), axes, torch.zeros(D), Rectify(), sees_centred=False)
    saelens.write(place(tmp_path / "sae"), sae)
    config = CONFIG.model_copy(
        update={"views": ("pooled",), "softmax": None, "sparse": (1,), "sae": Latents(path=str(tmp_path / "sae"), layer=2)}
    )
    study = plan_study(write_planted(tmp_path / "store", n_images=150), config)
    probes = plan_probes(place(tmp_path / "w"), "planted", study, {"sae": sae.digest})
    assert probes.manifest.parents["sae"] == sae.digest
    list(probe_plainly(study, study.units, probes))
    finish(probes, study)
    probes.closing().close()
    table = pl.DataFrame(pl.from_arrow(open_probes(str(tmp_path / "w")).table()))
    of_latents = table.filter(pl.col("kind") == "latents", pl.col("attribute") == "class", pl.col("tested_on") == "image")
    assert of_latents["layer"].to_list() == [2]  # the SAE is of layer 2
    assert of_latents["k"].to_list() == [1]
    assert of_latents["top1"].item() > 0.95


def recipe_of(corpora: Corpora, model: ModelConfig, **changes) -> Recipe:
    probe = CONFIG.model_copy(update={"min_per_class": 2, "views": ("pooled",), "softmax": None, **changes})
    harvest = HarvestConfig(layers=(0, 2), tokens_per_sample=7, chunk_size=16)
    return Recipe(name="t", corpora=corpora, model=model, harvest=harvest, probe=probe, pool=Pool(threads=1))


@pytest.mark.usefixtures("local_ray")
def test_the_job_tracks_its_numbers_resumes_and_then_has_nothing_to_do(random_vlm, tmp_path):
    from linrep.cluster.run_harvest import run_harvest

    recipe, workspace = recipe_of(write_corpora(tmp_path / "c", n_images=60), random_vlm), place(tmp_path / "w")
    with pytest.raises(RecipeError, match=r"there is no harvest of this recipe in .*: run jobs/harvest\.py"):
        run_probe(recipe, workspace)
    run_harvest(recipe, workspace)
    first = run_probe(recipe, workspace)
    assert first.n_new == 2
    table = first.artefact.table()
    assert set(table["layer"].to_pylist()) == {0, 2}
    assert first.artefact.manifest.status == "complete"
    (task, *_) = first.artefact.about.tasks
    assert task["names"] == ["tench", "church"]
    assert first.artefact.manifest.parents["harvest"] in str(next((tmp_path / "w/harvests").iterdir()))

    from mlflow import MlflowClient

    client = MlflowClient(first.uri)
    runs = client.search_runs(["1"], "tags.`linrep.stage` = 'probe'")
    assert [run.data.tags["linrep.parent.harvest"] for run in runs] == [first.artefact.manifest.parents["harvest"]]
    assert runs[0].data.params["probe.min_per_class"] == "2"
    ridge = pl.DataFrame(pl.from_arrow(table)).filter(
        pl.col("kind") == "ridge", pl.col("attribute") == "class", pl.col("tested_on") == "image", pl.col("fitted_on") == "image"
    )
    curve = client.get_metric_history(runs[0].info.run_id, "top1/class_image_pooled_ridge")
    assert [(point.step, point.value) for point in curve] == list(ridge.select("layer", "top1").iter_rows())
    assert runs[0].data.tags["mlflow.note.content"] == " ".join(first.shown.headline)
    kept = {p.name for p in (tmp_path / "w/mlartifacts").rglob("*.*")}
    assert {"probes.parquet", "probes.csv", "classes.csv", "confusions.csv", "layers_class.png", "summary.txt"} <= kept

    again = run_probe(recipe, workspace)
    assert again.n_new == 0
    folder = Path(first.artefact.place.path)
    (folder / "commits/pooled-layer-002.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    with pytest.raises(StoreError, match="are not complete"):
        open_probes(str(folder))
    resumed = run_probe(recipe, workspace)
    assert resumed.n_new == 1
    assert resumed.artefact.table().drop_columns([]).equals(table)
    assert replace(resumed.artefact.manifest, finished="") == replace(first.artefact.manifest, finished="")
    assert not [name for name in files_in(folder) if name.endswith(".part")]


@pytest.mark.usefixtures("local_ray")
def test_wrong_input_is_one_clear_line_before_any_probe(random_vlm, corpora, tmp_path):
    from linrep.cluster.run_harvest import run_harvest

    recipe = recipe_of(corpora, random_vlm, min_per_class=500)
    run_harvest(recipe, place(tmp_path))
    with pytest.raises(RecipeError, match=r"class '\w+' has \d+ training samples, at least 500 are needed"):
        run_probe(recipe, place(tmp_path))

    saelens.write(place(tmp_path / "sae"), random_sae(torch.randn(8, 5), 16, k=2))
    for layer, message in ((1, "layer 1 is not probed, only 0, 2"), (2, r"is for width 5, the store has \d+")):
        narrow = recipe_of(corpora, random_vlm, sae=Latents(path=str(tmp_path / "sae"), layer=layer))
        with pytest.raises(RecipeError, match=message):
            run_probe(narrow, place(tmp_path))
    with pytest.raises(FormatError, match="no SAE at"):
        run_probe(recipe_of(corpora, random_vlm, sae=Latents(path=str(tmp_path / "none"), layer=2)), place(tmp_path))
