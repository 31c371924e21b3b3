"""Latents over workers: each has a run of them, with all that belongs to a latent; states are cut and joined along them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BY_NAME = ("weights", "mean", "square")
"""Parts of a trainer's state that hold tensors by the names of weights."""


@dataclass(frozen=True)
class Shard:
    """A run of an SAE's latents.

    Attributes:
        first: Its first latent.
        last: One after its last.
        n_latents: Of the whole SAE.
    """

    first: int
    last: int
    n_latents: int

    @classmethod
    def of(cls, n_latents: int, rank: int, n_workers: int) -> "Shard":
        """What a worker has: as many as the others, give or take one.

        Args:
            n_latents: Of the whole SAE.
            rank: Which worker.
            n_workers: Of how many.

        Raises:
            ValueError: There are more workers than latents.

        >>> [(s.first, s.last) for s in (Shard.of(10, rank, 3) for rank in range(3))]
        [(0, 3), (3, 6), (6, 10)]
        """
        if n_workers > n_latents:
            raise ValueError(f"{n_latents} latents cannot lie on {n_workers} workers: one each at least")
        return cls(n_latents * rank // n_workers, n_latents * (rank + 1) // n_workers, n_latents)

    def __len__(self) -> int:
        return self.last - self.first

    @property
    def whole(self) -> bool:
        """Whether it has all latents."""
        return len(self) == self.n_latents

    def meets(self, other: "Shard") -> bool:
        """Whether they have a latent in common."""
        return self.first < other.last and other.first < self.last


def widest(n_latents: int, n_workers: int) -> int:
    """Latents of the largest shard."""
    return -(-n_latents // n_workers)


def joined(states: Sequence[tuple[Shard, Mapping[str, Any]]], wanted: Shard, common: Collection[str]) -> dict[str, Any]:
    """The state of a trainer that has some latents, from those of trainers that had others, right after a report.

    What is counted for the next report lies on all of them, and is not put together.

    Args:
        states: States with the latents that they are of, rising; together they have all that is wanted.
        wanted: The latents.
        common: Names of weights that are whole in each state, as they are no rows of latents.
    """

    def rows(of: Sequence[Tensor]) -> Tensor:
        return torch.cat([
            tensor[max(wanted.first - shard.first, 0) : max(wanted.last - shard.first, 0)]
            for (shard, _), tensor in zip(states, of, strict=True)
        ])  # fmt: skip

    found: dict[str, Any] = dict(states[0][1])
    for part in BY_NAME:
        found[part] = {
            name: tensor if name in common else rows([state[part][name] for _, state in states])
            for name, tensor in found[part].items()
        }
    return found | {"since_fired": rows([state["since_fired"] for _, state in states])}
