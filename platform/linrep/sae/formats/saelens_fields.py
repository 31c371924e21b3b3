"""What each field of a SAELens cfg.json does: those of releases from 6.0.0 on, and the flat ones of before.

A field changes what the SAE computes and is honoured, says where the SAE comes from and is kept, says how it was trained or is
run and changes nothing, or is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from linrep.errors import FormatError
from linrep.places import Place
from linrep.sae.settings import Settings, shown

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
TRAINED = (
    "act_store_device", "activations_mixing_fraction", "adam_beta1", "adam_beta2", "autocast", "autocast_lm",
    "aux_loss_coefficient", "b_dec_init_method", "cached_activations_path", "checkpoint_path", "compile_llm", "compile_sae",
    "dead_feature_threshold", "dead_feature_window", "decoder_heuristic_init", "decoder_init_norm", "decoder_orthogonal_init",
    "disable_concat_sequences", "eval_batch_size_prompts", "eval_every_n_wandb_logs", "expansion_factor",
    "feature_sampling_window", "finetuning_method", "finetuning_tokens", "from_pretrained_path", "hook_eval",
    "init_encoder_as_decoder_transpose", "is_dataset_tokenized", "jumprelu_bandwidth", "jumprelu_init_threshold",
    "jumprelu_sparsity_loss_mode", "jumprelu_ste_to_input", "jumprelu_tanh_scale", "l0_coefficient", "l0_warm_up_steps",
    "l1_coefficient", "l1_warm_up_steps", "llm_compilation_mode", "llm_device", "log_to_wandb", "lp_norm", "lr",
    "lr_decay_steps", "lr_end", "lr_scheduler_name", "lr_warm_up_steps", "model_kwargs", "mse_loss_normalization",
    "n_batches_for_norm_estimate", "n_batches_in_buffer", "n_checkpoints", "n_eval_batches", "n_restart_cycles",
    "noise_scale", "normalize_sae_decoder", "pre_act_loss_coefficient", "resume", "run_name", "sae_compilation_mode",
    "scale_sparsity_penalty_by_decoder_norm", "seed", "sequence_separator_token", "store_batch_size_prompts", "streaming",
    "target_l0", "tokens_per_buffer", "train_batch_size_tokens", "training_tokens", "use_cached_activations",
    "use_ghost_grads", "use_sparse_activations", "verbose", "wandb_entity", "wandb_id", "wandb_log_frequency",
    "wandb_project",
)  # fmt: skip
"""How it was trained, which changes nothing of what it computes."""
SAID = (
    "model_name", "model_class_name", "hook_name", "hook_layer", "hook_head_index", "model_from_pretrained_kwargs", "prepend_bos",
    "exclude_special_tokens", "neuronpedia_id", "context_size", "seqpos_slice", "dataset_path", "dataset_trust_remote_code",
    "sae_lens_version", "sae_lens_training_version", "hf_hook_name", "hook_name_out", "hook_head_index_out", "hf_hook_name_out",
)  # fmt: skip
"""Where it comes from: in `metadata`, and on the top level before 6.0.0."""
RENAMED = {
    "hook_point": "hook_name", "hook_point_layer": "hook_layer", "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}  # fmt: skip


@dataclass(frozen=True)
class SaelensFields:
    """What cfg.json says.

    Attributes:
        architecture: Of releases from 6.0.0 on.
        d_in: Width of the stream.
        d_sae: Latents.
        dtype: Number format that the weights were made for.
        centred: Whether the encoder sees x - b_dec.
        rescaled: Whether latents are compared times the norm of their decoder's row.
        finetuned: Whether a factor for each latent is asked for.
        about: Where it comes from.
    """

    architecture: str
    d_in: int
    d_sae: int
    dtype: torch.dtype
    centred: bool
    rescaled: bool
    finetuned: bool
    about: dict[str, Any]


def is_old(settings: Settings) -> bool:
    """Whether it was written by a release before 6.0.0, which said everything on the top level, or no release is named.

    Raises:
        FormatError: The release is no version.
    """
    version = settings.section("metadata").said("sae_lens_version") or settings.said("sae_lens_version")
    found = re.match(r"(\d{1,6})\.", version or "0.")
    if found is None:
        raise FormatError(f"{settings.file}: sae_lens_version must be a version such as 6.0.0, got {shown(version)}")
    return int(found[1]) < 6


def read(settings: Settings, folder: Place, old: bool, known: Sequence[str]) -> SaelensFields:
    """Read all fields but those of single architectures; what is left over afterwards is unknown.

    Args:
        settings: The fields, by their present names.
        folder: The SAE's, for messages.
        old: Whether it was written before 6.0.0.
        known: Architectures that are read.

    Raises:
        FormatError: A field is wrong, or asks for what no SAE here does.
    """
    metadata = settings.section("metadata")
    architecture = _architecture(settings, folder, old, known)
    _check_inputs(settings, folder, old)
    settings.said("device")
    settings.skip(TRAINED)
    about = {name: _said(settings, metadata, name) for name in SAID if name in metadata or name in settings}
    about = {name: value for name, value in about.items() if not name.startswith("sae_lens_")} | metadata.rest()
    _check_origin(settings, about)
    dtype = settings.word("dtype", "float32").removeprefix("torch.")
    if dtype not in DTYPES:
        settings.refuse("dtype", f"must be one of {', '.join(DTYPES)}")
    rescaled = settings.flag("rescale_acts_by_decoder_norm", False)
    if rescaled and architecture != "topk":
        settings.refuse("rescale_acts_by_decoder_norm", f"is for architecture topk, this one is {architecture}")
    return SaelensFields(
        architecture, settings.whole("d_in"), settings.whole("d_sae"), DTYPES[dtype], settings.flag("apply_b_dec_to_input", True),
        rescaled, settings.flag("finetuning_scaling_factor", False), {**about, "architecture": architecture},
    )  # fmt: skip


def _architecture(settings: Settings, folder: Place, old: bool, known: Sequence[str]) -> str:
    found = settings.word("architecture", "standard") if old else settings.word("architecture")
    activation = settings.word("activation_fn", "topk" if found == "topk" else "relu")
    if old and (found, activation) == ("standard", "topk"):
        found = "topk"
    if found not in known:
        names = f"{', '.join(known[:-1])} and {known[-1]}"
        raise FormatError(f"{folder} is of architecture {shown(found)}: known are {names}")
    if activation != ("topk" if found == "topk" else "relu"):
        settings.refuse("activation_fn", f"is not what architecture {found} of this release does")
    if found != "topk" and settings.raw("activation_fn_kwargs", {}) not in ({}, None):
        settings.refuse("activation_fn_kwargs", f"must be empty with activation_fn {activation}")
    return found


def _said(settings: Settings, metadata: Settings, name: str) -> Any:
    """What is said in either place: before 6.0.0 it stood on the top level."""
    here, there = settings.raw(name, None), metadata.raw(name, None)
    if here is not None and there is not None and here != there:
        settings.refuse(name, f"must be what metadata says, {shown(there)}")
    return here if there is None else there


def _check_inputs(settings: Settings, folder: Place, old: bool) -> None:
    given = settings.raw("normalize_activations", "none")
    if not (given == "none" or given is None or (old and given is False)):
        raise FormatError(
            f"{folder} normalises activations (normalize_activations is {shown(given)}): fold that into the weights first, "
            "or read an SAE saved with 'none'"
        )
    settings.only(
        "reshape_activations", "none", None, why="must be 'none': only the residual stream is read here, not single heads"
    )
    settings.only("use_error_term", False, why="must be false: errors are not added here")


def _check_origin(settings: Settings, about: dict[str, Any]) -> None:
    for name, kind in {"model_name": str, "hook_name": str, "hook_layer": int, "layer": int, "modality": str}.items():
        value = about.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool) or (kind is int and value < 0)):
            wanted = "a text" if kind is str else "a whole number from 0 on"
            raise FormatError(f"{settings.file}: {name} must be {wanted} or null, got {shown(value)}")
    for name in ("hook_head_index", "hook_head_index_out"):
        if about.get(name) is not None:
            raise FormatError(f"{settings.file}: {name} is {shown(about[name])}: SAEs of a single head's output are not read")
    if about.get("hook_name_out") not in (None, about.get("hook_name")):
        raise FormatError(f"{settings.file}: hook_name_out is {shown(about['hook_name_out'])}: transcoders are not read")
    if "hook_z" in (about.get("hook_name") or ""):
        raise FormatError(f"{settings.file}: hook_name is {about['hook_name']}: SAEs of attention heads are not read")
