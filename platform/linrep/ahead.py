"""Several calls at once, results in order: what waits for a store or a disk, not what computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_order(call: Callable[[A], B], items: Iterable[A], at_once: int) -> Iterator[B]:
    """What a call gives for each item, in the order of the items.

    At any time at most `at_once` items are under way or wait to be taken: so much memory it needs. An error ends it: no
    further call begins, and those that run are awaited.

    Args:
        call: Runs in a thread; with one at once it runs in the caller's.
        items: Taken as there is room.
        at_once: Calls, at most.

    >>> list(in_order(abs, [-3, 2, -1], 2))
    [3, 2, 1]
    """
    if at_once == 1:
        yield from map(call, items)
        return
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) == at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
