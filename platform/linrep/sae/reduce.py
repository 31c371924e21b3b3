"""Sums over the workers of a distributed run, or over nobody else."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor


@runtime_checkable
class Reducer(Protocol):
    """Adds up tensors over all workers."""

    @property
    def n_workers(self) -> int:
        """Workers, this one included."""
        ...

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the workers; all call this together, with tensors of the same shapes."""
        ...


class Alone:
    """One worker."""

    n_workers = 1

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Leave the tensors as they are."""


class Group:
    """The workers of a torch.distributed process group, started by somebody else (Ray Train, torchrun)."""

    def __init__(self) -> None:
        """Join the default group.

        Raises:
            RuntimeError: torch.distributed has not been initialised.
        """
        self.n_workers = dist.get_world_size()

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """All-reduce small tensors of one dtype together, in one message; large ones as they are, without a copy."""
        small = [t for t in tensors if t.numel() < 65536]
        for kind in dict.fromkeys(t.dtype for t in small):
            same = [t for t in small if t.dtype == kind]
            flat = torch.cat([t.flatten() for t in same])
            dist.all_reduce(flat)
            for tensor, part in zip(same, flat.split([t.numel() for t in same]), strict=True):
                tensor.copy_(part.view_as(tensor))
        for tensor in tensors:
            if tensor.numel() >= 65536:
                dist.all_reduce(tensor)
