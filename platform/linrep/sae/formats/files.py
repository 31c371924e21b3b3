"""Tensors and JSON in files of any place, with errors that name the file."""

import io
from collections.abc import Mapping
from typing import Any

import torch
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
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, or a number of too many digits
        raise FormatError(f"cannot read {file}: {_said(error)}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{file} holds no settings but {type(value).__name__}")
    return value


def read_safetensors(file: Place) -> dict[str, Tensor]:
    """The tensors of a safetensors file, as they were saved.

    Raises:
        FormatError: It is missing or damaged.
    """
    try:
        return load(file.read_bytes())
    except Exception as error:  # a damaged header leads to whatever its numbers mean to torch
        raise FormatError(f"cannot read {file}: {_said(error)}") from None


def write_safetensors(file: Place, tensors: Mapping[str, Tensor]) -> None:
    """Write float32 tensors."""
    file.write_bytes(save({name: tensor.detach().float().contiguous().cpu() for name, tensor in tensors.items()}))


def read_pickle(file: Place) -> dict[str, Tensor]:
    """The tensors of a pickled state dict, as they were saved; nothing else that a pickle may do is done.

    Raises:
        FormatError: The pickle asks for more than tensors, or cannot be read.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot read {file}: {_said(error)}") from None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle leads to whatever its bytes mean to the unpickler
        raise FormatError(f"{file} is not a pickle of tensors alone, and nothing more is unpickled: {_said(error)}") from None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise FormatError(f"{file} is not a mapping from names to tensors")
    plain = {name.removeprefix("module."): value for name, value in state.items()}
    if len(plain) < len(state):
        raise FormatError(f"{file} has a tensor twice, with and without module. before its name")
    return plain


def write_pickle(file: Place, tensors: Mapping[str, Tensor]) -> None:
    """Write a state dict as `torch.save` does."""
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, buffer)
    file.write_bytes(buffer.getvalue())


def _said(error: BaseException) -> str:
    """The first line of an error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
