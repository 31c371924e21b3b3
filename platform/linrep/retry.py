"""Trying again what may pass: a disk, a store or a server that is away for a moment."""

import time
from collections.abc import Callable, Sequence
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
