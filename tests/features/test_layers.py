"""SAEs of several layers may share a name, as those of one training run do: everything keeps them apart."""

import gzip
import json

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from linrep.cluster.interpret import saes
from linrep.errors import StoreError
from linrep.explorer.features import feature_metrics
from linrep.features.exports.__main__ import main
from linrep.features.exports.neuronpedia import Names, write_neuronpedia
from linrep.features.study import plan_study
from linrep.named_sae import NamedSae
from linrep.places import place
from tests.features.planted import CONFIG, draw, found_plainly, identity, write_store

F, N = 6, 12
BOTH = tuple(NamedSae(path=f"layer-{layer:03d}/own", layer=layer) for layer in (0, 2))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    store = write_store(folder / "s", draw(N, F, 1), draw(N, F, 2), np.arange(N) % 4, layers=(0, 2))
    study = plan_study(store, CONFIG.model_copy(update={"saes": BOTH}), latents=identity(F) * 2)
    return found_plainly(folder / "w", study)


def frame(table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


def test_a_layer_and_a_name_make_an_sae(found):
    assert saes(found) == {
        (0, "own"): "sae-00", (0, "own/random"): "sae-00-random",
        (2, "own"): "sae-01", (2, "own/random"): "sae-01-random",
    }  # fmt: skip
    rows = frame(found.table())
    assert rows.select("layer", "sae", "latent").n_unique() == len(rows) == 4 * F
    curves = {name: list(curve) for name, curve in feature_metrics(found.table()).items() if name.startswith("alive/")}
    assert curves == {"alive/own": [0, 2], "alive/own/random": [0, 2]}


def test_examples_are_of_the_layer_that_was_asked_for(found):
    with pytest.raises(StoreError, match=r"has an SAE 'own' in layers 0, 2: say which layer"):
        found.examples("own")
    with pytest.raises(StoreError, match=r"no SAE 'own' of layer 1 in .*: own \(layer 0\), own/random \(layer 0\), own"):
        found.examples("own", layer=1)
    low, high = (frame(found.examples("own", layer=layer)) for layer in (0, 2))
    assert set(low["layer"]) == {0}
    assert set(high["layer"]) == {2}
    # Layer 2 is layer 0 moved up by two: its latent j does what j - 2 does there.
    moved = low.with_columns(layer=pl.lit(2, pl.Int32), latent=((pl.col("latent") + 2) % F).cast(pl.Int32))
    keys = ["latent", "modality", "kind", "quantile", "rank"]
    assert moved.sort(keys).equals(high.sort(keys))


def test_exports_are_of_the_layer_that_was_asked_for(found, tmp_path, capsys):
    assert main(["delphi", found.place.path, str(tmp_path), "--sae", "own"]) == 1
    assert "say which layer" in capsys.readouterr().err
    assert main(["delphi", found.place.path, str(tmp_path)]) == 0  # the first: of layer 0
    assert main(["delphi", found.place.path, str(tmp_path), "--sae", "own", "--layer", "2"]) == 0
    firing = []
    for folder in ("embeddings", "layers.1"):
        parts = {int(p.stem.split("_")[0]): load_file(p)["locations"] for p in (tmp_path / folder).glob("*.safetensors")}
        latents = np.concatenate([start + part[:, 2].astype(int) for start, part in parts.items()])
        firing.append(np.bincount(latents, minlength=F))
    np.testing.assert_array_equal(np.roll(firing[0], 2), firing[1])
    words = tuple(f" w{i}" for i in range(40))
    write_neuronpedia(found, "own", words, place(tmp_path / "n"), Names("m"), layer=2)
    (batch,) = (tmp_path / "n/m").rglob("features/*.gz")
    rows = [json.loads(line) for line in gzip.decompress(batch.read_bytes()).splitlines()]
    assert batch.parents[1].name == "1-own-resid-post"
    assert [row["index"] for row in rows] == [str(i) for i in range(F)]
