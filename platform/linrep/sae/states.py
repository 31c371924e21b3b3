"""States of a run under way: each worker saves its own latents, and a list names a state once all have saved theirs.

A run may go on with another number of workers: each then takes its latents from the files that have them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from linrep.errors import StoreError
from linrep.places import Place, remove_file
from linrep.sae.shard import Shard, joined
from linrep.sae.train import Trainer
from linrep.workers import Workers

KEPT = 2
"""States that are kept."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come, beside its trainers; the same on all workers.

    Attributes:
        position: Of the rows.
        history: The reports so far.
        workers: Numbers of workers that the run has had, one after the other.
    """

    position: Mapping[str, Any]
    history: list[dict[str, Any]]
    workers: tuple[int, ...]


@dataclass(frozen=True)
class States:
    """The states of one layer's run.

    Attributes:
        folder: Where they lie.
        name: The layer's.
    """

    folder: Place
    name: str

    @property
    def index(self) -> Place:
        """Names the states that are whole, newest first; it is written after them."""
        return self.folder / f"{self.name}.json"

    def file(self, step: int, rank: int = 0, n_workers: int = 1) -> Place:
        """What a worker saved after a step. A new name each time: a save that fails harms no other."""
        return self.folder / f"{self.name}-{step:09d}{'' if n_workers == 1 else f'-{rank}-of-{n_workers}'}.pt"

    def saved(self) -> list[tuple[int, int]]:
        """Steps whose states are kept, newest first, and the workers that saved each.

        Raises:
            StoreError: The list is damaged.
        """
        if not self.index.is_file():
            return []
        try:
            found = [(step, n) for step, n in self.index.read_json()["saved"]]
            if not found or not all(type(step) is int and type(n) is int and n > 0 for step, n in found):
                raise ValueError("names no steps")
            return found
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{self.index} is damaged: delete it to train the layer from its start") from None

    def save(self, trainers: Sequence[Trainer], progress: Progress, workers: Workers) -> None:
        """Keep the state of now; the oldest goes. All workers save together."""
        step, before = trainers[0].step, self.saved() if workers.rank == 0 else []
        state = {"trainers": [trainer.state_dict() for trainer in trainers], **vars(progress)}
        with self.file(step, workers.rank, workers.n_workers).writing() as stream:
            torch.save(state, stream)
        _agree(True, trainers[0], workers)  # all files are there
        if workers.rank != 0:
            return
        kept = [(step, workers.n_workers), *(one for one in before if one[0] != step)][:KEPT]
        self.index.write_json({"saved": kept})
        for old in before:
            if old not in kept:
                for rank in range(old[1]):
                    remove_file(self.file(old[0], rank, old[1]))

    def load(self, trainers: Sequence[Trainer], workers: Workers) -> Progress | None:
        """Set trainers to the newest state that all workers can read; None where none was saved.

        Raises:
            StoreError: States were saved, and none can be read.
        """
        saved, said = self.saved(), ""
        for step, n in saved:
            states: dict[int, Any] = {}
            for rank in _ranks(trainers, n):
                file = self.file(step, rank, n)
                try:
                    with file.open() as stream:
                        states[rank] = torch.load(stream, map_location="cpu", weights_only=True)
                except Exception as error:  # an unpickler raises anything for bytes that are none of its own
                    if file.may_pass(error):
                        raise  # a store did not answer: what it holds may be whole
                    said = said or f"{file.name}: " + " ".join(str(error).split())[:200]
            # All take the same state: where one cannot read its own, none does.
            if _agree(len(states) == len(_ranks(trainers, n)), trainers[0], workers):
                for i, trainer in enumerate(trainers):
                    trainer.load_state_dict(_own(trainer, {rank: state["trainers"][i] for rank, state in states.items()}, n))
                first = next(iter(states.values()))
                return Progress(first["position"], first["history"], tuple(first["workers"]))
        if saved:
            why = said or "another worker cannot read its state"
            raise StoreError(f"{self.index} is damaged ({why}): delete it to train the layer from its start")
        return None

    def remove(self) -> None:
        """Delete what the committed layer no longer needs; states of saves that were killed before they were named, too."""
        for name in self.folder.names():
            if name == self.index.name or (name.startswith(f"{self.name}-") and name.endswith(".pt")):
                remove_file(self.folder / name)


def _ranks(trainers: Sequence[Trainer], n: int) -> list[int]:
    """Of n workers, those that had a latent of these trainers; with as many workers now, it is one."""
    return [
        rank for rank in range(n) if any(trainer.shard.meets(Shard.of(trainer.shard.n_latents, rank, n)) for trainer in trainers)
    ]


def _own(trainer: Trainer, states: Mapping[int, Any], n: int) -> dict[str, Any]:
    """What a trainer goes on from, of the states of n workers that have something of it."""
    had = [(Shard.of(trainer.shard.n_latents, rank, n), state) for rank, state in states.items()]
    exact = [state for shard, state in had if shard == trainer.shard]
    return exact[0] if exact else joined(had, trainer.shard, trainer.common)


def _agree(mine: bool, trainer: Trainer, workers: Workers) -> bool:
    """Whether all workers say yes; they wait for each other."""
    answer = torch.tensor([int(mine)], device=trainer.weights["b_dec"].device)
    return all(bool(each) for each in workers.gather(answer))
