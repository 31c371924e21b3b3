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
from linrep.sae.formats.files import read_json, read_pickle, write_pickle
from linrep.sae.formats.settings import Settings
from linrep.sae.formats.submodules import origin, submodule
from linrep.sae.formats.weights import Weights, check_k

CONFIG, WEIGHTS = "config.json", "ae.pt"
TRANSPOSED = {
    "AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias", "AutoEncoderTopK": "b_dec", "BatchTopKSAE": "b_dec",
    "GatedAutoEncoder": "decoder_bias",
}  # fmt: skip
"""Classes of linear layers, with their decoder's bias."""
SIZES = {"d": "activation_dim", "f": "dict_size"}
STRAIGHT = ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder")
UNCENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")
TRAINED = (
    "anneal_end", "anneal_start", "auxk_alpha", "bandwidth", "decay_start", "device", "group_fractions", "group_weights",
    "l1_penalty", "lr", "n_sparsity_updates", "p_end", "p_start", "resample_steps", "seed", "sparsity_function",
    "sparsity_penalty", "sparsity_queue_length", "sparsity_warmup_steps", "steps", "target_l0", "threshold_beta",
    "threshold_start_step", "top_k_aux", "trainer_class", "wandb_name", "warmup_steps",
)  # fmt: skip
"""How it was trained, which changes nothing of what it computes."""


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
        "lm_name": sae.about.get("model_name"),
        **submodule(sae.about),
    }
    if isinstance(sae.rule, Largest):
        trainer["k"] = sae.rule.k
    write_pickle(folder / WEIGHTS, tensors)
    (folder / CONFIG).write_json({"trainer": trainer, "buffer": {}})


def read(folder: Place) -> Sae:
    """Read a dictionary.

    Raises:
        FormatError: A file is missing or damaged, the class is not known, or a field or a tensor asks for what none here does.
    """
    settings, file = Settings(folder / CONFIG, read_json(folder / CONFIG)), folder / WEIGHTS
    trainer, buffer = settings.section("trainer"), settings.section("buffer")
    name = trainer.word("dict_class")
    if name not in TRANSPOSED and name not in STRAIGHT:
        raise FormatError(f"{folder} holds a {name!r}: known are {', '.join((*TRANSPOSED, *STRAIGHT))}")
    sizes = {"d": trainer.number("activation_dim", least=1), "f": trainer.number("dict_size", least=1)}
    weights = Weights(file, read_pickle(file), {axis: n for axis, n in sizes.items() if n is not None}, (CONFIG, SIZES))
    if name in TRANSPOSED:
        (encoder,), (decoder,) = weights.take("encoder.weight", axes=("f", "d")), weights.take("decoder.weight", axes=("d", "f"))
        decoder = decoder.t().contiguous()
        (b_dec,) = weights.take(TRANSPOSED[name], axes=("d",))
        (b_enc,) = weights.take("gate_bias" if name == "GatedAutoEncoder" else "encoder.bias", axes=("f",))
    else:
        (encoder,), (decoder,) = weights.take("W_enc", axes=("d", "f")), weights.take("W_dec", axes=("f", "d"))
        encoder = encoder.t().contiguous()
        (b_enc,), (b_dec,) = weights.take("b_enc", axes=("f",)), weights.take("b_dec", axes=("d",))
    rule = _rule(name, weights, trainer)
    about = origin(trainer, buffer, weights.size("d")) | {"architecture": name}
    trainer.skip(TRAINED)
    for section in (trainer, buffer, settings):
        section.finish()
    weights.finish()
    return Sae(encoder, b_enc, decoder, b_dec, rule, name not in UNCENTRED, about)


def _rule(name: str, weights: Weights, trainer: Settings) -> Rule:
    match name:
        case "AutoEncoder" | "AutoEncoderNew":
            return Rectify()
        case "AutoEncoderTopK":
            if "threshold" in weights:  # of another way to encode than theirs does by itself
                weights.take("threshold", axes=())
            return Largest(_k(weights, trainer))
        case "GatedAutoEncoder":
            return Gate(*weights.take("r_mag", "mag_bias", axes=("f",)))
        case "JumpReluAutoEncoder":
            return Above(*weights.take("threshold", axes=("f",)))
        case _:
            if "k" in weights or "k" in trainer:
                _k(weights, trainer)
            if name == "MatryoshkaBatchTopKSAE":
                _check_groups(weights, trainer)
            (threshold,) = weights.take("threshold", axes=())
            return Above(threshold.expand(weights.size("f")).clone())  # one number for all


def _k(weights: Weights, trainer: Settings) -> int:
    """What the pickle and the config say, which must be the same."""
    said = trainer.whole("k") if "k" in trainer or "k" not in weights else None
    saved = weights.whole("k") if "k" in weights else said
    if said is not None and said != saved:
        raise FormatError(f"{weights.file} has k {saved}, {CONFIG} says {said}")
    assert saved is not None
    return check_k(saved, weights.size("f"), weights.file)


def _check_groups(weights: Weights, trainer: Settings) -> None:
    """All groups are active in a saved SAE, so that their sizes change nothing; but they must be those of this one."""
    sizes, said = weights.integers("group_sizes"), trainer.sizes("group_sizes")
    if sizes.dim() != 1 or bool((sizes < 1).any()) or int(sizes.sum()) != weights.size("f"):
        raise FormatError(
            f"{weights.file} has group_sizes {sizes.flatten()[:16].tolist()}: they must be above 0 and make {weights.size('f')}"
        )
    if said is not None and said != sizes.tolist():
        raise FormatError(f"{weights.file} has group_sizes {sizes[:16].tolist()}, {CONFIG} says {said[:16]}")


def _linear(sae: Sae) -> dict[str, Tensor]:
    return {"encoder.weight": sae.encoder, "decoder.weight": sae.decoder.t()}
