"""An SAE on the hub is used as one in a folder is: by its address, pinned to a commit, never as a pickle."""

from pathlib import Path

import pytest

from linrep.cluster.run_features import plan_features
from linrep.cluster.sae_names import at_path
from linrep.errors import FormatError, HubError
from linrep.features.config import FeaturesConfig
from linrep.named_sae import NamedSae
from linrep.places import place
from linrep.sae import formats
from linrep.sae.formats import dictionary_learning, saelens, sparsify
from linrep.store.read import open as open_store
from linrep.vlm.config import ModelConfig
from tests.hub.fake_hub import FakeHub
from tests.reading.workspace import write_recipe
from tests.sae.saes import make_sae


def files_of(folder: Path, below: str) -> dict[str, bytes]:
    return {f"{below}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_address_reads_as_the_folder_does(hub: FakeHub, tmp_path: Path) -> None:
    sae = make_sae("topk", True)
    saelens.write(place(tmp_path / "s"), sae)
    hub.make("me/saes").put(files_of(tmp_path / "s", "layer-004/topk"))
    read = formats.read("hf://me/saes/layer-004/topk")
    assert read.digest == sae.digest
    assert not [one.path for one in hub.asked if one.path.endswith(".gitattributes")]
    with pytest.raises(HubError, match="holds no file of a kind that is fetched: there is none"):
        formats.read("hf://me/saes/layer-005")


def test_an_address_of_sparsify_knows_its_run(hub: FakeHub, tmp_path: Path) -> None:
    """Its run's config.json lies a folder above, and says what model it is of."""
    sparsify.write(place(tmp_path / "r" / "layers.3"), make_sae("topk", True))
    (tmp_path / "r" / "config.json").write_text('{"model": "someone/model"}')
    hub.make("me/run").put({**files_of(tmp_path / "r", "x"), "x/layers.9/cfg.json": b"{}"})
    read = formats.read("hf://me/run/x/layers.3")
    assert read.about == formats.read(tmp_path / "r" / "layers.3").about
    assert not [one.path for one in hub.asked if one.path.endswith("layers.9/cfg.json")]


def test_no_pickle_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    dictionary_learning.write(place(tmp_path / "s"), make_sae("topk", True))
    hub.make("me/saes").put({**files_of(tmp_path / "s", "a"), "b/sae.pkl": b"pickle"})
    with pytest.raises(FormatError, match=r"holds no safetensors but a/ae\.pt, and no pickle is fetched of the hub"):
        formats.read("hf://me/saes/a")
    with pytest.raises(HubError, match=r"there is b/sae\.pkl"):
        formats.read("hf://me/saes/b/sae.pkl")
    assert not [one.path for one in hub.asked if one.path.endswith((".pt", ".pkl"))]


def test_a_recipe_names_one_by_its_address(
    hub: FakeHub, tmp_path: Path, random_vlm: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made of an SAE of the hub is the artefact of the same SAE in a folder, and says which commit it was."""
    recipe, workspace = write_recipe(tmp_path, random_vlm), place(tmp_path / "ws")
    by_folder = plan_features(recipe, workspace).artefact
    hub.make("me/saes").put(files_of(tmp_path / "sae", "l2/sae"))
    named = NamedSae(path="hf://me/saes/l2/sae", layer=2)
    features = FeaturesConfig.model_validate({**recipe.features.model_dump(), "saes": (named,)})
    planned = plan_features(recipe.model_copy(update={"features": features}), workspace).artefact
    assert planned.place == by_folder.place
    commit = hub.of("me/saes").head
    assert [one["path"] for one in planned.manifest.saes] == [f"hf://me/saes@{commit}/l2/sae"]
    assert [one.name for one in planned.about.saes] == ["sae", "sae/random"]
    hub.of("me/saes").put({"README.md": b"another"})
    assert (
        at_path(named, recipe, open_store(workspace.uri), workspace, "features.saes.0").path
        == f"hf://me/saes@{hub.of('me/saes').head}/l2/sae"
    )
    assert formats.read(planned.manifest.saes[0]["path"]).digest == formats.read(tmp_path / "sae").digest
