import json
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaNextForConditionalGeneration

from linrep.errors import ModelError
from linrep.vlm.card import check_layers, describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.random import write_random_vlm

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def card_of(folder):
    return describe(ModelConfig(path=str(folder)))


def change_weights(folder, name, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})


def test_card_says_what_was_built(folder):
    card = card_of(folder)
    assert (card.n_layers, card.width, card.vocab_size, card.image_token_id) == (3, 32, 512, 4)
    assert (card.tile_size, card.patch_size) == (28, 7)
    assert card.vision.grid_pinpoints == ((28, 56), (56, 28), (56, 56), (84, 28), (28, 84))
    assert (card.vision.feature_strategy, card.vision.feature_layer, card.max_positions) == ("default", -2, 4096)
    assert (card.class_name, card.processor_class) == ("LlavaNextForConditionalGeneration", "LlavaNextProcessor")
    assert (card.path, card.revision) == (str(folder), None)
    assert pickle.loads(pickle.dumps(card)) == card


def test_config_that_leaves_out_defaults_is_filled_in(copy):
    raw = json.loads((copy / "config.json").read_text())
    raw["text_config"] = {"model_type": "llama", "vocab_size": 512}
    (copy / "config.json").write_text(json.dumps(raw))
    card = card_of(copy)
    assert (card.n_layers, card.width) == (32, 4096)


def test_importing_the_package_and_the_config_is_light():
    code = "import sys, linrep.vlm.config, linrep.vlm.card, linrep.vlm.tokens, linrep.vlm.prepared\n"
    code += "print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_digest_is_the_same_for_a_copy(folder, copy):
    assert card_of(copy).digest == card_of(folder).digest


def test_digest_is_the_same_for_the_same_weights_saved_again(folder, tmp_path):
    assert card_of(write_random_vlm(tmp_path / "again", seed=0)).digest == card_of(folder).digest


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "processor_config.json"])
def test_digest_changes_with_each_small_file(folder, copy, name):
    (copy / name).write_text((copy / name).read_text() + "\n")
    assert card_of(copy).digest != card_of(folder).digest


@pytest.mark.parametrize(
    "name", ["image_newline", "language_model.model.layers.2.mlp.up_proj.weight", "multi_modal_projector.linear_1.bias"]
)
def test_digest_changes_with_fine_tuned_weights(folder, copy, name):
    change_weights(copy, name, lambda w: w.add_(0.01))
    assert card_of(copy).digest != card_of(folder).digest


def test_digest_of_a_large_file_sees_every_tensor(tmp_path):
    """Weights too large to be read whole: one small tensor between the evenly spaced samples still counts."""
    folder = write_random_vlm(tmp_path / "large", width=256, mlp=2048, n_layers=4, n_heads=4)
    assert (folder / "model.safetensors").stat().st_size > 64 * 64 * 1024 * 2
    before = card_of(folder).digest
    change_weights(folder, "language_model.model.layers.1.post_attention_layernorm.weight", lambda w: w.mul_(1.01))
    assert card_of(folder).digest != before


def test_sharded_weights_have_a_digest_that_forgets_names_but_not_contents(folder, tmp_path):
    model = LlavaNextForConditionalGeneration.from_pretrained(folder)
    sharded = shutil.copytree(folder, tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    model.save_pretrained(sharded, max_shard_size="100KB")
    shards = sorted(sharded.glob("model-*.safetensors"))
    assert len(shards) > 2
    before = card_of(sharded).digest
    renamed = shutil.copytree(sharded, tmp_path / "renamed")
    shutil.move(renamed / shards[0].name, renamed / "other.safetensors")
    index = (renamed / "model.safetensors.index.json").read_text()
    (renamed / "model.safetensors.index.json").write_text(index.replace(shards[0].name, "other.safetensors"))
    assert card_of(renamed).digest == before
    tensors = load_file(shards[1])
    next(iter(tensors.values())).add_(1)
    save_file(tensors, shards[1], metadata={"format": "pt"})
    assert card_of(sharded).digest != before
    shards[2].unlink()
    with pytest.raises(ModelError, match=shards[2].name):
        card_of(sharded)


def test_missing_folder(tmp_path):
    with pytest.raises(ModelError, match=r"/nowhere' does not exist"):
        card_of(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder(folder):
    with pytest.raises(ModelError, match="is a file"):
        card_of(folder / "config.json")


def test_another_kind_of_model(copy):
    (copy / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match=r"of type 'bert', which no family knows; .*families/<name>\.py"):
        card_of(copy)


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_unreadable_config(copy, content):
    (copy / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        card_of(copy)


def test_config_with_a_value_of_the_wrong_kind(copy):
    raw = json.loads((copy / "config.json").read_text())
    raw["vision_feature_select_strategy"] = "some"
    (copy / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match=r"cannot use config\.json") as caught:
        card_of(copy)
    assert "\n" not in str(caught.value)


def test_no_config_no_weights_no_processor(copy):
    (copy / "processor_config.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="names no processor"):
        card_of(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        card_of(copy)
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        card_of(copy)


def test_damaged_weights(copy):
    (copy / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="not a safetensors file"):
        card_of(copy)


def hub_cache(folder, root):
    snapshot = root / "models--someone--tiny" / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    (root / "models--someone--tiny" / "refs").mkdir()
    (root / "models--someone--tiny" / "refs" / "main").write_text(COMMIT)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    import huggingface_hub._snapshot_download as module

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(module.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_hub_name_without_network_or_cache_is_one_clear_line(offline):
    with pytest.raises(ModelError, match="'someone/tiny' is neither") as caught:
        describe(ModelConfig(path="someone/tiny"))
    assert "\n" not in str(caught.value)


def test_hub_name_in_the_cache_gives_the_commit(folder, offline):
    hub_cache(folder, offline)
    card = describe(ModelConfig(path="someone/tiny"))
    assert (card.revision, card.path, card.n_layers) == (COMMIT, "someone/tiny", 3)
    with pytest.raises(ModelError, match="at revision 'v2'"):
        describe(ModelConfig(path="someone/tiny", revision="v2"))


@pytest.mark.parametrize("layer", [-1, 4, True])
def test_bad_layers_are_named_with_the_range(folder, layer):
    with pytest.raises(ModelError, match=rf"layer {layer} does not exist: .* has layers 0\.\.3"):
        check_layers(card_of(folder), [0, layer])


def test_good_layers_pass(folder):
    check_layers(card_of(folder), range(4))


def test_dtype_on_disk_counts(tmp_path, folder):
    half = write_random_vlm(tmp_path / "half", seed=0, dtype=torch.float16)
    assert card_of(half).digest != card_of(folder).digest
