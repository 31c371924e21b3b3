"""Over the space of configs that each official library can save: what we read encodes and rebuilds as theirs, or is refused.

They need their own environment (`make test-peers`); elsewhere every test here is skipped.
"""

import itertools
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from linrep.errors import FormatError
from linrep.sae import formats
from tests.peers.test_official import library
from tests.sae.saes import D, F, inputs

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
K = 5


def filled(module: torch.nn.Module, seed: int, threshold: float | None = None) -> torch.nn.Module:
    """The module with weights that no default hides behind: all random, thresholds of either sign unless one is given."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = (torch.randn(parameter.shape, generator=generator) * 0.5).to(parameter.dtype)
    if threshold is not None:
        module.threshold.fill_(threshold)  # pyright: ignore[reportCallIssue]
    return module


def agree(theirs: Any, z: torch.Tensor, rebuilt: torch.Tensor, folder: Path, close: float = 1e-4) -> None:
    mine, x = formats.read(folder), inputs()
    torch.testing.assert_close(mine.encode(x), z.float(), rtol=close, atol=close)
    torch.testing.assert_close(mine(x), rebuilt.float(), rtol=close, atol=close)
    assert mine.codes(x).values.count_nonzero() == (z > 0).sum(), theirs


SPACE = {
    "apply_b_dec_to_input": (True, False),
    "normalize_activations": ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm", "covariance_whitening"),
    "reshape_activations": ("none", "hook_z"),
    "dtype": ("float32", "float64", "bfloat16", "float16"),
    "device": ("cpu",),
    "metadata": (None, "full"),
}
"""Every field of theirs with every value that it may have; d_in and d_sae are given."""
OWN = {"k": (1, K, F), "rescale_acts_by_decoder_norm": (False, True)}
"""Fields of some architectures."""


def saelens_configs() -> list[tuple[str, Any, Any]]:
    """Every class of theirs that can be saved, with its config's class."""
    from sae_lens.registry import SAE_CLASS_REGISTRY

    return [(name, cls, config) for name, (cls, config) in SAE_CLASS_REGISTRY.items()]


def settings_of(config: Any) -> list[dict[str, Any]]:
    names = {field.name for field in fields(config)}
    if not names <= {*SPACE, *OWN, "d_in", "d_sae"}:
        return []  # of an architecture with parts of its own, which none here has
    space = {name: values for name, values in {**SPACE, **OWN}.items() if name in names}
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]


@torch.no_grad()
def test_every_saelens_config_is_read_equally_or_refused(tmp_path: Path) -> None:
    library("sae_lens")
    from sae_lens.saes.sae import SAEMetadata

    full = SAEMetadata(model_name="tiny", hook_name="blocks.2.hook_resid_post", prepend_bos=True, hook_head_index=None)
    n_equal, refused = 0, set()
    for architecture, cls, config in saelens_configs():
        for number, values in enumerate(settings_of(config)):
            values["metadata"] = SAEMetadata() if values["metadata"] is None else full
            if values["reshape_activations"] == "hook_z":
                values["metadata"] = SAEMetadata(hook_name="blocks.2.attn.hook_z")
            theirs = filled(cls(config(d_in=D, d_sae=F, **values)), number)
            folder = tmp_path / "one"
            theirs.save_model(folder)
            plain = values["normalize_activations"] == "none" and values["reshape_activations"] == "none"
            if not plain or architecture not in ("standard", "topk", "jumprelu", "gated"):
                with pytest.raises(FormatError) as caught:
                    formats.read(folder)
                assert "\n" not in str(caught.value)
                refused.add(architecture)
                continue
            loaded = cls.load_from_disk(folder).to(torch.float32)  # the numbers that the file holds, computed with precisely
            loaded.cfg.dtype, loaded.dtype = "float32", torch.float32
            z = loaded.encode(inputs())
            agree(values, z, loaded.decode(z), folder)
            n_equal += 1
    assert n_equal == 4 * 2 * 2 * (1 + 1 + 1 + 6)
    assert {"abstopk", "standard"} <= refused


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated", "batchtopk", "matryoshka_batchtopk"])
@torch.no_grad()
def test_what_saelens_saves_after_training_is_read_equally(architecture: str, tmp_path: Path) -> None:
    library("sae_lens")
    from sae_lens.registry import get_sae_training_class

    cls, config = get_sae_training_class(architecture)
    more = {"k": K} if "topk" in architecture else {}
    more |= {"matryoshka_widths": [10, F]} if "matryoshka" in architecture else {}
    theirs = filled(cls(config(d_in=D, d_sae=F, **more)), 1)
    if hasattr(theirs, "topk_threshold"):
        theirs.topk_threshold.fill_(0.7)  # pyright: ignore[reportCallIssue]
    theirs.save_inference_model(tmp_path)
    import sae_lens

    loaded = sae_lens.SAE.load_from_disk(tmp_path)
    z = loaded.encode(inputs())
    agree(architecture, z, loaded.decode(z), tmp_path)
    assert formats.read(tmp_path).about["training_architecture"] == architecture


OLD = {
    "architecture": (None, "standard", "topk", "jumprelu", "gated"),
    "activation": (None, ("activation_fn_str", "relu", {}), ("activation_fn_str", "topk", {"k": K}),
                   ("activation_fn", "tanh-relu", {})),
    "apply_b_dec_to_input": (None, True, False),
    "normalize_activations": (None, False, "none", True),
    "scaling_factor": (None, 1.0, 2.0),
}  # fmt: skip
"""The flat cfg.json of releases before 6.0.0; None leaves a field out."""


