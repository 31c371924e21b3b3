"""dictionary_learning: ae.pt, a pickled state dict, and config.json; one class of theirs per architecture.

Which class holds which architecture, and how its tensors lie, is said by the architectures.
"""

from dataclasses import replace
from typing import Any

from linrep.errors import FormatError
from linrep.places import Place
from linrep.sae.architectures import ARCHITECTURES
from linrep.sae.formats.files import read_json, read_pickle, write_pickle
from linrep.sae.formats.submodules import origin, submodule
from linrep.sae.sae import Sae
from linrep.sae.settings import Settings
from linrep.sae.tensors import Weights

CONFIG, WEIGHTS = "config.json", "ae.pt"
SIZES = {"d": "activation_dim", "f": "dict_size"}
READERS = {name: read for architecture in ARCHITECTURES.values() for name, read in architecture.dictionary_learning.items()}
"""How each of their classes is read."""
TRAINED = (
    "anneal_end", "anneal_start", "auxk_alpha", "bandwidth", "decay_start", "device", "group_fractions", "group_weights",
    "l1_penalty", "lr", "n_sparsity_updates", "p_end", "p_start", "resample_steps", "seed", "sparsity_function",
    "sparsity_penalty", "sparsity_queue_length", "sparsity_warmup_steps", "steps", "target_l0", "threshold_beta",
    "threshold_start_step", "top_k_aux", "trainer_class", "wandb_name", "warmup_steps",
)  # fmt: skip
"""How it was trained, which changes nothing of what it computes."""


def write(folder: Place, sae: Sae) -> None:
    """Write an SAE; one with thresholds becomes their JumpReLU.

    Raises:
        FormatError: The library has no class for its rule.
    """
    written = sae.rule.dictionary_learning(sae)
    if written is None:
        raise FormatError(
            f"dictionary_learning's format has no class for an SAE whose rule is {sae.rule.kind}: write SAELens' instead"
        )
    trainer: dict[str, Any] = {
        "dict_class": written.name,
        "activation_dim": sae.d_model,
        "dict_size": sae.n_latents,
        "lm_name": sae.about.get("model_name"),
        **submodule(sae.about),
        **written.settings,
    }
    write_pickle(folder / WEIGHTS, written.tensors)
    (folder / CONFIG).write_json({"trainer": trainer, "buffer": {}})


def read(folder: Place) -> Sae:
    """Read an SAE.

    Raises:
        FormatError: A file is missing or damaged, the class is not known, or a field or a tensor asks for what none here does.
    """
    settings, file = Settings(folder / CONFIG, read_json(folder / CONFIG)), folder / WEIGHTS
    trainer, buffer = settings.section("trainer"), settings.section("buffer")
    name = trainer.word("dict_class")
    if name not in READERS:
        raise FormatError(f"{folder} holds a {name!r}: known are {', '.join(READERS)}")
    sizes = {"d": trainer.number("activation_dim", least=1), "f": trainer.number("dict_size", least=1)}
    weights = Weights(file, read_pickle(file), {axis: n for axis, n in sizes.items() if n is not None}, (CONFIG, SIZES))
    sae = READERS[name](weights, trainer)
    about = origin(trainer, buffer, weights.size("d")) | {"architecture": name}
    trainer.skip(TRAINED)
    for section in (trainer, buffer, settings):
        section.finish()
    weights.finish()
    return replace(sae, about=about)
