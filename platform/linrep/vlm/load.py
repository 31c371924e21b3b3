"""Loading a model down to the deepest layer that is needed, and no further."""

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModel, AutoModelForImageTextToText

from linrep.errors import ModelError
from linrep.vlm.card import ModelCard, check_layers, describe, read_config
from linrep.vlm.config import ModelConfig
from linrep.vlm.families import family_of
from linrep.vlm.family import Family
from linrep.vlm.files import locate, weight_files
from linrep.vlm.processor import load_processor, quiet
from linrep.vlm.sites import text_stack
from linrep.vlm.spread import placement


@dataclass(frozen=True, slots=True)
class VLM:
    """A model ready to run.

    Attributes:
        model: Without a head and cut after `depth` blocks, or the whole model with its head where depth is None.
        processor: The model's own processor (tokenizer and image processor).
        card: Facts about the whole model.
        depth: Deepest layer it reaches; None means the whole model.
        devices: Where it runs: the stream goes through them in order.
        dtype: Of its parameters.
    """

    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    card: ModelCard
    depth: int | None
    devices: tuple[torch.device, ...]
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return self.devices[0]

    @property
    def inner(self) -> Any:
        """The model without its head: embeddings, vision tower, projector and blocks."""
        return self.model.model if self.depth is None else self.model

    @property
    def family(self) -> Family:
        """What is particular to its family."""
        return family_of(self.card.family)

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
    device: str | torch.device | Sequence[torch.device] = "cpu",
    dtype: str | torch.dtype = torch.float32,
) -> VLM:
    """A model in evaluation mode and without gradients, cut after the deepest layer that is asked for.

    Blocks from `depth` on are neither created, read from disk nor run, and there is no head. What is left computes what the whole
    model computes.

    Args:
        config: Folder or hub name.
        depth: Deepest layer k needed, 0..n; None keeps the whole model with its head, to generate.
        device: Where to put it; several devices get a share each, see `linrep.vlm.spread`.
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
    cls: Any = AutoModelForImageTextToText if depth is None else AutoModel
    full = read_config(folder)
    own = full if depth is None else family_of(card.family).truncate(full, depth)
    devices = tuple(map(numbered, (device,) if isinstance(device, str | torch.device) else device))
    placed = _placed(cls, own, devices, config.quantization, _dtype(dtype))
    try:
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The following device_map keys")  # parameters that belong to no module of their own
            model, report = cls.from_pretrained(
                folder,
                config=own,
                dtype=_dtype(dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **placed,
            )
    except (RuntimeError, OSError, KeyError, SafetensorError) as error:  # shapes that differ, files cut short
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot load the weights of model {config.path!r}: {reason}") from error
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise ModelError(
            f"the weights of model {config.path!r} do not fit its config.json: {lacking[0]!r} is missing ({len(lacking)} in all)"
        )
    model = model.eval().requires_grad_(False)
    if not placed:
        model = model.to(devices[0])
    return VLM(model, load_processor(folder), card, depth, devices, _dtype(dtype))


def numbered(device: str | torch.device) -> torch.device:
    """The device as tensors on it name theirs: `cuda` is the present one of the GPUs, and has a number."""
    found = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if found.type == "cuda" and found.index is None else found


def _placed(
    cls: Any, config: Any, devices: Sequence[torch.device], quantization: str | None, dtype: torch.dtype
) -> dict[str, Any]:
    """What loading is given beside: where parts of the model go, and how its weights are rounded; nothing in the usual case.

    Raises:
        ModelError: A package that this needs is not installed.
    """
    if len(devices) == 1 and quantization is None:
        return {}
    for package in ("accelerate", *(["bitsandbytes"] if quantization else [])):
        if importlib.util.find_spec(package) is None:
            what = f"model.quantization {quantization}" if quantization else "a model over several devices"
            raise ModelError(f"{what} needs {package}: install the extra 'large' of this package")
    found: dict[str, Any] = {"device_map": {"": devices[0]}}
    if len(devices) > 1:
        with torch.device("meta"), quiet():
            empty = cls.from_config(config)
        empty.tie_weights()
        found["device_map"] = placement(empty, devices)
    if quantization is not None:
        from transformers import BitsAndBytesConfig

        kind = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype} if quantization == "4bit" else {}
        found["quantization_config"] = BitsAndBytesConfig(**{f"load_in_{quantization}": True}, **kind)
    return found


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"dtype {dtype!r} is not a floating-point type such as float32, bfloat16 or float16")
    return found
