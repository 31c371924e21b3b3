"""What a direction of the residual stream would say: the output matrix and the vocabulary, read without loading the model."""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from linrep.errors import ModelError
from linrep.vlm.card import read_config
from linrep.vlm.config import ModelConfig
from linrep.vlm.families import family_of
from linrep.vlm.files import locate, weight_files
from linrep.vlm.processor import load_processor
from linrep.vlm.words import written_out


@dataclass(frozen=True)
class Unembedding:
    """The logit lens of a model: logits of a direction are `matrix @ direction`, up to the final norm's scale.

    Attributes:
        matrix: Output matrix, its columns times the weights of the final norm, each column about its mean over the vocabulary.
        words: The vocabulary as readable text, a space as a space.
        eps: What the final norm adds to the mean square before its root; directions alone do not need it.
    """

    matrix: Float[Tensor, "v d"]
    words: tuple[str, ...]
    eps: float = 0.0

    def logits(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """What the model's own final norm and output matrix make of some vectors, up to one number for each row.

        The mean over the vocabulary is missing, so a softmax over the words is the model's own.
        """
        h = h.float()
        return (h * (h.square().mean(-1, keepdim=True) + self.eps).rsqrt()) @ self.matrix.T


def read_words(config: ModelConfig) -> tuple[str, ...]:
    """The vocabulary as readable text, by token id.

    Raises:
        ModelError: The model has no tokenizer that can be read.
    """
    return written_out(load_processor(locate(config)[0]).tokenizer)


def read_unembedding(config: ModelConfig) -> Unembedding:
    """The output matrix of a model, folded, and its vocabulary.

    The mean over the vocabulary is removed, as a softmax does not see it.

    Raises:
        ModelError: The weights are missing, or hold no output matrix and no final norm.

    Source: nostalgebraist, "interpreting GPT: the logit lens", 2020.
    """
    folder, _ = locate(config, weights=True)
    full = read_config(folder)
    matrix, norm = (_read(*one) for one in _found(config, folder))
    matrix = matrix * (1 + norm if family_of(full.model_type).unit_offset else norm)
    words = read_words(config)
    words += tuple(f"<{i}>" for i in range(len(words), len(matrix)))
    eps = float(getattr(full.get_text_config(), "rms_norm_eps", 0.0))
    return Unembedding(matrix - matrix.mean(0), words[: len(matrix)], eps)


def check_unembedding(config: ModelConfig) -> None:
    """Check that the logit lens can be had, without reading a matrix or fetching weights: those of the hub are taken to have it.

    Raises:
        ModelError: The weights of a folder are missing, or hold no output matrix and no final norm.
    """
    folder, commit = locate(config)
    if commit is None:
        _found(config, folder)


def _found(config: ModelConfig, folder: Path) -> tuple[tuple[str, str], tuple[str, str]]:
    """File and name of the output matrix and of the final norm's weight."""
    where = {name: str(file) for file in weight_files(folder) for name in _names(str(file))}
    head = next((n for ending in ("lm_head.weight", "embed_tokens.weight") for n in sorted(where) if n.endswith(ending)), None)
    norms = [name for name in sorted(where) if _is_final_norm(name)]
    if head is None or len(norms) != 1:
        raise ModelError(f"model {config.path!r}: no output matrix, or no final norm, among its weights")
    return (where[head], head), (where[norms[0]], norms[0])


def _is_final_norm(name: str) -> bool:
    """Whether a tensor is the weight of the language model's last norm: vision towers and projectors have norms of their own."""
    elsewhere = ("vision", "visual", "projector", "connector", "layers", "blocks")
    *path, module, kind = ("", *name.split("."))
    return (module, kind) == ("norm", "weight") and not any(word in part for part in path for word in elsewhere)


def _names(file: str) -> list[str]:
    with safe_open(file, "pt") as tensors:
        return list(tensors.keys())


def _read(file: str, name: str) -> Tensor:
    with safe_open(file, "pt") as tensors:
        return tensors.get_tensor(name).float()
