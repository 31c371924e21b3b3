"""Signals of processes that tests start."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def hangups_heard() -> Iterator[None]:
    """What is started in the block hears SIGHUP, also where whoever runs the tests ignores it, as `nohup` does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
