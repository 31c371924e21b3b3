"""An endless, shuffled stream of one view, layer and modality for one of several workers; the same from any saved position.

In each pass over the store the row groups are put in a new order and dealt out to the workers. A worker takes its groups up
several at a time, as many as hold `shuffle_rows`, and mixes the rows of all of them: neighbours in the stream come from many
files. So a position is three numbers (pass, pool of groups, row in it), and memory does not depend on the size of the store:
one pool is read from while a thread reads the next. From an object store eight groups are read at a time, with at most two
requests each; the order of the rows is the same.
"""

import heapq
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from linrep.ahead import in_order
from linrep.errors import StoreError
from linrep.store.groups import EXPONENTS, GroupRows, Keep, RowGroup, read_group
from linrep.store.sealed import Opened
from linrep.store.selection import Selection

GROUPS_AT_ONCE = 8
"""Row groups that are read at once from an object store: 256 MB at most, beside the rows of two pools."""
PARTS_PER_WORKER = 4
"""Where there are fewer row groups than this for each worker, groups are divided, so that no worker waits for another's rows."""
REASONS: tuple[str, ...] = ("special", "high_norm", "nonfinite")


@dataclass(frozen=True)
class Share:
    """Which worker this is, counted from 0, and of how many."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class _Unit:
    group: RowGroup
    part: int
    parts: int

    @property
    def rows(self) -> int:
        return len(range(self.part, self.group.rows, self.parts))


@dataclass(frozen=True)
class _Pool:
    vectors: Shaped[np.ndarray, "n d"]
    factors: Float[np.ndarray, " n"] | None
    left_out: dict[str, int]
    first_nonfinite: str | None


@dataclass(frozen=True)
class Taken:
    """Rows of the stream: as stored (bfloat16 as its 16 bits), and what to multiply them by, None for nothing."""

    vectors: Shaped[np.ndarray, "n d"]
    factors: Float[np.ndarray, " n"] | None


class Stream:
    """Rows in an order that is a function of seed, pass and number of workers; see the module.

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
        share: Share = Share(),
        shuffle_rows: int = 65536,
    ) -> None:
        """Begin at the first row; nothing is read yet.

        Args:
            selection: The store's files of one view, layer and modality.
            groups: Their row groups, see `linrep.store.groups.row_groups`.
            keep: Which rows count.
            seed: Of the order.
            share: Which worker this is.
            shuffle_rows: Rows mixed at once; twice as many are held.

        Raises:
            StoreError: There are no rows.
        """
        if not sum(group.rows for group in groups):
            raise StoreError(f"no rows in {selection.place} to stream")
        self._selection, self._groups, self._keep = selection, tuple(groups), keep
        self._seed, self._share, self._shuffle_rows = seed, share, shuffle_rows
        self._epoch, self._number, self._offset = 0, 0, 0
        self.left_out, self.rows = dict.fromkeys(REASONS, 0), 0
        self.first_nonfinite: str | None = None
        self._pool: _Pool | None = None
        self._counted = False
        self._ahead: tuple[tuple[int, int], Future[_Pool]] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._opened = Opened()
        self._plans: dict[int, list[list[_Unit]]] = {}

    @property
    def epoch(self) -> int:
        """Passes over the store that are complete."""
        return self._epoch

    def take(self, n: int) -> Taken:
        """The next n rows.

        Raises:
            StoreError: A file cannot be read, or a whole pass has no row that counts.
        """
        pieces: list[Taken] = []
        missing = n
        while missing:
            pool = self._current()
            end = min(self._offset + missing, len(pool.vectors))
            rows = slice(self._offset, end)
            pieces.append(Taken(pool.vectors[rows], None if pool.factors is None else pool.factors[rows]))
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
        while self._pool is None or self._offset >= len(self._pool.vectors):
            if self._pool is not None:
                empty = empty + 1 if not len(self._pool.vectors) else 0
                if empty > len(self._pools(self._epoch)):
                    raise StoreError(
                        f"no row of {self._groups[0].path.rsplit('/', 1)[0]} in {self._selection.place} counts: "
                        f"left out: {', '.join(f'{n:,} {why}' for why, n in self.left_out.items())}; the rest is in other splits"
                    )
                self._epoch, self._number = self._after(self._epoch, self._number)
                self._offset, self._counted = 0, False
            self._pool = self._fetch(self._epoch, self._number)
            if not self._counted:
                self._count(self._pool)
        return self._pool

    def _count(self, pool: _Pool) -> None:
        self._counted = True
        self.rows += len(pool.vectors)
        for why in REASONS:
            self.left_out[why] += pool.left_out.get(why, 0)
        self.first_nonfinite = self.first_nonfinite or pool.first_nonfinite

    def _fetch(self, epoch: int, number: int) -> _Pool:
        """A pool, read before if it was foreseen; then the thread goes on to the one after it."""
        self._thread = self._thread or ThreadPoolExecutor(1, "store")
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == (epoch, number):
            pool = ahead[1].result()
        else:
            pool = self._thread.submit(self._load, epoch, number).result()
        following = self._after(epoch, number)
        self._ahead = following, self._thread.submit(self._load, *following)
        return pool

    def _after(self, epoch: int, number: int) -> tuple[int, int]:
        return (epoch, number + 1) if number + 1 < len(self._pools(epoch)) else (epoch + 1, 0)

    def _load(self, epoch: int, number: int) -> _Pool:
        def read(u: _Unit) -> GroupRows:
            return read_group(self._selection, u.group, self._keep, u.part, u.parts, self._opened)

        at_once = min(GROUPS_AT_ONCE, self._selection.place.at_once)
        parts = list(in_order(read, self._pools(epoch)[number], at_once))
        n = sum(len(part.vectors) for part in parts)
        order = self._draw(epoch, number + 1, self._share.rank + 1).permutation(n)
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
        return _Pool(vectors, factors, left, first)

    def _pools(self, epoch: int) -> list[list[_Unit]]:
        """What this worker reads in a pass, pool by pool: groups in a new order, each to the worker with fewest rows so far."""
        known = self._plans.get(epoch)  # two threads ask; at worst both work it out
        if known is not None:
            return known
        world = self._share.world
        parts = 1 if world == 1 else max(1, -(-PARTS_PER_WORKER * world // len(self._groups)))
        loads = [(0, rank) for rank in range(world)]
        pools: list[list[_Unit]] = [[]]
        rows = 0
        for i in self._draw(epoch, 0, 0).permutation(len(self._groups)):
            for part in range(parts):
                unit = _Unit(self._groups[i], part, parts)
                load, rank = heapq.heappop(loads)
                heapq.heappush(loads, (load + unit.rows, rank))
                if rank != self._share.rank or not unit.rows:
                    continue
                if rows >= self._shuffle_rows:
                    pools.append([])
                    rows = 0
                pools[-1].append(unit)
                rows += unit.rows
        self._plans = {epoch: pools, **{e: p for e, p in self._plans.items() if e == epoch - 1}}
        return pools

    def _draw(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *what])


def _ones(taken: Taken) -> Float[np.ndarray, " n"]:
    return np.ones(len(taken.vectors), np.float32)
