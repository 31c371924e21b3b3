"""Loading a LLaVA-NeXT down to the deepest layer that is needed, and no further."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import LlavaNextForConditionalGeneration, LlavaNextModel

from linrep.errors import ModelError
from linrep.vlm.card import ModelCard, check_layers, describe, read_config
from linrep.vlm.config import ModelConfig
from linrep.vlm.files import locate, weight_files
from linrep.vlm.processor import load_processor, quiet
from linrep.vlm.sites import text_stack

_TOWERS = ("clip_vision_model", "siglip_vision_model")
"""Vision towers whose `hidden_states` are plain block outputs, so that dropping blocks after the chosen one is exact."""


@dataclass(frozen=True, slots=True)
class VLM:
    """A model ready to run.

    Attributes:
        model: Without a head and cut after `depth` blocks, or the whole model with its head where depth is None.
        processor: The model's own processor (tokenizer and image processor).
        card: Facts about the whole model.
        depth: Deepest layer it reaches; None means the whole model.
        device: Where it runs.
        dtype: Of its parameters.
    """

    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    card: ModelCard
    depth: int | None
    device: torch.device
    dtype: torch.dtype

    @property
    def inner(self) -> Any:
        """The model without its head: embeddings, vision tower, projector and blocks."""
        return self.model if hasattr(self.model, "language_model") else self.model.model

    @property
    def text(self) -> Any:
        """The language model's stack, with `layers` and `norm`."""
        return text_stack(self.model)

    @property
    def reach(self) -> int:
        """Deepest layer that can be recorded or edited."""
        return self.card.n_layers if self.depth is None else self.depth


def load(
    config: ModelConfig,
    depth: int | None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
) -> VLM:
    """A model in evaluation mode and without gradients, cut after the deepest layer that is asked for.

    Blocks from `depth` on are neither created, read from disk nor run, and there is no head. The same holds for
    the blocks of the vision tower after the layer whose output is projected. What is left computes what the whole model
    computes.

    Args:
        config: Folder or hub name.
        depth: Deepest layer k needed, 0..n; None keeps the whole model with its head, to generate.
        device: Where to put it.
        dtype: Of the parameters, whatever is stored: a torch dtype or its name.

    Raises:
        ModelError: The model cannot be described (see `describe`), has no such layer, or its weights are
            missing, damaged, or do not fit its config.json.
    """
    card = describe(config)
    if depth is not None:
        check_layers(card, [depth])
    folder, _ = locate(config, weights=True)
    if not weight_files(folder):
        raise ModelError(f"model {config.path!r} has no weights: expected model.safetensors or model.safetensors.index.json")
    cls: Any = LlavaNextForConditionalGeneration if depth is None else LlavaNextModel
    full = read_config(folder)
    try:
        with quiet():
            model, report = cls.from_pretrained(
                folder,
                config=full if depth is None else truncate(full, depth),
                dtype=_dtype(dtype),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (RuntimeError, OSError, KeyError, SafetensorError) as error:  # shapes that differ, files cut short
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot load the weights of model {config.path!r}: {reason}") from error
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise ModelError(
            f"the weights of model {config.path!r} do not fit its config.json: {lacking[0]!r} is missing ({len(lacking)} in all)"
        )
    where = torch.device(device)
    model = model.eval().requires_grad_(False).to(where)
    processor = load_processor(folder)
    return VLM(model=model, processor=processor, card=card, depth=depth, device=where, dtype=_dtype(dtype))


def truncate(full: Any, depth: int) -> Any:
    """A copy of a configuration with `depth` blocks, and no more of the vision tower than the projector reads.

    The vision tower's layer is counted from its new end: -2 of 24 blocks becomes -1 of 23.
    """
    cut = deepcopy(full)
    text, vision = cut.text_config, cut.vision_config
    _shorten(text, depth)
    if vision.model_type in _TOWERS:
        asked = full.vision_feature_layer
        n_states = vision.num_hidden_layers + 1
        kept = max(1, *(i % n_states for i in ([asked] if isinstance(asked, int) else asked)))
        # Negative, as transformers takes a layer of 0 for "none"; one block at least, as its input is captured there.
        anew = [i % n_states - (kept + 1) for i in ([asked] if isinstance(asked, int) else asked)]
        cut.vision_feature_layer = anew[0] if isinstance(asked, int) else anew
        _shorten(vision, kept)
    return cut


def _shorten(section: Any, n: int) -> None:
    for name in ("layer_types", "mlp_layer_types"):  # kept as long as the model is deep, else validation refuses
        kinds = getattr(section, name, None)
        if kinds is not None:
            setattr(section, name, list(kinds)[:n])
    section.num_hidden_layers = n


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"dtype {dtype!r} is not a floating-point type such as float32, bfloat16 or float16")
    return found
