"""One progress line over samples and tokens, with the time that is left."""

import contextlib
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from linrep.cluster.meter import count

_PREFIX: ContextVar[str] = ContextVar("prefix", default="")


@contextlib.contextmanager
def within(prefix: str) -> Iterator[None]:
    """Displays of the block begin with a prefix: which part of a whole they are."""
    token = _PREFIX.set(prefix)
    try:
        yield
    finally:
        _PREFIX.reset(token)


def announce(what: str, text: str) -> None:
    """Print a line of a stage among those of its progress."""
    print(f"{_PREFIX.get()}{what}: {text}", file=sys.stderr, flush=True)


LOG_SECONDS = 10.0
"""Where there is no terminal, a line is written as often as this."""


class Progress:
    """A bar on a terminal, a line now and then in a log file.

    Args:
        what: Name of the stage.
        total: Samples in all.
        done: Samples that an earlier run did.
        out: Where to write, standard error if None.
        unit: What is counted.
        rate: What the speed is counted in.
    """

    def __init__(
        self, what: str, total: int, done: int = 0, out: TextIO | None = None, unit: str = "samples", rate: str = "tokens"
    ) -> None:
        self._stage, self._rate, what = what, rate, _PREFIX.get() + what
        self._what, self._unit, self._total, self._done, self._tokens = what, unit, total, done, 0
        self._out = sys.stderr if out is None else out
        self._start = self._said = time.monotonic()
        self._counted: tuple[float, int, int] | None = None
        """When the first units were done, and what had been counted by then: what comes before is start-up, not speed."""
        self._bar = None
        if self._out.isatty():
            self._bar = tqdm(
                desc=what,
                total=total,
                initial=done,
                file=self._out,
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} " + unit + "{postfix} [{elapsed}]",
            )
        elif done:
            self._say(f"{what}: {done:,} of {total:,} {unit} were done before")

    def add(self, n_samples: int, n_tokens: int) -> None:
        """Count what a chunk brought, for people and for Prometheus."""
        count(self._stage, self._unit, n_samples)
        if self._rate != self._unit:
            count(self._stage, self._rate, n_tokens)
        self._tokens += n_tokens
        self._done += n_samples
        now = time.monotonic()
        if self._counted is None and n_samples:
            self._counted = now, self._done, self._tokens
        rate, left = self._measured(now)
        tokens = f"{self._tokens:,} {self._rate}" + (f" at {rate:,.0f}/s" if rate is not None else "")
        remaining = f"{tqdm.format_interval(left)} left" if left is not None else ""
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(filter(None, (tokens, remaining))), refresh=False)
            self._bar.update(n_samples)
        elif now - self._said >= LOG_SECONDS or self._done >= self._total:
            share = 100 * self._done / max(self._total, 1)
            gone = f"{tqdm.format_interval(now - self._start)} gone"
            line = f"{self._what}: {share:3.0f}% {self._done:,}/{self._total:,} {self._unit}, {tokens}, {gone}"
            self._say(f"{line}, {remaining}" if remaining else line)

    def _measured(self, now: float) -> tuple[float | None, float | None]:
        """Tokens a second since the first units were done, and the seconds that are left at that pace; None until it is known."""
        if self._done >= self._total:
            return self._tokens / max(now - self._start, 1e-9), 0.0
        if self._counted is None:
            return None, None
        at, done, tokens = self._counted
        seconds = now - at
        if self._done <= done or seconds <= 0:
            return None, None
        return (self._tokens - tokens) / seconds, seconds / (self._done - done) * (self._total - self._done)

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        print(line, file=self._out, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
