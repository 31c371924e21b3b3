"""Trying again what may pass: a disk, a store or a server that is away for a moment."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def retried(call: Callable[[], T], pauses: Sequence[float], may_pass: Callable[[Exception], bool]) -> T:
    """What the call returns; tried again after each pause as long as its error may pass.

    Args:
        call: What to do; doing it twice must be as good as once.
        pauses: Seconds before each further try.
        may_pass: Whether an error may be gone the next time.

    Raises:
        Exception: The first error that will not pass, or the last one.
    """
    for pause in pauses:
        try:
            return call()
        except Exception as error:
            if not may_pass(error):
                raise
        time.sleep(pause)
    return call()


def resumed(begin: Callable[[int], Iterator[T]], pauses: Sequence[float], may_pass: Callable[[Exception], bool]) -> Iterator[T]:
    """The items of an iterator that may fail on its way: after each pause it begins again behind what it has given.

    Args:
        begin: Gives the items from some place on, the same ones each time.
        pauses: Seconds before each further try, of all items together.
        may_pass: Whether an error may be gone the next time.

    Raises:
        Exception: The first error that will not pass, or the last one.

    >>> list(resumed(lambda n: iter("abc"[n:]), (), lambda error: False))
    ['a', 'b', 'c']
    """
    given, left = 0, list(pauses)
    while True:
        try:
            for item in begin(given):
                given += 1
                yield item
            return
        except Exception as error:
            if not left or not may_pass(error):
                raise
        time.sleep(left.pop(0))
