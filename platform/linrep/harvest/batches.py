"""Micro-batches of a stream of samples: packed by length as a whole chunk would be, with a bounded number of samples at hand."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

from linrep.vlm.batch import pack

WINDOW_BYTES = 192 * 10**6
"""Bytes of prepared samples that wait to be packed: 113 images of five tiles of 336 pixels. Of images of mixed sizes, batches of
8,192 positions then hold as little padding as if chunks of 512 were packed whole (bench/feed.py)."""


@runtime_checkable
class Weighed(Protocol):
    """What packing asks of a sample: `len` gives its positions."""

    def __len__(self) -> int: ...

    @property
    def n_bytes(self) -> int:
        """What it weighs at hand."""
        ...


S = TypeVar("S", bound=Weighed)


def micro_batches(prepared: Iterable[S], tokens_per_batch: int, window: int = WINDOW_BYTES) -> Iterator[list[S]]:
    """Samples of similar length together. Decided by the samples and their order alone, never by when they come.

    As soon as the samples at hand are more than the window, they are packed, and batches leave, those with the least padding
    first, until half a window is left. The shortest one stays: with more samples it may be fuller. What the window holds at the
    end leaves longest first; a chunk that fits into the window is packed as a whole.

    Args:
        prepared: Samples of one chunk; taken as there is room.
        tokens_per_batch: Most positions of a batch, see `linrep.vlm.batch.pack`.
        window: Bytes at hand, beside the latest sample.
    """
    held: list[S] = []
    n_bytes = 0
    for one in prepared:
        held.append(one)
        n_bytes += one.n_bytes
        if n_bytes <= window:
            continue
        lengths = [len(own) for own in held]
        packed = pack(lengths, tokens_per_batch)
        left: list[S | None] = [*held]
        held.clear()  # what has left must not stay in memory
        for indices in sorted(packed[:-1], key=lambda indices: _padding([lengths[i] for i in indices])):
            if n_bytes <= window // 2:
                break
            batch = [own for i in indices if (own := left[i]) is not None]
            for i in indices:
                left[i] = None
            n_bytes -= sum(own.n_bytes for own in batch)
            yield batch
        held += [own for own in left if own is not None]
    for indices in pack([len(own) for own in held], tokens_per_batch):
        yield [held[i] for i in indices]


def _padding(lengths: list[int]) -> float:
    """The share of a batch's positions that hold nothing."""
    return 1 - sum(lengths) / (max(lengths) * len(lengths))
