"""Processes that work on one thing together: what they add up, gather and pass on, and how many bytes that moves."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

SMALL = 65536
"""Elements below which tensors are added up in one message."""


@runtime_checkable
class Workers(Protocol):
    """All of them, as one of them sees them. Every call but the two numbers is made by all together, in the same order."""

    @property
    def rank(self) -> int:
        """Which one this is, counted from 0."""
        ...

    @property
    def n_workers(self) -> int:
        """How many there are, this one included."""
        ...

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the workers; shapes are the same on all. All get the same bits."""
        ...

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """What each worker has, in the order of their ranks; shapes are the same on all."""
        ...

    def copy_(self, tensor: Tensor, source: int) -> None:
        """Replace a tensor by that of one worker; shapes are the same on all."""
        ...

    def tell(self, value: Any, source: int) -> Any:
        """The small value that one worker has; what others give does not count."""
        ...


class Alone:
    """One worker."""

    rank = 0
    n_workers = 1

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Leave the tensors as they are."""

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Its own."""
        return [tensor]

    def copy_(self, tensor: Tensor, source: int) -> None:
        """Leave the tensor as it is."""

    def tell(self, value: Any, source: int) -> Any:
        """The value."""
        return value


ALONE = Alone()


class Group:
    """The workers of a torch.distributed process group, started by somebody else (Ray Train, torchrun).

    Attributes:
        moved: Bytes that this worker has received so far, see `sum_bytes`, `gather_bytes` and `copy_bytes`.
    """

    def __init__(self) -> None:
        """Join the default group.

        Raises:
            RuntimeError: torch.distributed has not been initialised.
        """
        self.rank, self.n_workers = dist.get_rank(), dist.get_world_size()
        self.moved = 0.0
        self._by_cpu = dist.get_backend() == "gloo"  # it gathers nothing that lies on a GPU

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """All-reduce small tensors of one dtype together, in one message; large ones as they are, without a copy."""
        small = [t for t in tensors if t.numel() < SMALL]
        for kind in dict.fromkeys(t.dtype for t in small):
            same = [t for t in small if t.dtype == kind]
            flat = torch.cat([t.flatten() for t in same])
            dist.all_reduce(flat)
            for tensor, part in zip(same, flat.split([t.numel() for t in same]), strict=True):
                tensor.copy_(part.view_as(tensor))
        for tensor in tensors:
            if tensor.numel() >= SMALL:
                dist.all_reduce(tensor)
        self.moved += sum(sum_bytes(t, self.n_workers) for t in tensors)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """All-gather."""
        mine = tensor.contiguous()
        mine = mine.cpu() if self._by_cpu else mine
        found = [torch.empty_like(mine) for _ in range(self.n_workers)]
        dist.all_gather(found, mine)
        self.moved += gather_bytes(tensor, self.n_workers)
        return [one.to(tensor.device) for one in found]

    def copy_(self, tensor: Tensor, source: int) -> None:
        """Broadcast."""
        dist.broadcast(tensor, source)
        self.moved += copy_bytes(tensor, self.n_workers)

    def tell(self, value: Any, source: int) -> Any:
        """Broadcast, pickled; its bytes are not counted."""
        box = [value]
        dist.broadcast_object_list(box, source)
        return box[0]


def sum_bytes(tensor: Tensor, n_workers: int) -> float:
    """Bytes that each worker receives for a sum: a ring passes every part of it around twice, but for the own one.

    >>> sum_bytes(torch.zeros(6), 3)
    32.0
    """
    return 2 * (n_workers - 1) / n_workers * tensor.numel() * tensor.element_size()


def gather_bytes(tensor: Tensor, n_workers: int) -> float:
    """Bytes that each worker receives where all get what each has."""
    return float((n_workers - 1) * tensor.numel() * tensor.element_size())


def copy_bytes(tensor: Tensor, n_workers: int) -> float:
    """Bytes that each worker receives where all get what one has; that one receives nothing, and is counted like the others."""
    return float(tensor.numel() * tensor.element_size()) if n_workers > 1 else 0.0
