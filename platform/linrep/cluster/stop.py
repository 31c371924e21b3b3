"""Signals that end a job: each becomes one KeyboardInterrupt, so that whatever happens, what is open is closed."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
AGAIN_S = 0.3
"""A stop that somebody has swallowed is raised again after this time."""
PATIENCE_S = 2.0
"""Signals that follow the first within this time say the same again; a later one ends the process at once."""


@dataclass
class Stop:
    """What has been heard so far.

    Attributes:
        number: The first signal, None before there is one.
        ended: Whether the job is over: a signal then has nothing to close any more.
        alone: Whether the process is the job's own: what others print while it ends is then kept from the terminal.
    """

    number: int | None = None
    ended: bool = False
    alone: bool = False
    _at: float = 0.0
    _kept: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Kept from the start: when a signal comes, standard error may be somebody's who has silenced it for a while.
        for number in (1, 2) if self.alone else ():
            with contextlib.suppress(OSError):  # one of them may be closed
                self._kept.append((os.dup(number), number))

    def hear(self, number: int, _: object = None) -> None:
        """Take in a signal."""
        if self.ended or (self.number is not None and time.monotonic() - self._at > PATIENCE_S):
            os._exit(128 + number)
        if self.number is None:
            self.number, self._at = number, time.monotonic()
            if self.alone:
                self._hush()
            self._raise()

    def hear_again(self, *_: object) -> None:
        """Raise the stop once more, unless it is on its way: libraries catch everything in places, and go on."""
        error, seen = sys.exc_info()[1], set()
        while error is not None and id(error) not in seen:
            if isinstance(error, KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
                return
            seen.add(id(error))
            error = error.__context__
        self._raise()

    def arrived(self) -> None:
        """The stop has come to where it is meant to be caught."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _raise(self) -> NoReturn:
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        raise KeyboardInterrupt

    def _hush(self) -> None:
        """Nothing more on standard output and error: Ray reports at length, in lines of its own, what it is ending."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for _, number in self._kept:
            os.dup2(nowhere, number)
        os.close(nowhere)

    def speak(self) -> None:
        """Print again."""
        for kept, number in self._kept:
            os.dup2(kept, number)

    @property
    def word(self) -> str:
        """How the job ended, for people."""
        return WORDS[signal.Signals(self.number or signal.SIGINT)]

    @property
    def status(self) -> int:
        """The exit status that shells expect."""
        return 128 + (self.number or signal.SIGINT)


def ending() -> bool:
    """Whether this process has heard a signal and says no more until its job has ended."""
    owners = [getattr(signal.getsignal(number), "__self__", None) for number in WORDS]
    return any(isinstance(owner, Stop) and owner.alone and owner.number is not None for owner in owners)


def listen(stop: Stop) -> Callable[[], None]:
    """Let a stop hear the signals of this process; those that are ignored stay so. Returns what ends it again."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = {number: signal.getsignal(number) for number in WORDS}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, stop.hear)
    alarm = signal.signal(signal.SIGALRM, stop.hear_again)

    def end() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        for number in heard:
            signal.signal(number, before[number])

    return end


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    """Put handlers of signals back after the block, whoever replaces them in it, and take an exit that those ask for as a stop.

    Ray's start has SIGTERM end the process by `sys.exit`, from wherever it comes: in its C++ core that is an abort.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in WORDS}
    try:
        yield
    except SystemExit as error:
        owner = getattr(before[signal.SIGTERM], "__self__", None)
        if not isinstance(owner, Stop):
            raise
        with contextlib.suppress(KeyboardInterrupt):
            owner.hear(signal.SIGTERM)
        raise KeyboardInterrupt from error
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
