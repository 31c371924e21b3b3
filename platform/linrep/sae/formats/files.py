"""Tensors and JSON in files of any place, with errors that name the file."""

import io
import json
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from linrep.errors import FormatError
from linrep.places import Place


def read_json(file: Place) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        FormatError: There is none.
    """
    try:
        value = file.read_json()
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read {file}: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{file} holds no settings but {type(value).__name__}")
    return value


def read_safetensors(file: Place) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in float32."""
    try:
        tensors = load(file.read_bytes())
    except (OSError, SafetensorError) as error:
        raise FormatError(f"cannot read {file}: {error}") from None
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def write_safetensors(file: Place, tensors: Mapping[str, Tensor]) -> None:
    """Write float32 tensors."""
    file.write_bytes(save({name: tensor.detach().float().contiguous().cpu() for name, tensor in tensors.items()}))


def read_pickle(file: Place) -> dict[str, Tensor]:
    """The tensors of a pickled state dict; nothing else that a pickle may do is done.

    Raises:
        FormatError: The pickle asks for more than tensors, or cannot be read.
    """
    try:
        state = torch.load(io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise FormatError(f"{file} is not a pickle of tensors alone, and nothing more is unpickled: {said}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise FormatError(f"{file} is not a mapping from names to tensors")
    return {name.removeprefix("module."): value.float() if value.is_floating_point() else value for name, value in state.items()}


def write_pickle(file: Place, tensors: Mapping[str, Tensor]) -> None:
    """Write a state dict as `torch.save` does."""
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, buffer)
    file.write_bytes(buffer.getvalue())


def pick(tensors: Mapping[str, Tensor], file: Place, *names: str) -> list[Tensor]:
    """Tensors by name.

    Raises:
        FormatError: One is missing.
    """
    missing = [name for name in names if name not in tensors]
    if missing:
        raise FormatError(f"{file} lacks {', '.join(missing)}: it has {', '.join(sorted(tensors)) or 'nothing'}")
    return [tensors[name] for name in names]