@torch.no_grad()
def test_every_old_saelens_config_is_read_equally_or_refused(tmp_path: Path) -> None:
    sae_lens = library("sae_lens")
    from safetensors.torch import save_file

    n_equal, topk_of_standard = 0, 0
    for architecture, activation, centred, normalised, factor in itertools.product(*OLD.values()):
        made = architecture or "standard"
        name = {"standard": "Standard", "topk": "TopK", "jumprelu": "JumpReLU", "gated": "Gated"}[made]
        theirs = filled(getattr(sae_lens, f"{name}SAE")(getattr(sae_lens, f"{name}SAEConfig")(d_in=D, d_sae=F)), 3)
        config = {"d_in": D, "d_sae": F, "dtype": "torch.float32", "hook_point": "blocks.2.hook_resid_pre", "model_name": "tiny"}
        if activation is not None:
            config |= {activation[0]: activation[1], "activation_fn_kwargs": activation[2]}
        values = {"architecture": architecture, "apply_b_dec_to_input": centred, "normalize_activations": normalised}
        config |= {field: value for field, value in values.items() if value is not None}
        tensors = {key: tensor.contiguous() for key, tensor in theirs.state_dict().items()}
        save_file(
            tensors | ({} if factor is None else {"scaling_factor": torch.full((F,), factor)}),
            tmp_path / "sae_weights.safetensors",
        )
        (tmp_path / "cfg.json").write_text(json.dumps(config | {"finetuning_scaling_factor": factor == 2.0}))
        try:
            mine = formats.read(tmp_path)
        except FormatError:
            continue
        loaded = sae_lens.SAE.load_from_disk(tmp_path)
        z = loaded.encode(inputs())
        agree(config, z, loaded.decode(z), tmp_path)
        n_equal += 1
        topk_of_standard += mine.rule.kind == "topk" and made == "standard"
        assert (mine.about["model_name"], mine.about["hook_name"]) == ("tiny", "blocks.2.hook_resid_pre")
    assert topk_of_standard == 2 * 3 * 3 * 2
    assert n_equal == topk_of_standard + (2 + 1 + 1) * 2 * 3 * 3 * 2 + 1 * 3 * 3 * 2


CLASSES = ("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE", "GatedAutoEncoder",
           "JumpReluAutoEncoder")  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_every_dictionary_learning_class_is_read_equally(name: str, threshold: float, dtype: str, tmp_path: Path) -> None:
    library("dictionary_learning")
    from dictionary_learning import utils

    for k, groups in itertools.product((1, K, F), ([F], [10, F - 10])):
        extra = {"AutoEncoderTopK": (k,), "BatchTopKSAE": (k,), "MatryoshkaBatchTopKSAE": (k, groups)}.get(name, ())
        scalar = threshold if "TopK" in name else None
        theirs: Any = filled(getattr(utils, name)(D, F, *extra), k, scalar)
        state = {key: t.to(getattr(torch, dtype)) if t.is_floating_point() else t for key, t in theirs.state_dict().items()}
        theirs.load_state_dict(state)
        torch.save(state, tmp_path / "ae.pt")
        trainer = {"dict_class": name, "activation_dim": D, "dict_size": F, "lr": 1e-3, "seed": 0} | ({"k": k} if extra else {})
        (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"io": "out", "d_submodule": D}}))
        z = theirs.encode(inputs())
        agree(name, z, theirs.decode(z), tmp_path)


@torch.no_grad()
def test_every_dictionary_learning_trainer_says_what_we_know() -> None:
    """The fields of their trainers' configs, read from their source: none is unknown to us."""
    library("dictionary_learning")
    import re

    import dictionary_learning.trainers as trainers

    from linrep.sae.formats.dictionary_learning import TRAINED

    known = {*TRAINED, "dict_class", "activation_dim", "dict_size", "k", "group_sizes", "layer", "lm_name", "submodule_name"}
    for file in Path(trainers.__path__[0]).glob("*.py"):
        for body in re.findall(r"def config\(self\):\n\s+return \{(.*?)\}", file.read_text(), re.S):
            assert set(re.findall(r"^\s*['\"](\w+)['\"]\s*:", body, re.M)) <= known, file.name


@torch.no_grad()
def test_every_sparsify_config_is_read_equally_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        monkeypatch.setenv("SPARSIFY_DISABLE_TRITON", "1")  # else it launches CUDA kernels wherever Triton is installed
    library("sparsify")
    from sparsify import SparseCoder
    from sparsify.config import SparseCoderConfig

    space = {
        "activation": ("topk", "groupmax"), "expansion_factor": (1, 3), "normalize_decoder": (True, False),
        "num_latents": (0, 40), "k": (1, K), "multi_topk": (False, True), "skip_connection": (False, True),
        "transcode": (False, True),
    }  # fmt: skip
    assert set(space) == {field.name for field in fields(SparseCoderConfig)}
    n_equal = 0
    for number, values in enumerate(itertools.product(*space.values())):
        config: dict[str, Any] = dict(zip(space, values, strict=True))
        theirs = SparseCoder(D, SparseCoderConfig(**config))
        filled(theirs, number)
        theirs.save_to_disk(tmp_path / "layers.2")
        if config["activation"] == "groupmax" or config["skip_connection"] or config["transcode"]:
            with pytest.raises(FormatError, match=r"activation|skip_connection|transcode"):
                formats.read(tmp_path / "layers.2")
            continue
        found = theirs.encode(inputs())
        z = torch.zeros(len(inputs()), theirs.num_latents).scatter(1, found.top_indices, found.top_acts)
        agree(config, z, theirs.decode(found.top_acts, found.top_indices), tmp_path / "layers.2")
        n_equal += 1
    assert n_equal == 2**5
