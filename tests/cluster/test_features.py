"""The features job: Ray's path equals the plain one, results are resumed, tracked and reported; wrong input is one line."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from linrep.cluster.features import find_features, find_plainly
from linrep.cluster.interpret import build_cases
from linrep.cluster.run_features import FeaturesStage, plan_features, run_features
from linrep.cluster.stage import Step
from linrep.errors import RecipeError, StoreError
from linrep.features.artefact import finish, open_features, plan_artefact
from linrep.features.config import FeaturesConfig
from linrep.features.study import plan_study
from linrep.harvest.config import HarvestConfig, Pool
from linrep.interpret.config import InterpretConfig, Scored, Shown
from linrep.kind import UnitCommit
from linrep.named_sae import NamedSae
from linrep.places import place
from linrep.recipe import Recipe
from linrep.sae.controls import random_sae
from linrep.sae.formats import saelens
from tests.conftest import write_corpora
from tests.features.planted import CONFIG, draw, identity, write_store


@pytest.mark.usefixtures("local_ray")
def test_the_ray_path_gives_the_results_of_the_plain_path(tmp_path):
    f, n = 8, 50
    store = write_store(tmp_path / "store", draw(n, f, 1), draw(n, f, 2), np.arange(n) % 4, chunk=9)
    study = plan_study(store, CONFIG.model_copy(update={"memory_gb": 1e-5}), latents=identity(f))
    assert len(study.units) > 2
    found = []
    for name, run in (("plain", find_plainly), ("ray", partial(find_features, pool=Pool()))):
        here = plan_artefact(place(tmp_path / name), "t", study, {}).begun()
        events = list(run(study, here.todo(), here))
        assert [event.unit for event in events if isinstance(event, UnitCommit)] != here.todo() == []
        rows = [event.amount for event in events if isinstance(event, Step)]
        assert sum(rows) == FeaturesStage(here, study, Pool()).counts.total > 0
        # A task for each file and SAE, however many parts they are gathered in.
        assert sum(n > 0 for n in rows) == 2 * sum(map(len, study.parts(study.coded[0]))) > 2 * 8
        here.closing(**finish(here)).close()
        found.append(open_features(str(tmp_path / name)))
    one, other = found
    for table in ("features", "labels"):
        assert len(one.table(table))
        assert one.table(table).equals(other.table(table))
    for sae in ("own", "own/random"):
        assert len(one.examples(sae))
        assert one.examples(sae).equals(other.examples(sae))
    # What is asked of an interpreter, from codes that tasks read or this process.
    config = InterpretConfig(latents=4, show=Shown(top=2, spread=1, silent=2), score=Scored(positives=4, negatives=4))
    here, there = (list(build_cases(one, store, config, on_ray=on_ray)) for on_ray in (False, True))
    assert here == there
    assert len(here) > 4


@pytest.mark.usefixtures("local_ray")
def test_the_job_tracks_its_numbers_resumes_and_then_has_nothing_to_do(random_vlm, tmp_path):
    import torch

    from linrep.cluster.run_harvest import run_harvest

    corpora = write_corpora(tmp_path / "c", n_images=40, n_pairs=12)
    harvest = HarvestConfig(layers=(0, 2), tokens_per_sample=7, chunk_size=32)
    wrong = FeaturesConfig(top=3, quantiles=2, per_quantile=2, words=4, neighbours=3, min_samples=4)
    recipe = Recipe(name="t", corpora=corpora, model=random_vlm, harvest=harvest, features=wrong, pool=Pool(threads=1))
    workspace = place(tmp_path / "w")
    with pytest.raises(RecipeError, match=r"there is no harvest of this recipe in .*: run jobs/harvest\.py"):
        run_features(recipe, workspace)
    run_harvest(recipe, workspace)
    with pytest.raises(RecipeError, match=r"features\.saes names none"):
        run_features(recipe, workspace)
    for name, width in (("sae", 32), ("wide", 16)):
        saelens.write(place(tmp_path / name), random_sae(torch.randn(64, width), 48, 4))
    for given, match in (
        (NamedSae(path=str(tmp_path / "wide"), layer=2), "is for width 16, the store has 32"),
        (NamedSae(path=str(tmp_path / "sae"), layer=1), "no layer 1 in"),
        (NamedSae(path=str(tmp_path / "nothing"), layer=2), "no SAE at"),
    ):
        with pytest.raises(ValueError, match=match):
            run_features(recipe.model_copy(update={"features": wrong.model_copy(update={"saes": (given,)})}), workspace)
    # One training run writes layer-000/sae and layer-002/sae: these are two, and one of them twice is refused.
    here = NamedSae(path=str(tmp_path / "sae"), layer=2)
    for other, match in ((here.model_copy(update={"layer": 0}), None), (here, r"same name, 2/sae: rename a folder")):
        both = recipe.model_copy(update={"features": wrong.model_copy(update={"saes": (here, other)})})
        if match is None:
            looked = plan_features(both, workspace).artefact.about.saes
            assert [(own.layer, own.name) for own in looked] == [
                (2, "sae"),
                (2, "sae/random"),
                (0, "sae"),
                (0, "sae/random"),
            ]
        else:
            with pytest.raises(RecipeError, match=match):
                plan_features(both, workspace)
    right = wrong.model_copy(update={"saes": (NamedSae(path=str(tmp_path / "sae"), layer=2),), "memory_gb": 4e-5})
    recipe = recipe.model_copy(update={"features": right})
    first = run_features(recipe, workspace)
    features = open_features(first.artefact.place)
    assert first.n_new == len(features.manifest.units) == 2 + len(features.about.runs) > 4
    frame = pl.DataFrame(pl.from_arrow(features.table()))
    assert frame.group_by("sae").len().sort("sae").rows() == [("sae", 48), ("sae/random", 48)]
    assert frame["words_up"].list.len().to_list() == [4] * 96
    examples = pl.DataFrame(pl.from_arrow(features.examples("sae")))
    assert set(examples["modality"]) == {"image", "text"}
    assert examples.filter(pl.col("modality") == "image")["rows"].list.len().min() >= 1

    from mlflow import MlflowClient

    client = MlflowClient(first.uri)
    (run,) = client.search_runs(["1"], "tags.`linrep.stage` = 'features'")
    assert {"linrep.parent.harvest", "linrep.parent.sae-0"} <= run.data.tags.keys()
    assert {f"{name}_layer02" for name in ("alive/sae", "good_f1/sae", "median_uniqueness/sae/random")} <= run.data.metrics.keys()
    (alive,) = client.get_metric_history(run.info.run_id, "alive/sae_layer02")
    assert alive.step == 0
    assert run.data.tags["mlflow.note.content"] == " ".join(first.shown.headline)
    assert f"{round(alive.value * 48)} of 48 latents fire" in first.shown.headline[0]
    kept = {p.name for p in (tmp_path / "w/mlartifacts").rglob("*.*")}
    assert {"features.parquet", "features.csv", "labels.csv", "features_layer02.png", "summary.txt"} <= kept

    assert run_features(recipe, workspace).n_new == 0
    folder = Path(features.place.path)
    (folder / f"commits/{next(iter(features.about.runs))}.json").unlink()
    (next((folder / "codes").rglob("*.parquet"))).unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    with pytest.raises(StoreError, match="are not complete"):
        open_features(str(folder))
    resumed = run_features(recipe, workspace)
    assert resumed.n_new == 1
    assert resumed.artefact.table().equals(first.artefact.table())
    assert open_features(folder.as_posix()).examples("sae").equals(features.examples("sae"))

    # Codes that somebody deleted are made again, and nothing else is, once the files that the error names are gone.
    codes = {file.relative_to(folder): file.read_bytes() for file in (folder / "codes").rglob("*.parquet")}
    shutil.rmtree(folder / "codes/sae-00")
    with pytest.raises(StoreError, match=r"0 of \d files of codes are left in .*: delete .* and run jobs/features\.py") as error:
        features.codes("sae-00", "image")
    named = re.findall(r"(\S+\.json)", str(error.value))
    assert [Path(name).relative_to(folder).as_posix() for name in named] == ["manifest.json", "commits/codes-sae-00.json"]
    for name in named:
        Path(name).unlink()
    assert run_features(recipe, workspace).n_new == 1
    assert {file.relative_to(folder): file.read_bytes() for file in (folder / "codes").rglob("*.parquet")} == codes
    assert open_features(str(folder)).table().equals(features.table())
