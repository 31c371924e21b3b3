"""Every format round-trips, and reads what its own library wrote by the letter of its description."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from linrep.errors import FormatError
from linrep.places import place
from linrep.sae import formats
from linrep.sae.architectures import Above, Largest
from linrep.sae.formats import dictionary_learning, paper, saelens, sparsify
from tests.sae.saes import KINDS, D, F, inputs, make_sae

each = pytest.mark.parametrize("kind", KINDS)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@each
@pytest.mark.parametrize("centred", [True, False])
def test_saelens_round_trip_is_exact(kind: str, centred: bool, tmp_path: Path) -> None:
    sae, x = make_sae(kind, centred), inputs()
    firing = torch.linspace(0, 1, F)
    saelens.write(place(tmp_path), sae, firing)
    back = formats.read(tmp_path)
    assert torch.equal(back.encode(x), sae.encode(x))
    assert torch.equal(back(x), sae(x))
    assert back.about["layer"] == 3
    torch.testing.assert_close(10 ** load_file(tmp_path / "sparsity.safetensors")["sparsity"], firing)


@each
def test_saelens_files_have_its_names_and_shapes(kind: str, tmp_path: Path) -> None:
    saelens.write(place(tmp_path), make_sae(kind))
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "sae_weights.safetensors").items()}
    expected = {"W_enc": (D, F), "W_dec": (F, D), "b_dec": (D,)}
    expected |= {
        "relu": {"b_enc": (F,)}, "topk": {"b_enc": (F,)}, "jumprelu": {"b_enc": (F,), "threshold": (F,)},
        "gated": {"b_gate": (F,), "r_mag": (F,), "b_mag": (F,)},
    }[kind]  # fmt: skip
    assert shapes == expected
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == {"relu": "standard"}.get(kind, kind)
    assert tuple(map(int, config["metadata"]["sae_lens_version"].split("."))) >= (6, 0, 0)
    assert config["normalize_activations"] == "none"


def test_saelens_weighted_activations_become_unit_rows(tmp_path: Path) -> None:
    """With rescale_acts_by_decoder_norm, sizes are compared times the norm of the decoder's row, and decoded without it."""
    sae, x = make_sae("topk"), inputs()
    saelens.write(place(tmp_path), sae)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "rescale_acts_by_decoder_norm": True}))
    back = formats.read(tmp_path)
    norms = sae.decoder.norm(dim=1)
    pre = ((x - sae.b_dec) @ sae.encoder.T + sae.b_enc) * norms
    top = pre.topk(5, dim=1)
    z = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    torch.testing.assert_close(back.encode(x), z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(back(x), (z / norms) @ sae.decoder + sae.b_dec, rtol=1e-4, atol=1e-4)


@each
@pytest.mark.parametrize("centred", [True, False])
def test_dictionary_learning_round_trip(kind: str, centred: bool, tmp_path: Path) -> None:
    sae, x = make_sae(kind, centred), inputs()
    dictionary_learning.write(place(tmp_path), sae)
    back = formats.read(tmp_path)
    torch.testing.assert_close(back(x), sae(x), rtol=1e-4, atol=1e-4)
    same = sae.with_unit_decoder() if kind == "relu" else sae  # theirs rescales rows that are not unit when it loads them
    torch.testing.assert_close(back.encode(x), same.encode(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "threshold"), [("BatchTopKSAE", 0.7), ("BatchTopKSAE", -1.0), ("MatryoshkaBatchTopKSAE", 0.7)])
def test_dictionary_learning_batch_top_k_is_a_threshold_for_all(name: str, threshold: float, tmp_path: Path) -> None:
    sae, x = make_sae("relu"), inputs()
    state = {"k": torch.tensor(5), "threshold": torch.tensor(threshold), "b_dec": sae.b_dec}
    if name == "BatchTopKSAE":
        state |= {"encoder.weight": sae.encoder, "encoder.bias": sae.b_enc, "decoder.weight": sae.decoder.T}
    else:
        state |= {"W_enc": sae.encoder.T, "b_enc": sae.b_enc, "W_dec": sae.decoder, "group_sizes": torch.tensor([10, 30])}
    torch.save(state, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, "k": 5, "layer": 3}, "buffer": {}}))
    back = formats.read(tmp_path)
    assert isinstance(back.rule, Above)
    relu = ((x - sae.b_dec) @ sae.encoder.T + sae.b_enc).relu()
    torch.testing.assert_close(back.encode(x), relu * (relu > threshold), **CLOSE)
    saelens.write(place(tmp_path / "converted"), back)
    assert load_file(tmp_path / "converted" / "sae_weights.safetensors")["threshold"].tolist() == pytest.approx([threshold] * F)
    torch.testing.assert_close(formats.read(tmp_path / "converted").encode(x), back.encode(x))


