"""SAEs on their way to tasks: each lies once in a node's object store, and the tasks that need it read it there."""

import io
import pickle
import warnings
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor

from linrep.encoder import Latents

RAW = {torch.bfloat16: torch.int16, torch.float16: torch.int16}
"""Number formats that numpy lacks, or keeps apart, and what their bits travel as."""
LARGE = {field.name for field in fields(Latents)} - {"name"}
"""What is read where it is first asked for."""


def handed(pairs: Iterable[tuple[Latents, Latents]]) -> tuple[tuple[Latents, Latents], ...]:
    """The same SAEs and controls, which pickle as a name and a reference; the store holds them while this process does."""
    return tuple((HandedLatents.put(own), HandedLatents.put(control)) for own, control in pairs)


class HandedLatents(Latents):
    """An SAE that lies in the object store: read when it is first asked for, without a copy. Its tensors may not be written to.

    Args:
        name: What tables call it.
        reference: Of the SAE.
    """

    def __init__(self, name: str, reference: Any) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "_reference", reference)

    @staticmethod
    def put(latents: Latents) -> "HandedLatents":
        """Put an SAE into the store."""
        plain = Latents(**{field.name: getattr(latents, field.name) for field in fields(Latents)})
        return HandedLatents(latents.name, ray.put(InStore(plain)))

    def __getattribute__(self, field: str) -> Any:
        if field not in LARGE:
            return super().__getattribute__(field)
        own = vars(self)
        if "_read" not in own:
            object.__setattr__(self, "_read", ray.get(own["_reference"]))
        return getattr(own["_read"], field)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return HandedLatents, (self.name, self._reference)


class InStore:
    """A value whose tensors Ray keeps as raw memory: who gets it shares them with all processes of its node.

    torch's own pickling copies every tensor into each process. It comes out as the value itself.

    Args:
        value: Anything that pickles; tensors on the CPU.
    """

    def __init__(self, value: Any) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        file = io.BytesIO()
        packer = _Packer(file)
        packer.dump(self._value)
        return _unpacked, (file.getvalue(), packer.arrays, packer.dtypes)


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.arrays: list[np.ndarray] = []
        self.dtypes: list[torch.dtype] = []
        self._known: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> int | None:
        """The number of a tensor; one that is there twice travels once."""
        if not isinstance(obj, Tensor):
            return None
        if id(obj) not in self._known:
            self._known[id(obj)] = len(self.arrays)
            plain = obj.detach().contiguous()
            self.arrays.append(plain.view(RAW.get(plain.dtype, plain.dtype)).numpy())
            self.dtypes.append(plain.dtype)
        return self._known[id(obj)]


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, pid: Any) -> Tensor:
        """The tensor of a number."""
        return self._tensors[pid]


def _unpacked(packed: bytes, arrays: list[np.ndarray], dtypes: list[torch.dtype]) -> Any:
    with warnings.catch_warnings():
        # torch has no read-only tensors and says so; nobody writes to an SAE's.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensors = [torch.from_numpy(array).view(dtype) for array, dtype in zip(arrays, dtypes, strict=True)]
    return _Unpacker(io.BytesIO(packed), tensors).load()
