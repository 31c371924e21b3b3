"""sparsify: cfg.json and sae.safetensors in a folder for each layer. TopK alone; both matrices lie as [f, d]."""

import re

from linrep.errors import FormatError
from linrep.places import Place
from linrep.sae.architectures.topk import Largest
from linrep.sae.formats.files import read_json, read_safetensors, write_safetensors
from linrep.sae.sae import Sae
from linrep.sae.settings import Settings
from linrep.sae.tensors import Weights, check_k

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def write(folder: Place, sae: Sae) -> None:
    """Write a TopK SAE.

    Raises:
        FormatError: It is of another architecture, which this format cannot say.
    """
    if not isinstance(sae.rule, Largest):
        raise FormatError(f"sparsify's format holds TopK SAEs, this one is {sae.rule.kind}: write SAELens' instead")
    k, sae = sae.rule.k, sae.seeing(centred=True)
    tensors = {"encoder.weight": sae.encoder, "encoder.bias": sae.b_enc, "W_dec": sae.decoder, "b_dec": sae.b_dec}
    write_safetensors(folder / WEIGHTS, tensors)
    config = {
        "activation": "topk",
        "expansion_factor": max(1, sae.n_latents // sae.d_model),
        "normalize_decoder": True,
        "num_latents": sae.n_latents,
        "k": k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_model,
    }
    (folder / CONFIG).write_json(config)


def read(folder: Place) -> Sae:
    """Read an SAE.

    Raises:
        FormatError: A file is missing or damaged, or a field or a tensor asks for what no SAE here does.
    """
    settings, file = Settings(folder / CONFIG, read_json(folder / CONFIG)), folder / WEIGHTS
    settings.only("activation", "topk", why="must be topk, the only one that is read")
    settings.only("signed", False, why="must be false: latents that are chosen by size and keep their sign are not read")
    settings.only("transcode", False, why="must be false: a transcoder predicts another place than it sees")
    settings.only("skip_connection", False, why="must be false: no SAE here has a skip connection")
    for name in ("normalize_decoder", "multi_topk"):  # of training alone: the latents of a row do not depend on them
        settings.flag(name, False)
    width, expected = settings.whole("d_in"), settings.whole("num_latents", 0, least=0)
    expansion = settings.whole("expansion_factor", 0, least=0)
    if not expected and not expansion:
        raise FormatError(f"{settings.file} says neither num_latents nor expansion_factor: one of them must be above 0")
    expected = expected or expansion * width
    tensors = read_safetensors(file)
    found = tensors.get("encoder.weight")
    if found is not None and tuple(found.shape) != (expected, width):
        raise FormatError(
            f"{file}: encoder.weight makes an encoder of {tuple(found.shape)}, {CONFIG} says {(expected, width)}: "
            "num_latents, or else expansion_factor times d_in, and d_in"
        )
    weights = Weights(file, tensors, {"f": expected, "d": width})
    encoder, decoder = weights.take("encoder.weight", "W_dec", axes=("f", "d"))
    (b_enc,) = weights.take("encoder.bias", axes=("f",))
    (b_dec,) = weights.take("b_dec", axes=("d",))
    rule = Largest(check_k(settings.whole("k"), expected, settings.file))
    settings.finish()
    weights.finish()
    return Sae(encoder, b_enc, decoder, b_dec, rule, sees_centred=True, about=_about(folder))


def _about(folder: Place) -> dict[str, str]:
    """The module whose output it was trained on is its folder's name, or with several seeds that of the folder around it."""
    module = folder.parent.name if re.fullmatch(r"seed\d+", folder.name) else folder.name
    run = (folder.parent.parent if module != folder.name else folder.parent) / "config.json"
    about = {"architecture": "topk", "hook_name": module}
    if run.is_file():
        said = read_json(run)
        if isinstance(said.get("sae"), dict) and isinstance(said.get("model"), str):  # the run's own, no model's config.json
            about["model_name"] = said["model"]
    return about
