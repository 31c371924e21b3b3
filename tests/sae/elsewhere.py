"""A device that is not the CPU, on any machine: tensors whose numbers are here and whose place is elsewhere.

What mixes them with tensors of the CPU fails as on a GPU: only single numbers, and indices, may stay behind. Kernels of a GPU
are not what this tests.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten._index_put_impl_.default)


class Elsewhere(Tensor):
    """A tensor that says it is on another device."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "Elsewhere":
        made = Tensor._make_wrapper_subclass(cls, here.shape, here.stride(), dtype=here.dtype, device=DEVICE)
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Its numbers, which torch brings back from any device."""
        return self.here.tolist()


class Devices(TorchDispatchMode):
    """Within it, what is made on the other device, or moved there, is there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on the CPU, its tensors' places checked before and reported afterwards."""
    tensors: list[Tensor] = []
    tree_map(lambda leaf: tensors.append(leaf) if isinstance(leaf, Tensor) else None, (args, kwargs))
    away = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    if away and func not in MOVES:
        checked = args[:1] if func in INDEXED else tensors
        behind = [t for t in checked if isinstance(t, Tensor) and not isinstance(t, Elsewhere) and t.dim()]
        if behind:
            raise RuntimeError(f"{func} has tensors on two devices: {tuple(behind[0].shape)} is on the CPU")
    asked = kwargs.get("device")
    goes = away if asked is None else torch.device(asked) == DEVICE
    if func is torch.ops.aten.copy_.default:
        goes = isinstance(args[0], Elsewhere)
    kwargs = {**kwargs, "device": torch.device("cpu")} if asked is not None else kwargs
    inner_args, inner_kwargs = tree_map(lambda leaf: leaf.here if isinstance(leaf, Elsewhere) else leaf, (args, kwargs))
    out = func(*inner_args, **inner_kwargs)
    if func is torch.ops.aten.copy_.default or func.__name__.split(".")[0].endswith("_"):
        return args[0]  # in place: the tensor that was given
    return tree_map(lambda leaf: Elsewhere(leaf) if goes and isinstance(leaf, Tensor) else leaf, out)