@pytest.mark.parametrize("centred", [True, False])
def test_sparsify_round_trip_as_a_folder_for_each_layer(centred: bool, tmp_path: Path) -> None:
    sae, x = make_sae("topk", centred), inputs()
    sparsify.write(place(tmp_path / "layers.3"), sae)
    back = formats.read(tmp_path / "layers.3")
    torch.testing.assert_close(back.encode(x), sae.encode(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(back(x), sae(x), rtol=1e-4, atol=1e-4)
    assert back.about["hook_name"] == "layers.3"


def test_sparsify_counts_latents_by_expansion_when_told_none(tmp_path: Path) -> None:
    sae = make_sae("topk")
    square = {"encoder.weight": sae.encoder[:36], "encoder.bias": sae.b_enc[:36], "W_dec": sae.decoder[:36], "b_dec": sae.b_dec}
    save_file({name: tensor.contiguous() for name, tensor in square.items()}, tmp_path / "sae.safetensors")
    config = {"activation": "topk", "expansion_factor": 3, "num_latents": 0, "k": 5, "d_in": D, "transcode": False}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    assert formats.read(tmp_path).n_latents == 36
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "expansion_factor": 4}))
    with pytest.raises(FormatError, match=r"encoder of \(36, 12\), cfg.json says \(48, 12\)"):
        formats.read(tmp_path)


def test_sparsify_takes_top_k_only(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="TopK SAEs, this one is jumprelu"):
        sparsify.write(place(tmp_path), make_sae("jumprelu"))


def test_the_papers_pickle_takes_raw_activations(tmp_path: Path) -> None:
    """Trained on x * sqrt(d) / norm, the norm being in the file's name, weights of a data-parallel module."""
    sae, x = make_sae("relu", centred=False), inputs()
    state = {"module.fc1.weight": sae.encoder, "module.fc1.bias": sae.b_enc, "module.fc2.weight": sae.decoder.T}
    torch.save({**state, "module.fc2.bias": sae.b_dec}, tmp_path / "sae_final_layer24_8x_norm13.996978.pkl")
    back = formats.read(tmp_path / "sae_final_layer24_8x_norm13.996978.pkl")
    scale = D**0.5 / 13.996978
    f = (scale * x @ sae.encoder.T + sae.b_enc).relu()
    torch.testing.assert_close(back.encode(x), f, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(back(x), (f @ sae.decoder + sae.b_dec) / scale, rtol=1e-4, atol=1e-4)
    assert back.about["layer"] == 24
    (tmp_path / "sae_final_layer24_8x_norm13.996978.pkl").rename(tmp_path / "sae.pkl")
    with pytest.raises(FormatError, match="scale of its inputs is unknown"):
        paper.read(place(tmp_path / "sae.pkl"))


class Trap:
    def __reduce__(self):
        return (open, ("/tmp/never", "w"))


@pytest.mark.parametrize("name", ["x_norm1.0.pkl", "ae.pt"])
def test_a_pickle_that_would_run_code_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"fc1.weight": Trap()}, protocol=2))
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoder"}}))
    with pytest.raises(FormatError, match="nothing more is unpickled"):
        formats.read(tmp_path / name if name.endswith("pkl") else tmp_path)


def test_what_cannot_be_read_is_one_line_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no SAE at"):
        formats.read(tmp_path)
    saelens.write(place(tmp_path), make_sae("topk"))
    config = json.loads((tmp_path / "cfg.json").read_text())
    for change, match in (
        ({"architecture": "temporal"}, "architecture 'temporal'"),
        ({"normalize_activations": "layer_norm"}, "normalises activations"),
        ({"architecture": "jumprelu"}, "lacks threshold"),
    ):
        (tmp_path / "cfg.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(FormatError, match=match) as caught:
            formats.read(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / "sae_weights.safetensors").write_bytes(b"123")
    with pytest.raises(FormatError, match="cannot read"):
        formats.read(tmp_path)


def test_formats_agree_with_each_other(tmp_path: Path) -> None:
    sae, x = make_sae("topk"), inputs()
    assert isinstance(sae.rule, Largest)
    for name, writer in (("a", saelens), ("b", dictionary_learning), ("c", sparsify)):
        writer.write(place(tmp_path / name), sae)
        torch.testing.assert_close(formats.read(tmp_path / name).encode(x), sae.encode(x), **CLOSE)
