"""sparsify: cfg.json and sae.safetensors in a folder for each layer. TopK alone; both matrices lie as [f, d]."""

from linrep.errors import FormatError
from linrep.places import Place
from linrep.sae.coder import Largest, Sae
from linrep.sae.formats.files import pick, read_json, read_safetensors, write_safetensors

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def write(folder: Place, sae: Sae) -> None:
    """Write a TopK dictionary.

    Raises:
        FormatError: It is of another architecture, which this format cannot say.
    """
    if not isinstance(sae.rule, Largest):
        raise FormatError(f"sparsify's format holds TopK dictionaries, this one is {sae.rule.kind}: write SAELens' instead")
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
    """Read a dictionary.

    Raises:
        FormatError: A file is missing or damaged, or the coder has parts that no dictionary here has.
    """
    config, file = read_json(folder / CONFIG), folder / WEIGHTS
    if config.get("skip_connection"):
        raise FormatError(f"{folder} has a skip connection, which no dictionary here has")
    if config.get("activation", "topk") != "topk":
        raise FormatError(f"{folder} has the activation {config['activation']!r}: only topk is known")
    encoder, b_enc, decoder, b_dec = pick(read_safetensors(file), file, "encoder.weight", "encoder.bias", "W_dec", "b_dec")
    expected = config.get("num_latents") or config["expansion_factor"] * config["d_in"]
    if encoder.shape != (expected, config["d_in"]):
        raise FormatError(f"{file} has an encoder of {tuple(encoder.shape)}, {CONFIG} says {(expected, config['d_in'])}")
    about = {"architecture": "topk", "hook_name": folder.name}
    return Sae(encoder, b_enc, decoder, b_dec, Largest(int(config["k"])), not config.get("transcode", False), about)
