"""dictionary_learning: ae.pt, a pickled state dict, and config.json; one class of theirs per architecture.

Their AutoEncoder, TopK, BatchTopK, Matryoshka and Gated see x minus the bias, their JumpReLU sees x. Their loader of AutoEncoder
rescales decoder rows to norm 1 and so changes latents, unless they have it already: we write them so.
"""

from typing import Any, assert_never

import torch
from torch import Tensor

from linrep.errors import FormatError
from linrep.places import Place
from linrep.sae.coder import Above, Gate, Largest, Rectify, Rule, Sae
from linrep.sae.formats.files import pick, read_json, read_pickle, write_pickle

CONFIG, WEIGHTS = "config.json", "ae.pt"
BIASES = {"AutoEncoder": "bias", "AutoEncoderTopK": "b_dec", "BatchTopKSAE": "b_dec", "GatedAutoEncoder": "decoder_bias"}


def write(folder: Place, sae: Sae) -> None:
    """Write a dictionary; one with thresholds becomes their JumpReLU."""
    match sae.rule:
        case Rectify():
            name, sae = "AutoEncoder", sae.with_unit_decoder().seeing(centred=True)
            tensors = _linear(sae) | {"encoder.bias": sae.b_enc, "bias": sae.b_dec}
        case Largest(k=k):
            name, sae = "AutoEncoderTopK", sae.seeing(centred=True)
            unset = {"k": torch.tensor(k, dtype=torch.int32), "threshold": torch.tensor(-1.0)}
            tensors = _linear(sae) | {"encoder.bias": sae.b_enc, "b_dec": sae.b_dec} | unset
        case Above(threshold=threshold):
            name, sae = "JumpReluAutoEncoder", sae.seeing(centred=False)
            matrices = {"W_enc": sae.encoder.t(), "W_dec": sae.decoder}
            tensors = matrices | {"b_enc": sae.b_enc, "b_dec": sae.b_dec, "threshold": threshold}
        case Gate():
            name, sae = "GatedAutoEncoder", sae.seeing(centred=True)
            assert isinstance(sae.rule, Gate)
            paths = {"gate_bias": sae.b_enc, "mag_bias": sae.rule.b_mag, "r_mag": sae.rule.r_mag}
            tensors = _linear(sae) | paths | {"decoder_bias": sae.b_dec}
        case _:
            assert_never(sae.rule)
    trainer: dict[str, Any] = {
        "dict_class": name,
        "activation_dim": sae.d_model,
        "dict_size": sae.n_latents,
        "layer": sae.about.get("layer"),
        "lm_name": sae.about.get("model_name"),
        "submodule_name": sae.about.get("hook_name"),
    }
    if isinstance(sae.rule, Largest):
        trainer["k"] = sae.rule.k
    write_pickle(folder / WEIGHTS, tensors)
    (folder / CONFIG).write_json({"trainer": trainer, "buffer": {}})


def read(folder: Place) -> Sae:
    """Read a dictionary.

    Raises:
        FormatError: A file is missing or damaged, or the class is not known.
    """
    trainer, file = read_json(folder / CONFIG).get("trainer", {}), folder / WEIGHTS
    tensors, name = read_pickle(file), trainer.get("dict_class")
    about = {
        key: value
        for key, value in {
            "architecture": name, "model_name": trainer.get("lm_name"), "layer": trainer.get("layer"),
            "hook_name": trainer.get("submodule_name"),
        }.items()
        if value is not None
    }  # fmt: skip
    if name in BIASES:
        encoder, decoder, b_dec = pick(tensors, file, "encoder.weight", "decoder.weight", BIASES[name])
        decoder = decoder.t().contiguous()
        (b_enc,) = pick(tensors, file, "gate_bias" if name == "GatedAutoEncoder" else "encoder.bias")
    elif name in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"):
        encoder, b_enc, decoder, b_dec = pick(tensors, file, "W_enc", "b_enc", "W_dec", "b_dec")
        encoder = encoder.t().contiguous()
    else:
        raise FormatError(
            f"{folder} holds a {name!r}: known are {', '.join(BIASES)}, MatryoshkaBatchTopKSAE, JumpReluAutoEncoder"
        )
    rule = _rule(name, tensors, trainer, file, len(b_enc))
    return Sae(encoder, b_enc, decoder, b_dec, rule, name != "JumpReluAutoEncoder", about)


def _rule(name: str, tensors: dict[str, Tensor], trainer: dict[str, Any], file: Place, n_latents: int) -> Rule:
    match name:
        case "AutoEncoder":
            return Rectify()
        case "AutoEncoderTopK":
            return Largest(int(tensors["k"] if "k" in tensors else trainer["k"]))
        case "GatedAutoEncoder":
            return Gate(*pick(tensors, file, "r_mag", "mag_bias"))
        case _:
            (threshold,) = pick(tensors, file, "threshold")
            return Above(threshold.expand(n_latents).clone())  # one number for all, or one a latent


def _linear(sae: Sae) -> dict[str, Tensor]:
    return {"encoder.weight": sae.encoder, "decoder.weight": sae.decoder.t()}
