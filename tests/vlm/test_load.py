import json
import shutil

import pytest
import torch
import transformers.core_model_loading as loading
from safetensors.torch import load_file, save_file

from linrep.errors import ModelError
from linrep.vlm.batch import collate
from linrep.vlm.config import ModelConfig
from linrep.vlm.hooks import forward, record
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from linrep.vlm.random import write_random_vlm


def n_params(model):
    return sum(p.numel() for p in model.parameters())


def streams(vlm, prepared, layers):
    with record(vlm, layers) as found:
        forward(vlm, collate(prepared, vlm))
    return found


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_blocks_after_the_depth_are_not_made(config, vlm, depth):
    cut = load(config, depth)
    assert len(cut.text.layers) == depth == cut.reach
    assert not hasattr(cut.inner, "lm_head")
    block = n_params(vlm.text.layers[0])
    head = n_params(vlm.model.lm_head)
    tower_block = n_params(vlm.inner.vision_tower.encoder.layers[-1])
    assert n_params(vlm.model) - n_params(cut.model) == (3 - depth) * block + head + tower_block


def test_later_tensors_are_not_read(config, monkeypatch):
    read = []
    real = loading._materialize_copy
    monkeypatch.setattr(
        loading, "_materialize_copy", lambda t, *args, **kw: read.append(tuple(t.get_shape())) or real(t, *args, **kw)
    )
    load(config, 3)
    whole = len(read)
    read.clear()
    load(config, 1)
    assert whole - len(read) == 2 * 9  # nine tensors a block
    assert read.count((512, 32)) == 1  # the embeddings, and no head of the same shape


def test_nothing_is_printed(config, capfd, caplog):
    for depth in (None, 0, 2):
        load(config, depth)
    out, err = capfd.readouterr()
    assert (out, err, caplog.records) == ("", "", [])


def test_ready_to_run_and_without_gradients(vlm, config):
    for one in (vlm, load(config, 1)):
        assert not one.model.training
        assert not any(p.requires_grad for p in one.model.parameters())


def test_half_precision_files_load_to_the_asked_type(tmp_path):
    half = ModelConfig(path=str(write_random_vlm(tmp_path / "half", dtype=torch.float16)))
    assert {p.dtype for p in load(half, 1).model.parameters()} == {torch.float32}
    for name, dtype in {"bfloat16": torch.bfloat16, "torch.float16": torch.float16}.items():
        found = load(half, None, dtype=name)
        assert {p.dtype for p in found.model.parameters()} == {dtype} == {found.dtype}


@pytest.mark.parametrize("dtype", ["int8", "float99", torch.int64])
def test_other_types_are_refused(config, dtype):
    with pytest.raises(ModelError, match="is not a floating-point type"):
        load(config, 0, dtype=dtype)


@pytest.mark.parametrize("layer", [-1, 2, -2, -4, [-1, 1], [1, -3], [0]])
def test_dropping_tower_blocks_keeps_the_features(tmp_path, make, layer):
    """The truncated tower, whose chosen layer is counted anew, projects what the whole tower projects."""
    folder = write_random_vlm(tmp_path / "m", vision_layers=3, n_layers=1)
    raw = json.loads((folder / "config.json").read_text())
    raw["vision_feature_layer"] = layer
    (folder / "config.json").write_text(json.dumps(raw))
    if isinstance(layer, list):
        tensors = load_file(folder / "model.safetensors")
        name = "multi_modal_projector.linear_1.weight"
        tensors[name] = torch.cat([tensors[name] * (i + 1) for i in range(len(layer))], dim=1).contiguous()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = ModelConfig(path=str(folder))
    prepared = [Preparer.from_path(config)(make(size=(40, 60)))]
    cut = load(config, 0)
    chosen = [i % 4 for i in (layer if isinstance(layer, list) else [layer])]
    assert len(cut.inner.vision_tower.encoder.layers) == max(1, *chosen)
    assert torch.equal(streams(cut, prepared, [0])[0], streams(load(config, None), prepared, [0])[0])


def test_names_of_old_checkpoints_load(folder, tmp_path, mixed, preparer, config):
    """The hub's checkpoints call the tower's blocks vision_tower.vision_model..."""
    old = shutil.copytree(folder, tmp_path / "old")
    tensors = load_file(old / "model.safetensors")
    renamed = {k.replace("vision_tower.", "vision_tower.vision_model."): v for k, v in tensors.items()}
    assert "language_model.model.layers.0.mlp.up_proj.weight" in renamed
    assert "vision_tower.vision_model.pre_layrnorm.weight" in renamed
    save_file(renamed, old / "model.safetensors", metadata={"format": "pt"})
    prepared = [preparer(mixed[1])]
    found = streams(load(ModelConfig(path=str(old)), 2), prepared, [2])[2]
    assert torch.equal(found, streams(load(config, 2), prepared, [2])[2])


def test_sharded_weights_load(vlm, tmp_path, folder, config, preparer, mixed):
    sharded = shutil.copytree(folder, tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    vlm.model.save_pretrained(sharded, max_shard_size="100KB")
    prepared = [preparer(mixed[0])]
    found = streams(load(ModelConfig(path=str(sharded)), 2), prepared, [2])[2]
    assert torch.equal(found, streams(load(config, 2), prepared, [2])[2])


def test_weights_that_lack_a_tensor_are_refused(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    del tensors["multi_modal_projector.linear_1.weight"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"linear_1\.weight' is missing"):
        load(ModelConfig(path=str(broken)), 1)


def test_a_depth_beyond_the_model_is_refused(config):
    with pytest.raises(ModelError, match=r"layer 9 does not exist: .* 0\.\.3"):
        load(config, 9)


def test_weights_of_another_shape_and_files_cut_short_are_one_clear_line(folder, tmp_path):
    for name in ("other", "short"):
        broken = shutil.copytree(folder, tmp_path / name)
        if name == "other":
            raw = json.loads((broken / "config.json").read_text())
            raw["text_config"]["intermediate_size"] = 64
            (broken / "config.json").write_text(json.dumps(raw))
        else:
            data = (broken / "model.safetensors").read_bytes()
            (broken / "model.safetensors").write_bytes(data[: len(data) // 2])
        with pytest.raises(ModelError, match="cannot load the weights of model") as caught:
            load(ModelConfig(path=str(broken)), 1)
        assert "\n" not in str(caught.value)
