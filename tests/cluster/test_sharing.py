"""The sharing job: Ray's path equals the plain one, results are resumed, tracked and reported; wrong input is one line."""

import json
import weakref
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from linrep import artefact
from linrep.cluster import sharing as on_ray
from linrep.cluster.run_sharing import run_sharing
from linrep.cluster.sharing import in_the_store, share_plainly, share_units
from linrep.encoder import Latents
from linrep.errors import RecipeError, StoreError
from linrep.harvest.config import HarvestConfig, Pool
from linrep.places import place
from linrep.recipe import Recipe
from linrep.sae.architectures import Largest
from linrep.sae.controls import random_sae
from linrep.sae.formats import saelens
from linrep.sharing import grouped
from linrep.sharing.artefact import SHARING_KIND, plan_results
from linrep.sharing.config import ModelSae, SharingConfig
from linrep.sharing.grouped import parts_of
from linrep.sharing.study import plan_study
from tests.conftest import write_corpora
from tests.sharing.planted import CONFIG, write_pairs


def planned(folder: Path, saes: dict, **changes):
    """The plan of a study with some SAEs, by model and name."""
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((2, 60, 3, 12))
    stores = [write_pairs(folder / name, images, texts, tokens=3, digest=name) for name in ("trained", "untrained")]
    named = [ModelSae(path=name, layer=0, model=model) for model, name in saes]
    config = SMALL.model_copy(update={"saes": tuple(named), **changes})
    latents = tuple((Latents(name, own, own.decoder),) * 2 for (_, name), own in saes.items())
    study = plan_study(stores[0], config, stores[1], latents)
    return study, plan_results(place(folder), "t", study, tuple(own.digest for own in saes.values()))


def test_saes_that_activate_differently_are_different_parents(tmp_path):
    """The same weights, three or eight of them active."""
    few = random_sae(torch.randn(50, 12, generator=torch.Generator().manual_seed(0)), 20, 3)
    many = replace(few, rule=Largest(8))
    one, other = (planned(tmp_path, {("trained", "x"): own})[1].manifest for own in (few, many))
    assert one.parents["sae-0"] != other.parents["sae-0"]
    assert one.digest != other.digest


def test_two_saes_of_one_layer_and_name_are_refused_in_one_line(tmp_path):
    own = random_sae(torch.randn(50, 12), 20, 3)
    stores = [write_pairs(tmp_path / name, *np.ones((2, 60, 3, 12)), tokens=3, digest=name) for name in ("a", "b")]
    twice = SMALL.model_copy(update={"saes": (ModelSae(path="1/x", layer=0), ModelSae(path="2/x", layer=0))})
    both = (Latents("x", own, own.decoder),) * 2
    with pytest.raises(RecipeError, match="two of layer 0 of the trained model are called x") as raised:
        plan_study(stores[0], twice, None, (both, both))
    assert "\n" not in str(raised.value)
    # Of different models they may have one name, and each is of its own model's store.
    study, _ = planned(tmp_path / "m", {("trained", "x"): own, ("untrained", "x"): own})
    names = [unit.name for unit in study.units if unit.sae is not None and not unit.control]
    assert names == ["trained-layer-000-sae-00", "untrained-layer-000-sae-01"]


SMALL = SharingConfig(groups=4, reservoir=32, subspace=2, clusters=2, neighbours=3, resamples=50, min_per_class=2)


def test_parts_follow_the_rows(tmp_path, monkeypatch):
    """40 files of either modality: eight parts while there are few rows, more than eight tasks where there are many."""
    images, texts = np.random.default_rng(0).standard_normal((2, 160, 3, 12))
    store = write_pairs(tmp_path / "store", images, texts, chunk=4, tokens=3)
    few = parts_of(store, "tokens", 0)
    monkeypatch.setattr(grouped, "ROWS_PER_PART", 64)
    many = parts_of(store, "tokens", 0)
    assert (len(few), len(many)) == (8, 2 * 160 * 3 / 64)
    for modality in ("image", "text"):
        files = store.select("tokens", 0, modality).files
        assert len(files) == 40
        for parts in (few, many):
            assert tuple(file for part in parts for file in part[modality]) == tuple(files)


