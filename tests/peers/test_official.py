"""The official libraries load what we write and give the same latents; we read what they write likewise.

They need their own environment (`make test-peers`): their pins do not go with ours. Elsewhere every test here is skipped.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

from linrep.places import place
from linrep.sae import formats
from linrep.sae.architectures.matching_pursuit import Pursuit
from linrep.sae.formats import dictionary_learning, saelens, sparsify
from linrep.sae.sae import Sae
from tests.sae.saes import KINDS, D, F, inputs, make_sae

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
each = pytest.mark.parametrize("kind", KINDS)
both = pytest.mark.parametrize("centred", [True, False])


def library(name: str):
    """A module of an official library; skips where it is not installed."""
    try:
        version({"sae_lens": "sae-lens", "dictionary_learning": "dictionary-learning", "sparsify": "eai-sparsify"}[name])
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed here: `make test-peers` has it")
    import importlib

    return importlib.import_module(name)


def same(theirs, mine, x: torch.Tensor) -> None:
    torch.testing.assert_close(theirs.encode(x), mine.encode(x), **CLOSE)
    torch.testing.assert_close(theirs.decode(theirs.encode(x)), mine(x), **CLOSE)


@each
@both
@torch.no_grad()
def test_saelens_loads_ours(kind: str, centred: bool, tmp_path: Path) -> None:
    sae_lens = library("sae_lens")
    sae = make_sae(kind, centred)
    saelens.write(place(tmp_path), sae, torch.linspace(0, 1, F))
    loaded = sae_lens.SAE.load_from_disk(tmp_path)
    same(loaded, sae, inputs())
    assert loaded.cfg.metadata.model_name == "tiny"


@each
@torch.no_grad()
def test_we_load_saelens(kind: str, tmp_path: Path) -> None:
    sae_lens = library("sae_lens")
    name = {"relu": "Standard", "topk": "TopK", "jumprelu": "JumpReLU", "gated": "Gated"}[kind]
    cls, config = getattr(sae_lens, f"{name}SAE"), getattr(sae_lens, f"{name}SAEConfig")
    more = {"k": 5, "rescale_acts_by_decoder_norm": True} if kind == "topk" else {}
    theirs = cls(config(d_in=D, d_sae=F, dtype="float32", device="cpu", apply_b_dec_to_input=kind != "gated", **more))
    for parameter in theirs.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter))) * 0.5
    theirs.save_model(tmp_path)
    same(theirs, formats.read(tmp_path), inputs())


@each
@both
@torch.no_grad()
def test_dictionary_learning_loads_ours(kind: str, centred: bool, tmp_path: Path) -> None:
    library("dictionary_learning")
    from dictionary_learning.utils import load_dictionary

    sae = make_sae(kind, centred)
    sae = sae.with_unit_decoder() if kind == "relu" else sae
    dictionary_learning.write(place(tmp_path), sae)
    loaded, _ = load_dictionary(str(tmp_path), "cpu")
    x = inputs()
    torch.testing.assert_close(loaded.encode(x), sae.encode(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loaded(x), sae(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE", "GatedAutoEncoder", "JumpReluAutoEncoder"]
)
@torch.no_grad()
def test_we_load_dictionary_learning(name: str, tmp_path: Path) -> None:
    library("dictionary_learning")
    import json

    from dictionary_learning import utils

    cls = getattr(utils, name)
    extra = {"AutoEncoderTopK": (5,), "BatchTopKSAE": (5,), "MatryoshkaBatchTopKSAE": (5, [10, F - 10])}.get(name, ())
    theirs = cls(D, F, *extra)
    for parameter in theirs.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.5
    if name in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        theirs.threshold.fill_(0.8)
    torch.save(theirs.state_dict(), tmp_path / "ae.pt")
    trainer = {"dict_class": name, "activation_dim": D, "dict_size": F} | ({"k": 5} if extra else {})
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    mine = formats.read(tmp_path)
    same(theirs, mine, inputs())
    # And on to SAELens, by the conversions of the format's description.
    saelens.write(place(tmp_path / "lens"), mine)
    same(library("sae_lens").SAE.load_from_disk(tmp_path / "lens"), mine, inputs())


@both
@torch.no_grad()
def test_sparsify_and_we_load_each_other(centred: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        monkeypatch.setenv("SPARSIFY_DISABLE_TRITON", "1")  # else it launches CUDA kernels wherever Triton is installed
    library("sparsify")
    from sparsify import SparseCoder

    sae, x = make_sae("topk", centred), inputs()
    sparsify.write(place(tmp_path / "layers.3"), sae)
    theirs = SparseCoder.load_from_disk(tmp_path / "layers.3")
    found = theirs.encode(x)
    z = torch.zeros(len(x), F).scatter(1, found.top_indices, found.top_acts)
    torch.testing.assert_close(z, sae.encode(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs.decode(found.top_acts, found.top_indices), sae(x), rtol=1e-4, atol=1e-4)
    theirs.save_to_disk(tmp_path / "theirs")
    back = formats.read(tmp_path / "theirs")
    torch.testing.assert_close(back.encode(x), z, rtol=1e-4, atol=1e-5)
    # SAELens itself loads these wrongly; through our converter it does not.
    saelens.write(place(tmp_path / "lens"), back)
    same(library("sae_lens").SAE.load_from_disk(tmp_path / "lens"), back, x)


@torch.no_grad()
def test_saelens_and_we_load_each_others_matching_pursuit(tmp_path: Path) -> None:
    sae_lens = library("sae_lens")
    decoder = torch.nn.functional.normalize(torch.randn(F, D, generator=torch.Generator().manual_seed(0)), dim=1)
    for rule in (Pursuit(5), Pursuit(60, least=1.5), Pursuit(60, stops_on_repeat=True)):
        mine = Sae(decoder, torch.zeros(F), decoder, torch.linspace(-1, 1, D), rule, sees_centred=True)
        saelens.write(place(tmp_path / "ours"), mine)
        theirs = sae_lens.SAE.load_from_disk(tmp_path / "ours")
        same(theirs, mine, inputs())
        theirs.save_model(tmp_path / "theirs")
        same(theirs, formats.read(tmp_path / "theirs"), inputs())
