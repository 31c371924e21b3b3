"""One progress line over samples and tokens, with the time that is left."""

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

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
        self._rate = rate
        self._what, self._unit, self._total, self._done, self._tokens = what, unit, total, done, 0
        self._first, self._out = done, sys.stderr if out is None else out
        self._start = self._said = time.monotonic()
        self._bar = None
        if self._out.isatty():
            self._bar = tqdm(
                desc=what,
                total=total,
                initial=done,
                file=self._out,
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} " + unit + "{postfix} [{elapsed}<{remaining}]",
            )
        elif done:
            self._say(f"{what}: {done:,} of {total:,} {unit} were done before")

    def add(self, n_samples: int, n_tokens: int) -> None:
        """Count what a chunk brought."""
        self._tokens += n_tokens
        self._done += n_samples
        seconds = max(time.monotonic() - self._start, 1e-9)
        tokens = f"{self._tokens:,} {self._rate} at {self._tokens / seconds:,.0f}/s"
        if self._bar is not None:
            self._bar.set_postfix_str(tokens, refresh=False)
            self._bar.update(n_samples)
        elif time.monotonic() - self._said >= LOG_SECONDS or self._done >= self._total:
            left = seconds / max(self._done - self._first, 1) * (self._total - self._done)
            share = 100 * self._done / max(self._total, 1)
            line = f"{self._what}: {share:3.0f}% {self._done:,}/{self._total:,} {self._unit}, {tokens}"
            self._say(f"{line}, {tqdm.format_interval(seconds)} gone, {tqdm.format_interval(left)} left")

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        print(line, file=self._out, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