@pytest.mark.usefixtures("local_ray")
def test_the_ray_path_gives_the_results_of_the_plain_path(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((2, 150, 3, 12))
    store = write_pairs(tmp_path / "store", images, texts, np.arange(150) % 4, tokens=3)
    sae = random_sae(torch.randn(50, 12), 20, 3)
    config = CONFIG.model_copy(update={"saes": (ModelSae(path="x", layer=0),)})
    both = Latents("x", sae, sae.decoder)
    study = plan_study(store, config, None, ((both, both),))
    found, on_cluster = [], partial(share_units, pool=Pool())
    # Also where the object store has room for one part of a layer at a time.
    for name, run, room in (("plain", share_plainly, None), ("ray", on_cluster, None), ("narrow", on_cluster, (1, 1))):
        if room is not None:
            monkeypatch.setattr("linrep.cluster.sharing.in_the_store", lambda *_, room=room: room)
        results = plan_results(place(tmp_path / name), "t", study, ("a",)).begun()
        assert {c.unit for c in run(study, study.units, results)} == set(results.done())
        results.finish()
        results.closing().close()
        found.append(artefact.open(SHARING_KIND, str(tmp_path / name)))
    for table, which in product(("sharing", "latents"), (1, 2)):
        one, other = (pl.DataFrame(pl.from_arrow(found[i].table(table))) for i in (0, which))
        assert one.height > 10
        numbers = [c for c, kind in one.schema.items() if kind.is_float()]
        assert one.drop(numbers).equals(other.drop(numbers))
        for column in numbers:
            assert (one[column].fill_null(-1) - other[column].fill_null(-1)).abs().max() < 1e-3, column


def test_of_a_layer_two_parts_sums_exist_at_once_while_the_next_is_gathered(tmp_path, monkeypatch):
    """What was added up so far, and the part that is being read: never all eight."""
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((2, 160, 3, 12))
    store = write_pairs(tmp_path / "store", images, texts, tokens=3, chunk=20)
    sae = random_sae(torch.randn(50, 12), 20, 3)
    config = CONFIG.model_copy(update={"saes": (ModelSae(path="x", layer=0),)})
    study = plan_study(store, config, None, ((Latents("x", sae, sae.decoder),) * 2,))
    made_so_far: list[weakref.ref] = []
    most: list[int] = []

    def tracked(call):
        def made(*args):
            found = call(*args)
            made_so_far.append(weakref.ref(found))
            most.append(sum(one() is not None for one in made_so_far))
            return found

        return made

    for name in ("_gather", "add_gathered", "add_fired"):
        monkeypatch.setattr(on_ray, name, tracked(getattr(on_ray, name)))
    results = plan_results(place(tmp_path / "plain"), "t", study, ("a",)).begun()
    assert len(list(share_plainly(study, study.units, results))) == 3
    # Eight parts of three units, and while two are added, their sum.
    assert len(most) == 3 * (8 + 7)
    assert max(most) <= 3


def test_parts_wait_until_the_object_store_has_room_for_their_sums():
    """By hand: a unit holds its sums so far, what an addition gives, and its parts under way."""
    assert in_the_store(room=100, cpus=4, units=10) == (8, 8)
    assert in_the_store(room=12, cpus=4, units=10) == (4, 1)
    assert in_the_store(room=12, cpus=4, units=2) == (2, 4)
    assert in_the_store(room=0, cpus=4, units=10) == (1, 1)  # what is too small is tried all the same


@pytest.mark.usefixtures("local_ray")
def test_the_job_tracks_its_numbers_resumes_and_then_has_nothing_to_do(random_vlm, tmp_path):
    from linrep.cluster.run_harvest import run_harvest
    from linrep.vlm.untrained import write_untrained

    corpora = write_corpora(tmp_path / "c", n_images=40, n_pairs=40)
    # Captions name the classes of their images.
    (tmp_path / "c/images/classes.json").write_text(json.dumps({"n01": "boat", "n02": "house"}))
    harvest = HarvestConfig(layers=(0, 2), tokens_per_sample=7, chunk_size=32)
    recipe = Recipe(name="t", corpora=corpora, model=random_vlm, harvest=harvest, sharing=SMALL, pool=Pool(threads=1))
    workspace = place(tmp_path / "w")
    with pytest.raises(RecipeError, match=r"there is no harvest of this recipe in .*: run jobs/harvest\.py"):
        run_sharing(recipe, workspace)
    run_harvest(recipe, workspace)
    # An untrained model's harvest, and an SAE with its control.
    fresh = write_untrained(random_vlm.path, tmp_path / "fresh")
    again = recipe.model_copy(update={"model": random_vlm.model_copy(update={"path": str(fresh)})})
    run_harvest(again, place(tmp_path / "u"))
    saelens.write(place(tmp_path / "sae"), random_sae(torch.randn(64, 32), 48, 4))
    sharing = SMALL.model_copy(
        update={"untrained": str(tmp_path / "u"), "saes": (ModelSae(path=str(tmp_path / "sae"), layer=2),)}
    )
    recipe = recipe.model_copy(update={"sharing": sharing})
    first = run_sharing(recipe, workspace)
    # Means and last tokens of two layers of both models; an SAE and its control; the layers with each other, of means and of
    # last tokens of the trained model, of means of the other; the lenses of both.
    assert first.n_new == 15
    lenses = pl.DataFrame(pl.from_arrow(first.artefact.table("lens")))
    # Pairs of one group in five are read, as many as there are in group 0.
    n = len(range(0, 40, SMALL.groups))
    assert set(lenses.select("model", "image_layer", "contexts", "attribute", "images").iter_rows()) == set(
        product(("trained", "untrained"), (0, 2), ("all", "own", "first", "logit"), ("class",), (n,))
    )
    assert (lenses["value"] - lenses["permuted"] - lenses["over"]).abs().max() < 1e-9
    # The random model's tokens lie near nothing.
    assert (lenses["over_low"] <= 0).all()
    assert "LatentLens: at image layer 2 a nearest context names the class for" in " ".join(first.shown.headline)
    assert "untrained model: class, logit lens: layer 2" in first.text
    between = pl.DataFrame(pl.from_arrow(first.artefact.table("across")))
    assert set(between.select("model", "pooling").iter_rows()) == {
        ("trained", "mean"),
        ("trained", "last"),
        ("untrained", "mean"),
    }
    assert between.filter(pl.col("metric") == "cka_debiased", pl.col("model") == "trained").select(
        "image_layer", "text_layer"
    ).rows() == [(0, 0), (0, 2), (2, 0), (2, 2)]
    frame = pl.DataFrame(pl.from_arrow(first.artefact.table()))
    assert set(frame["level"]) == {"geometry", "concept", "latent"}
    assert set(frame["model"]) == {"trained", "untrained"}
    assert set(frame["sae"]) == {None, "sae", "sae/random"}
    assert frame.filter(pl.col("metric") == "hub").height == 8
    assert set(frame["pooling"]) == {None, "mean", "last"}
    assert "pooling object is left out: the recipe has no section regions" in first.text
    trends = pl.DataFrame(pl.from_arrow(first.artefact.table("trends")))
    assert set(trends.filter(pl.col("metric") == "hub")["pooling"]) == {"mean", "last"}
    assert "What the curves of means of all tokens show" in first.text
    assert first.shown.headline[1].startswith("Of means of all tokens, ")
    assert len(first.artefact.table("latents")) == 96

    from mlflow import MlflowClient

    client = MlflowClient(first.uri)
    (run,) = client.search_runs(["1"], "tags.`linrep.stage` = 'sharing'")
    assert {"linrep.parent.harvest", "linrep.parent.untrained", "linrep.parent.sae-0"} <= run.data.tags.keys()
    assert {"hub", "hub/untrained", "cofire/sae_layer02", "latent_lens", "logit_lens"} <= run.data.metrics.keys()
    curve = {one.step: one.value for one in client.get_metric_history(run.info.run_id, "latent_lens")}
    own = lenses.filter(pl.col("model") == "trained", pl.col("contexts") == "all")
    assert curve == pytest.approx(dict(own.select("image_layer", "value").iter_rows()))
    kept = {p.name for p in (tmp_path / "w/mlartifacts").rglob("*.*")}
    assert {
        "sharing.parquet",
        "sharing.csv",
        "latents.csv",
        "sharing_geometry.png",
        "sharing_latent.png",
        "sharing_across.png",
        "sharing_lens.png",
        "summary.txt",
    } <= kept

    assert run_sharing(recipe, workspace).n_new == 0
    folder = Path(first.artefact.place.path)
    (folder / "commits/trained-layer-002.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    with pytest.raises(StoreError, match="are not complete"):
        artefact.open(SHARING_KIND, str(folder))
    resumed = run_sharing(recipe, workspace)
    assert resumed.n_new == 1
    assert resumed.artefact.table().equals(first.artefact.table())
    # An SAE of another width.
    saelens.write(place(tmp_path / "wide"), random_sae(torch.randn(64, 16), 48, 4))
    wrong = sharing.model_copy(update={"saes": (ModelSae(path=str(tmp_path / "wide"), layer=2),)})
    with pytest.raises(RecipeError, match="is for width 16, the store has 32"):
        run_sharing(recipe.model_copy(update={"sharing": wrong}), workspace)
