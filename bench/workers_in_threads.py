"""Threads as workers: each waits for all, and all read the same sum; what they move is counted as a process group counts it."""

import threading
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeVar

import torch
from torch import Tensor

from linrep.workers import copy_bytes, gather_bytes, sum_bytes

T = TypeVar("T")


class Shared:
    """What the threads have in common."""

    def __init__(self, n: int) -> None:
        self.n, self.barrier, self.slots = n, threading.Barrier(n, timeout=60), [None] * n

    def worker(self, rank: int) -> "Member":
        return Member(self, rank)


class Member:
    """One of them."""

    def __init__(self, shared: Shared, rank: int) -> None:
        self.shared, self.rank, self.n_workers, self.moved = shared, rank, shared.n, 0.0

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        all_ = self._exchange([t.clone() for t in tensors])
        for tensor, parts in zip(tensors, zip(*all_, strict=True), strict=True):
            tensor.copy_(reduce(torch.add, parts))
        self.moved += sum(sum_bytes(t, self.n_workers) for t in tensors)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        self.moved += gather_bytes(tensor, self.n_workers)
        found = self._exchange(tensor.clone())
        assert len({one.shape for one in found}) == 1, "workers gather tensors of other shapes"
        return found

    def copy_(self, tensor: Tensor, source: int) -> None:
        self.moved += copy_bytes(tensor, self.n_workers)
        tensor.copy_(self._exchange(tensor.clone())[source])

    def tell(self, value: Any, source: int) -> Any:
        return self._exchange(value)[source]

    def _exchange(self, mine: Any) -> list[Any]:
        self.shared.slots[self.rank] = mine
        self.shared.barrier.wait()
        found = list(self.shared.slots)
        self.shared.barrier.wait()
        return found


def together(n: int, work: Callable[[Member], T]) -> list[T]:
    """What each of n workers returns; the first error of one ends all."""
    shared, found, errors = Shared(n), [None] * n, []

    def run(rank: int) -> None:
        try:
            found[rank] = work(shared.worker(rank))  # type: ignore[call-overload]
        except threading.BrokenBarrierError:
            pass  # another one's error
        except BaseException as error:
            errors.append(error)
            shared.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found  # type: ignore[return-value]
