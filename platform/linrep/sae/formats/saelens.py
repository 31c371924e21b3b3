"""SAELens v6, the native format: cfg.json, sae_weights.safetensors, and sparsity.safetensors where firing rates are known.

Matrices are stored as W_enc [d, f] and W_dec [f, d]. BatchTopK and Matryoshka dictionaries are jumprelu on disk.
"""

from typing import Any, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.errors import FormatError
from linrep.places import Place
from linrep.sae.coder import Above, Gate, Largest, Rectify, Sae
from linrep.sae.formats.files import pick, read_json, read_safetensors, write_safetensors

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
VERSION = "6.54.12"
"""The release whose files these equal; below 6.0.0, or without a version, SAELens drops the names of model and hook."""
NEVER = -10.0
"""log10 of the firing rate of a latent that never fired, as SAELens writes it."""


def write(folder: Place, sae: Sae, firing: Float[Tensor, " f"] | None = None) -> None:
    """Write a dictionary that takes raw activations.

    Args:
        folder: Where to.
        sae: The dictionary, unscaled.
        firing: Share of the rows in which each latent fires.
    """
    tensors = {"W_enc": sae.encoder.t(), "W_dec": sae.decoder, "b_dec": sae.b_dec}
    settings: dict[str, Any] = {}
    match sae.rule:
        case Rectify():
            architecture = "standard"
        case Largest(k=k):
            architecture = "topk"
            settings = {"k": k, "rescale_acts_by_decoder_norm": False}
        case Above(threshold=threshold):
            architecture = "jumprelu"
            tensors["threshold"] = threshold
        case Gate(r_mag=r_mag, b_mag=b_mag):
            architecture = "gated"
            tensors |= {"r_mag": r_mag, "b_mag": b_mag}
        case _:
            assert_never(sae.rule)
    tensors["b_gate" if architecture == "gated" else "b_enc"] = sae.b_enc
    metadata = {
        "sae_lens_version": VERSION,
        "sae_lens_training_version": VERSION,
        "model_name": None,
        "hook_name": None,
        "hook_head_index": None,
        "context_size": None,
        "prepend_bos": True,
        "training_architecture": sae.about.get("architecture", architecture),
        **sae.about,
    }
    config = {
        "architecture": architecture,
        "d_in": sae.d_model,
        "d_sae": sae.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.sees_centred,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **settings,
        "metadata": metadata,
    }
    write_safetensors(folder / WEIGHTS, tensors)
    if firing is not None:
        write_firing(folder, firing)
    (folder / CONFIG).write_json(config)  # last: a folder without it is no dictionary


def read(folder: Place) -> Sae:
    """Read a dictionary.

    Raises:
        FormatError: A file is missing or damaged, or the dictionary rescales its inputs by what only they can tell.
    """
    config, file = read_json(folder / CONFIG), folder / WEIGHTS
    tensors = read_safetensors(file)
    if config.get("normalize_activations", "none") not in ("none", None):
        raise FormatError(
            f"{folder} normalises activations ({config['normalize_activations']!r}): fold that into the weights first, "
            "or read a dictionary saved with 'none'"
        )
    architecture = config.get("architecture", "standard")
    encoder, decoder, b_dec = pick(tensors, file, "W_enc", "W_dec", "b_dec")
    (b_enc,) = pick(tensors, file, "b_gate" if architecture == "gated" else "b_enc")
    match architecture:
        case "standard":
            rule = Rectify()
        case "topk":
            rule = Largest(int(config["k"]))
        case "jumprelu":
            rule = Above(*pick(tensors, file, "threshold"))
        case "gated":
            rule = Gate(*pick(tensors, file, "r_mag", "b_mag"))
        case _:
            raise FormatError(f"{folder} is of architecture {architecture!r}: known are standard, topk, jumprelu and gated")
    centred = bool(config.get("apply_b_dec_to_input", architecture != "jumprelu"))
    about = {name: value for name, value in config.get("metadata", {}).items() if not name.startswith("sae_lens_")}
    sae = Sae(encoder.t().contiguous(), b_enc, decoder, b_dec, rule, centred, {**about, "architecture": architecture})
    # Weighted activations are what such a dictionary compares and gives: unit rows have them as they are.
    return sae.with_unit_decoder() if config.get("rescale_acts_by_decoder_norm") else sae


def write_firing(folder: Place, firing: Float[Tensor, " f"]) -> None:
    """Write the share of the rows in which each latent fires, where it became known after the dictionary was written."""
    write_safetensors(folder / SPARSITY, {"sparsity": firing.log10().clamp_min(NEVER)})


def read_firing(folder: Place) -> Float[Tensor, " f"] | None:
    """Share of the rows in which each latent fires; None where it was not saved."""
    file = folder / SPARSITY
    if not file.is_file():
        return None
    (logs,) = pick(read_safetensors(file), file, "sparsity")
    return torch.where(logs > NEVER, torch.pow(10.0, logs), torch.zeros_like(logs))
