"""An endless, shuffled stream of one view, layer and modality; the same from any saved position, for any number of workers.

In each pass over the store the row groups are put in a new order. They are taken up several at a time, as many as hold
`shuffle_rows`, and the rows of all of them are mixed: neighbours in the stream come from many files. So a position is three
numbers (pass, pool of groups, row in it), and memory does not depend on the size of the store: one pool is read from while a
thread reads the next. From an object store eight groups are read at a time, with at most two requests each.

Of several workers each reads every n-th pool, and passes its rows on to the others: all get the rows that one alone would get,
and n pools are read at the same time.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped

from linrep.ahead import in_order
from linrep.errors import LinrepError, StoreError
from linrep.store.groups import EXPONENTS, GroupRows, Keep, RowGroup, read_group
from linrep.store.sealed import Opened
from linrep.store.selection import Selection
from linrep.workers import ALONE, Workers

GROUPS_AT_ONCE = 8
"""Row groups that are read at once from an object store: 256 MB at most, beside the rows of two pools."""
REASONS: tuple[str, ...] = ("special", "high_norm", "nonfinite")


@dataclass(frozen=True)
class _Head:
    """What all workers know of a pool: its rows, whether they have factors, and what was left out."""

    n: int
    factors: bool
    left_out: dict[str, int]
    first_nonfinite: str | None


@dataclass(frozen=True)
class _Pool:
    """Rows of some groups; None where another worker has read them."""

    head: _Head
    vectors: Shaped[np.ndarray, "n d"] | None = None
    factors: Float[np.ndarray, " n"] | None = None


@dataclass(frozen=True)
class Taken:
    """Rows of the stream: as stored (bfloat16 as its 16 bits), and what to multiply them by, None for nothing."""

    vectors: Shaped[np.ndarray, "n d"]
    factors: Float[np.ndarray, " n"] | None


class Stream:
    """Rows in an order that is a function of seed and pass; see the module.

    Attributes:
        left_out: Rows passed over so far by reason (special, high_norm, nonfinite); those clipped count under high_norm.
        rows: Rows read so far that count.
        first_nonfinite: Where the first row that is not finite was met, in words.
    """

    def __init__(
        self,
        selection: Selection,
        groups: Sequence[RowGroup],
        keep: Keep,
        seed: int,
        workers: Workers = ALONE,
        shuffle_rows: int = 65536,
    ) -> None:
        """Begin at the first row; nothing is read yet.

        Args:
            selection: The store's files of one view, layer and modality.
            groups: Their row groups, see `linrep.store.groups.row_groups`.
            keep: Which rows count.
            seed: Of the order.
            workers: Who takes the same rows at the same time.
            shuffle_rows: Rows mixed at once; each worker holds twice as many.

        Raises:
            StoreError: There are no rows.
        """
        if not sum(group.rows for group in groups):
            raise StoreError(f"no rows in {selection.place} to stream")
        self._selection, self._groups, self._keep = selection, tuple(groups), keep
        self._seed, self._workers, self._shuffle_rows = seed, workers, shuffle_rows
        self._epoch, self._number, self._offset = 0, 0, 0
        self.left_out, self.rows = dict.fromkeys(REASONS, 0), 0
        self.first_nonfinite: str | None = None
        self._pool: _Pool | None = None
        self._counted = False
        self._ahead: tuple[tuple[int, int], Future[_Pool]] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._opened = Opened()
        self._plans: dict[int, list[list[RowGroup]]] = {}

    @property
    def epoch(self) -> int:
        """Passes over the store that are complete."""
        return self._epoch

    def take(self, n: int) -> Taken:
        """The next n rows; all workers take as many.

        Raises:
            StoreError: A file cannot be read, or a whole pass has no row that counts.
        """
        pieces: list[Taken] = []
        missing = n
        while missing:
            pool = self._current()
            end = min(self._offset + missing, pool.head.n)
            pieces.append(self._passed_on(pool, slice(self._offset, end)))
            missing -= end - self._offset
            self._offset = end
        if len(pieces) == 1:
            return pieces[0]
        factors = None
        if any(piece.factors is not None for piece in pieces):
            factors = np.concatenate([_ones(piece) if piece.factors is None else piece.factors for piece in pieces])
        return Taken(np.concatenate([piece.vectors for piece in pieces]), factors)

    def state_dict(self) -> dict[str, Any]:
        """The position: the row that `take` would give next, and what was counted on the way."""
        return {
            "epoch": self._epoch,
            "pool": self._number,
            "offset": self._offset,
            "counted": self._counted,
            "rows": self.rows,
            "left_out": dict(self.left_out),
            "first_nonfinite": self.first_nonfinite,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position of the same stream."""
        self._epoch, self._number, self._offset = state["epoch"], state["pool"], state["offset"]
        self._counted, self.rows, self.left_out = state["counted"], state["rows"], dict(state["left_out"])
        self.first_nonfinite = state["first_nonfinite"]
        self._pool = None

    def close(self) -> None:
        """End the reading thread; the stream may be used again, and starts a new one."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._thread = self._ahead = None

    def _current(self) -> _Pool:
        """The pool that holds the next row."""
        empty = 0
        while self._pool is None or self._offset >= self._pool.head.n:
            if self._pool is not None:
                empty = empty + 1 if not self._pool.head.n else 0
                if empty > len(self._pools(self._epoch)):
                    raise StoreError(
                        f"no row of {self._groups[0].path.rsplit('/', 1)[0]} in {self._selection.place} counts: "
                        f"left out: {', '.join(f'{n:,} {why}' for why, n in self.left_out.items())}; the rest is in other splits"
                    )
                self._epoch, self._number = self._after(self._epoch, self._number)
                self._offset, self._counted = 0, False
            self._pool = self._fetch(self._epoch, self._number)
            if not self._counted:
                self._count(self._pool.head)
        return self._pool

    def _count(self, head: _Head) -> None:
        self._counted = True
        self.rows += head.n
        for why in REASONS:
            self.left_out[why] += head.left_out.get(why, 0)
        self.first_nonfinite = self.first_nonfinite or head.first_nonfinite

    def _passed_on(self, pool: _Pool, rows: slice) -> Taken:
        """Rows of a pool, from the worker that has read it."""
        if self._workers.n_workers == 1:
            assert pool.vectors is not None
            return Taken(pool.vectors[rows], None if pool.factors is None else pool.factors[rows])
        n, source = rows.stop - rows.start, self._reader(self._epoch, self._number)
        kind = EXPONENTS[self._selection.dtype][0]
        vectors = np.empty((n, self._selection.width), kind) if pool.vectors is None else pool.vectors[rows].copy()
        factors = np.ones(n, np.float32) if pool.factors is None else pool.factors[rows].copy()
        for values in (vectors, *([factors] if pool.head.factors else [])):
            self._workers.copy_(torch.from_numpy(values.view(np.uint8)), source)
        return Taken(vectors, factors if pool.head.factors else None)

    def _reader(self, epoch: int, number: int) -> int:
        """The worker that reads a pool."""
        return (epoch + number) % self._workers.n_workers

    def _fetch(self, epoch: int, number: int) -> _Pool:
        """A pool, read before if it was foreseen; then the thread goes on to the next that this worker reads."""
        self._thread = self._thread or ThreadPoolExecutor(1, "store")
        reader, pool, error = self._reader(epoch, number), None, None
        if reader == self._workers.rank:
            ahead, self._ahead = self._ahead, None
            try:
                if ahead is not None and ahead[0] == (epoch, number):
                    pool = ahead[1].result()
                else:
                    pool = self._thread.submit(self._load, epoch, number).result()
            except LinrepError as failed:
                error = failed
        said = self._workers.tell(error if pool is None else pool.head, reader)
        if isinstance(said, LinrepError):  # all end by it: none waits for rows that do not come
            raise said
        if self._ahead is None:
            following = self._after(epoch, number)
            while self._reader(*following) != self._workers.rank:
                following = self._after(*following)
            self._ahead = following, self._thread.submit(self._load, *following)
        return _Pool(said) if pool is None else pool

    def _after(self, epoch: int, number: int) -> tuple[int, int]:
        return (epoch, number + 1) if number + 1 < len(self._pools(epoch)) else (epoch + 1, 0)

    def _load(self, epoch: int, number: int) -> _Pool:
        def read(group: RowGroup) -> GroupRows:
            return read_group(self._selection, group, self._keep, self._opened)

        at_once = min(GROUPS_AT_ONCE, self._selection.place.at_once)
        parts = list(in_order(read, self._pools(epoch)[number], at_once))
        n = sum(len(part.vectors) for part in parts)
        order = self._draw(epoch, number + 1, 1).permutation(n)
        vectors = np.empty((n, self._selection.width), EXPONENTS[self._selection.dtype][0])
        factors = np.ones(n, np.float32) if any(part.factors is not None for part in parts) else None
        left, first, start = dict.fromkeys(REASONS, 0), None, 0
        for i, part in enumerate(parts):
            to = order[start : start + len(part.vectors)]
            vectors[to] = part.vectors
            if factors is not None and part.factors is not None:
                factors[to] = part.factors
            for why, count in part.left_out.items():
                left[why] += count
            first = first or part.first_nonfinite
            start += len(part.vectors)
            parts[i] = None  # pyright: ignore[reportArgumentType, reportCallIssue]  # its memory goes as its rows are placed
        return _Pool(_Head(n, factors is not None, left, first), vectors, factors)

    def _pools(self, epoch: int) -> list[list[RowGroup]]:
        """What is read in a pass, pool by pool: groups in a new order."""
        known = self._plans.get(epoch)  # two threads ask; at worst both work it out
        if known is not None:
            return known
        pools: list[list[RowGroup]] = [[]]
        rows = 0
        for i in self._draw(epoch, 0, 0).permutation(len(self._groups)):
            group = self._groups[i]
            if not group.rows:
                continue
            if rows >= self._shuffle_rows:
                pools.append([])
                rows = 0
            pools[-1].append(group)
            rows += group.rows
        self._plans = {epoch: pools, **{e: p for e, p in self._plans.items() if e == epoch - 1}}
        return pools

    def _draw(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *what])


def _ones(taken: Taken) -> Float[np.ndarray, " n"]:
    return np.ones(len(taken.vectors), np.float32)
