"""SAELens v6, the native format: cfg.json, sae_weights.safetensors, and sparsity.safetensors where firing rates are known.

Matrices are stored as W_enc [d, f] and W_dec [f, d]. BatchTopK and Matryoshka SAEs are jumprelu on disk. The flat
cfg.json of releases before 6.0.0 is read too; see `linrep.sae.formats.saelens_fields` for what each field does.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.errors import FormatError
from linrep.places import Place
from linrep.sae.architectures import RULES
from linrep.sae.formats import saelens_fields
from linrep.sae.formats.files import read_json, read_safetensors, write_safetensors
from linrep.sae.formats.over_workers import write_safetensors_of_all
from linrep.sae.formats.sums import check_sums
from linrep.sae.sae import Sae
from linrep.sae.settings import Settings
from linrep.sae.tensors import Weights
from linrep.workers import ALONE, Workers

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
FILES = (CONFIG, WEIGHTS)
"""Of an SAE as it is trained; firing rates come later."""
VERSION = "6.54.12"
"""The release whose files these equal; below 6.0.0, or without a version, SAELens drops the names of model and hook."""
LATENTS: dict[str, int | None] = {"W_enc": 1, "b_dec": None}
"""Along which axis the latents of a tensor lie, where it is not the first."""
SIZES = {"d": "d_in", "f": "d_sae"}
RULE_OF = {rule.saelens_name: rule for rule in RULES}
NEVER = -10.0
"""log10 of the firing rate of a latent that never fired, as SAELens writes it."""


def write(folder: Place, sae: Sae, firing: Float[Tensor, " f"] | None = None, workers: Workers = ALONE) -> None:
    """Write an SAE that takes raw activations.

    Args:
        folder: Where to.
        sae: The SAE, unscaled; of several workers, with the latents of this one.
        firing: Share of the rows in which each latent fires.
        workers: Over which its latents lie; rank 0 writes.
    """
    written, n_latents = sae.rule.saelens(sae), sum(int(n) for n in workers.gather(torch.tensor([sae.n_latents])))
    metadata = {
        "sae_lens_version": VERSION,
        "sae_lens_training_version": VERSION,
        "model_name": None,
        "hook_name": None,
        "hook_head_index": None,
        "context_size": None,
        "prepend_bos": True,
        "training_architecture": sae.about.get("architecture", written.name),
        **sae.about,
    }
    config = {
        "architecture": written.name,
        "d_in": sae.d_model,
        "d_sae": n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.sees_centred,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **written.settings,
        "metadata": metadata,
    }
    if workers.n_workers == 1:
        write_safetensors(folder / WEIGHTS, written.tensors)
    else:
        axes = {name: LATENTS.get(name, 0) for name in written.tensors}
        write_safetensors_of_all(folder / WEIGHTS, written.tensors, axes, workers)
    if workers.rank != 0:
        return
    if firing is not None:
        write_firing(folder, firing)
    (folder / CONFIG).write_json(config)  # last: a folder without it is no SAE


def read(folder: Place) -> Sae:
    """Read an SAE.

    Raises:
        FormatError: A file is missing or damaged, or a field or a tensor asks for what no SAE here does.
        StoreError: It was trained here, and a file is not as it was written.
    """
    if all((folder / name).is_file() for name in FILES):
        check_sums(folder, FILES)
    settings, file = Settings(folder / CONFIG, read_json(folder / CONFIG)), folder / WEIGHTS
    old = saelens_fields.is_old(settings)
    settings = settings.renamed(saelens_fields.RENAMED) if old else settings
    fields = saelens_fields.read(settings, folder, old, tuple(RULE_OF))
    weights = Weights(file, read_safetensors(file), {"d": fields.d_in, "f": fields.d_sae}, (CONFIG, SIZES), fields.dtype)
    sae = RULE_OF[fields.architecture].read_saelens(weights, settings)
    _check_scaling(weights, fields.finetuned)
    settings.finish()
    weights.finish()
    sae = replace(sae, sees_centred=fields.centred, about=fields.about)
    if not fields.rescaled:
        return sae
    if not bool((sae.decoder.norm(dim=1) > 0).all()):
        raise FormatError(f"{file} has rows of W_dec of norm 0, by which rescale_acts_by_decoder_norm divides")
    return sae.with_unit_decoder()  # weighted activations are what it compares and gives: unit rows have them as they are


def _check_scaling(weights: Weights, finetuned: bool) -> None:
    """Old releases wrote a factor for each latent, of ones where they did not tune it."""
    if "scaling_factor" not in weights:
        if finetuned:
            raise FormatError(f"{weights.file} lacks scaling_factor, which finetuning_scaling_factor in {CONFIG} asks for")
        return
    (factor,) = weights.take("scaling_factor", axes=("f",))
    if not bool((factor == 1).all()):
        raise FormatError(f"{weights.file} has a scaling_factor that is not 1: fold it into W_dec first")


def write_firing(folder: Place, firing: Float[Tensor, " f"]) -> None:
    """Write the share of the rows in which each latent fires, where it became known after the SAE was written."""
    write_safetensors(folder / SPARSITY, {"sparsity": firing.log10().clamp_min(NEVER)})
