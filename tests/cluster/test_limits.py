"""Attention sinks on Ray: limits are found once, stand in the manifest before the first row, and are kept on resume."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from linrep.cluster.run_harvest import run_harvest
from linrep.harvest.config import HarvestConfig, Pool
from linrep.places import place
from linrep.recipe import Recipe
from linrep.store.summary import apart_lines
from linrep.vlm.config import ModelConfig
from linrep.vlm.prepare import Preparer

CONFIG = HarvestConfig(layers=(0, 1), tokens_per_sample=None, chunk_size=8, dtype="float32")


@pytest.fixture(scope="module")
def model(random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """The tiny model, in which the first word of every text has a huge embedding."""
    folder = tmp_path_factory.mktemp("model") / "sinks"
    shutil.copytree(random_vlm.path, folder)
    (file,) = folder.glob("*.safetensors")
    weights = load_file(file)
    (name,) = [n for n in weights if n.endswith("embed_tokens.weight")]
    weights[name][first_word(random_vlm)] *= 1e4
    save_file(weights, file, {"format": "pt"})
    return ModelConfig(path=str(folder))


def first_word(model: ModelConfig) -> int:
    return Preparer.from_path(model).tokenizer("a", add_special_tokens=False)["input_ids"][0]


@pytest.mark.usefixtures("local_ray")
def test_limits_are_found_once_and_kept_on_resume(corpora, model, random_vlm, tmp_path):
    recipe = Recipe(name="t", corpora=corpora, model=model, harvest=CONFIG, pool=Pool(tokens_per_batch=400, threads=1))
    store = run_harvest(recipe, place(tmp_path)).artefact.store
    ids = store.select("tokens", 0, "text", special=False, high_norm=None).table(["token_id"])["token_id"].to_pylist()
    n = ids.count(first_word(random_vlm))
    assert n > 20
    found = store.statistics()[0, "text"]
    assert found.n_high_norm == n == len(store.select("tokens", 0, "text", special=False, high_norm=True))
    assert found.n == len(ids) - n
    pooled = store.select("pooled", 0, "text")
    assert sum(pooled.table(["n_high_norm"])["n_high_norm"].to_pylist()) == n
    assert np.abs(pooled.numpy()).max() < 10 < store.limit("tokens", 0, "text") < 100
    assert any("text tokens" in line for line in apart_lines(store.manifest))
    assert "text tokens" in str(store)
    # A resume takes the limits that are there, whatever it would find now.
    folder = Path(store.place.path)
    text = len(store.commits) - 1
    (folder / f"commits/{text:06d}.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["check"]  # of what was written, which is changed here
    high = [{**record, "limit": 1e9} for record in manifest["limits"]]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "running", "limits": high}))
    again = run_harvest(recipe, place(tmp_path))
    assert again.n_new == 1
    assert again.artefact.store.manifest.limits == high
    assert 0 < again.artefact.store.statistics()[0, "text"].n_high_norm < n
