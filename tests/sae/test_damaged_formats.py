"""In every format each field and each tensor is honoured or refused by name, and damage is one line that names the file."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from linrep.errors import FormatError
from linrep.places import place
from linrep.sae import formats
from linrep.sae.formats import dictionary_learning, saelens, sparsify
from linrep.sae.sae import Sae
from tests.sae.saes import KINDS, D, F, inputs, make_sae

WRONG = (None, "x", "", -1, 0, 9999, 10**400, 2.5, True, False, [], [1], {}, {"k": 3}, float("nan"))
"""A value of every kind that JSON has."""
STATE = {"encoder.weight": (F, D), "encoder.bias": (F,), "decoder.weight": (D, F), "b_dec": (D,)}


def write_saelens(kind: str, folder: Path) -> tuple[Path, Path]:
    saelens.write(place(folder), make_sae(kind))
    return folder / "cfg.json", folder / "sae_weights.safetensors"


def write_dictionary_learning(kind: str, folder: Path) -> tuple[Path, Path]:
    """As theirs: those with a threshold for all besides ours."""
    sae = make_sae({"batch_topk": "topk", "matryoshka": "topk"}.get(kind, kind))
    dictionary_learning.write(place(folder), sae)
    config, file = folder / "config.json", folder / "ae.pt"
    if kind in ("batch_topk", "matryoshka"):
        value = json.loads(config.read_text())
        value["trainer"]["dict_class"] = "BatchTopKSAE" if kind == "batch_topk" else "MatryoshkaBatchTopKSAE"
        config.write_text(json.dumps(value))
        state = torch.load(file) | {"threshold": torch.tensor(0.5)}
        if kind == "matryoshka":
            state = {"W_enc": sae.encoder.t(), "b_enc": sae.b_enc, "W_dec": sae.decoder, "b_dec": sae.b_dec,
                     "k": state["k"], "threshold": state["threshold"], "group_sizes": torch.tensor([10, F - 10])}  # fmt: skip
        torch.save(state, file)
    return config, file


def write_sparsify(_: str, folder: Path) -> tuple[Path, Path]:
    sparsify.write(place(folder), make_sae("topk"))
    return folder / "cfg.json", folder / "sae.safetensors"


CASES: list[tuple[str, Callable[[str, Path], tuple[Path, Path]]]] = [
    *((kind, write_saelens) for kind in KINDS),
    *((kind, write_dictionary_learning) for kind in (*KINDS, "batch_topk", "matryoshka")),
    ("topk", write_sparsify),
]
every = pytest.mark.parametrize(("kind", "write"), CASES, ids=[f"{write.__name__[6:]}-{kind}" for kind, write in CASES])


def load_tensors(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file) if file.suffix == ".pt" else load_file(file)


def save_tensors(tensors: dict[str, torch.Tensor], file: Path) -> None:
    if file.suffix == ".pt":
        torch.save(tensors, file)
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def refusal(where: Path) -> str | None:
    """What reading says, None where it reads; anything but one line that names the folder fails."""
    said = None
    try:
        formats.read(where)
    except FormatError as error:
        said = str(error)
    if said is not None:
        assert "\n" not in said
        assert len(said) < 1000
        assert str(where) in said
    return said


def same(one: Sae, other: Sae) -> bool:
    x = inputs()
    return torch.equal(one.encode(x), other.encode(x)) and torch.equal(one(x), other(x))


def fields(value: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, inner in value.items():
        yield (name,)
        if isinstance(inner, dict):
            yield from ((name, *path) for path in fields(inner))


def changed(value: dict[str, Any], path: tuple[str, ...], new: Any, drop: bool = False) -> dict[str, Any]:
    copy = json.loads(json.dumps(value))
    holder = copy
    for name in path[:-1]:
        holder = holder[name]
    if drop:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return copy


@every
def test_a_field_that_is_missing_or_wrong_is_honoured_or_refused_by_name(
    kind: str, write: Callable[[str, Path], tuple[Path, Path]], tmp_path: Path
) -> None:
    """Whatever is read after a change is the same SAE, but for the fields that say otherwise: k, and what the encoder sees."""
    config, _ = write(kind, tmp_path)
    value, before = json.loads(config.read_text()), formats.read(tmp_path)
    for path in fields(value):
        for new, drop in ((None, True), *((one, False) for one in WRONG)):
            config.write_text(json.dumps(changed(value, path, new, drop)))
            said = refusal(tmp_path)
            if said is None:
                honoured = path[-1] in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm") or (path[-1] == "k" and new == 1)
                assert honoured or same(formats.read(tmp_path), before), (path, new)
            elif not drop and path[0] != "metadata" and new is not None:
                assert path[-1] in said or new in ({}, {"k": 3}, "x", ""), (said, path, new)  # a word that is none is shown
    config.write_text(json.dumps({**value, "surprise": 1}))
    assert "surprise" in (refusal(tmp_path) or "")


@every
def test_a_tensor_that_is_missing_or_wrong_is_refused_by_name(
    kind: str, write: Callable[[str, Path], tuple[Path, Path]], tmp_path: Path
) -> None:
    _, file = write(kind, tmp_path)
    tensors, before = load_tensors(file), formats.read(tmp_path)
    for name, tensor in tensors.items():
        whole = not tensor.is_floating_point()
        wrong = {
            "integer": tensor.float() if whole else tensor.to(torch.int32),
            "bool": tensor.bool(),
            "empty": tensor.new_zeros(0),
            "longer": torch.cat([tensor.reshape(-1), tensor.reshape(-1)[:1]]),
            "deeper": tensor[None, None],
        }
        if tensor.dim() == 2:
            wrong |= {"transposed": tensor.t(), "row": tensor[0]}
        if not whole:
            for number in (float("nan"), float("inf"), -float("inf")):
                spoilt = tensor.clone()
                spoilt[(-1,) * tensor.dim()] = number
                wrong[str(number)] = spoilt
        elif name == "k":
            wrong |= {"none": tensor * 0, "negative": -tensor, "too many": tensor * 0 + F + 1}
        else:
            wrong |= {"of others": tensor + 1, "negative": tensor - 20}
        for what, bad in wrong.items():
            save_tensors({**tensors, name: bad}, file)
            assert name in (refusal(tmp_path) or ""), (name, what)
        save_tensors({other: kept for other, kept in tensors.items() if other != name}, file)
        said = refusal(tmp_path)
        assert name in (said or "") or (said is None and same(formats.read(tmp_path), before)), (
            name
        )  # k stands in the config, too
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            save_tensors({**tensors, name: tensor if whole else tensor.to(dtype)}, file)
            assert formats.read(tmp_path).encoder.dtype == torch.float32
    save_tensors({**tensors, "W_skip": torch.zeros(D, D)}, file)
    assert "W_skip" in (refusal(tmp_path) or "")


@every
def test_a_damaged_file_is_one_line_that_names_it(
    kind: str, write: Callable[[str, Path], tuple[Path, Path]], tmp_path: Path
) -> None:
    config, file = write(kind, tmp_path)
    text, content = config.read_bytes(), file.read_bytes()
    listed = {"a list": b"[1, 2]", "a number": b"3", "null": b"null", "nothing": b"", "half": text[: len(text) // 2],
              "no UTF-8": b"\xff\xfe{}", "deep": b"[" * 100_000, "digits": b'{"k": ' + b"1" * 5000 + b"}"}  # fmt: skip
    for what, damaged in listed.items():
        config.write_bytes(damaged)
        assert config.name in (refusal(tmp_path) or ""), what
    config.write_bytes(text)
    for cut in (0, 1, 7, 8, 20, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:cut])
        assert file.name in (refusal(tmp_path) or ""), cut
    generator = torch.Generator().manual_seed(0)
    for at in torch.randint(min(400, len(content)), (40,), generator=generator).tolist():
        file.write_bytes(content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :])
        refusal(tmp_path)  # read or refused, but never another error
    file.unlink()
    assert "no SAE at" in (refusal(tmp_path) or "")
    file.write_bytes(content)
    config.unlink()
    assert config.name in (refusal(tmp_path) or "")


@pytest.mark.parametrize(
    ("field", "value"),
    [("signed", True), ("transcode", True), ("skip_connection", True), ("activation", "groupmax"), ("activation", "relu"),
     ("k", F + 1), ("k", 9999), ("k", 0), ("k", -3), ("num_latents", F + 1), ("d_in", D + 1), ("multi_topk", 1)],
)  # fmt: skip
def test_what_sparsify_does_and_we_do_not_is_refused_by_name(field: str, value: Any, tmp_path: Path) -> None:
    config, _ = write_sparsify("topk", tmp_path)
    config.write_text(json.dumps({**json.loads(config.read_text()), field: value}))
    said = refusal(tmp_path) or ""
    assert field in said or "says" in said


@pytest.mark.parametrize(
    ("change", "named"),
    [({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 8}}, None),
     ({"activation_fn": "topk", "activation_fn_kwargs": {"k": F + 1}}, "k is 41"),
     ({"activation_fn": "topk", "activation_fn_kwargs": {}}, "lacks k"),
     ({"activation_fn": "topk", "activation_fn_kwargs": {"k": 8, "j": 1}}, "activation_fn_kwargs.j"),
     ({"activation_fn": "topk", "activation_fn_str": "topk"}, "activation_fn_str and activation_fn"),
     ({"activation_fn": "tanh-relu"}, "tanh-relu"), ({"activation_fn": "relu", "activation_fn_kwargs": {"k": 8}}, "kwargs"),
     ({"normalize_activations": True}, "normalize_activations"), ({"normalize_activations": "layer_norm"}, "layer_norm"),
     ({"reshape_activations": "hook_z"}, "reshape_activations"), ({"hook_name": "blocks.1.attn.hook_z"}, "hook_z"),
     ({"finetuning_scaling_factor": True}, "scaling_factor"), ({"hook_point_head_index": 3}, "hook_head_index"),
     ({"architecture": "abstopk"}, "abstopk"), ({"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm"),
     ({"metadata": {"sae_lens_version": "6.1.0"}, "activation_fn": "topk"}, "activation_fn"),
     ({"metadata": {"sae_lens_version": "new"}}, "sae_lens_version"),
     ({"model_name": "a", "metadata": {"model_name": "b"}}, "model_name")],
)  # fmt: skip
def test_old_saelens_cfgs_are_read_by_what_each_field_means(change: dict[str, Any], named: str | None, tmp_path: Path) -> None:
    """Before 6.0.0 a TopK SAE was of architecture "standard", its activation a field of its own."""
    sae, x = make_sae("relu"), inputs()
    saelens.write(place(tmp_path), sae)
    (tmp_path / "cfg.json").write_text(
        json.dumps({"architecture": "standard", "d_in": D, "d_sae": F, "dtype": "float32"} | change)
    )
    if named is not None:
        assert named in (refusal(tmp_path) or "")
        return
    back = formats.read(tmp_path)
    z = (x - sae.b_dec) @ sae.encoder.T + sae.b_enc
    top = z.topk(8, dim=1)
    torch.testing.assert_close(back.encode(x), torch.zeros_like(z).scatter(1, top.indices, top.values.relu()))
    assert (back.encode(x) > 0).sum(1).max() == 8


def test_weights_that_were_trained_are_read_as_plain_numbers(tmp_path: Path) -> None:
    """A state dict of parameters asks for no gradients here."""
    _, file = write_dictionary_learning("topk", tmp_path)
    state = {name: torch.nn.Parameter(t) if t.is_floating_point() else t for name, t in torch.load(file).items()}
    torch.save(state, file)
    back = formats.read(tmp_path)
    assert not back.encode(inputs()).requires_grad
    assert back.digest


def test_two_formats_in_a_folder_are_refused(tmp_path: Path) -> None:
    write_saelens("topk", tmp_path)
    write_dictionary_learning("relu", tmp_path)
    assert "ae.pt" in (refusal(tmp_path) or "")


@pytest.mark.parametrize("name", ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"])
def test_the_papers_tensors_are_held_to_their_shapes(name: str, tmp_path: Path) -> None:
    sae, file = make_sae("relu"), tmp_path / "sae_layer3_norm2.0.pkl"
    state = {"fc1.weight": sae.encoder, "fc1.bias": sae.b_enc, "fc2.weight": sae.decoder.t(), "fc2.bias": sae.b_dec}
    wrong = (None, state[name][:-1], state[name] * float("nan"), state[name].long(), state[name].flatten()[None])
    for bad in wrong:
        torch.save({key: value for key, value in {**state, name: bad}.items() if value is not None}, file)
        with pytest.raises(FormatError, match=name.split(".")[0]) as caught:
            formats.read(file)
        assert str(file) in str(caught.value)
    torch.save({**state, "fc3.bias": sae.b_dec}, file)
    with pytest.raises(FormatError, match=r"fc3\.bias"):
        formats.read(file)
    torch.save(state, tmp_path / "sae_norm0.0.pkl")
    with pytest.raises(FormatError, match="scale of its inputs"):
        formats.read(tmp_path / "sae_norm0.0.pkl")
