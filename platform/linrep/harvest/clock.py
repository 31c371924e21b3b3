"""Where the time of a harvest goes: seconds by what they were spent on, those of a GPU by its own clock."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Work = Literal["read", "decode", "prepare", "forward", "copy", "write", "wait"]
"""What time is spent on.

Readers, on any node: read (until the bytes of samples are there), decode (images out of their bytes), prepare (tiles cut, prompts
spelled). Actors: forward (the model runs, with what is kept of each layer and its way to the host), copy (micro-batches put
together and their rows made tables, on the host), write (files, beside the next forward pass), wait (a device has had nothing to
run since its last micro-batch).
"""


class Clock:
    """Seconds by what they were spent on; several threads may add. Most of it happens at once: it is no division of one time."""

    def __init__(self) -> None:
        self._seconds: dict[Work, float] = dict.fromkeys(get_args(Work), 0.0)
        self._adding = threading.Lock()

    def add(self, work: Work, seconds: float) -> None:
        """Count some seconds."""
        with self._adding:
            self._seconds[work] += seconds

    @contextmanager
    def measure(self, work: Work, within: Work | None = None) -> Iterator[None]:
        """Count the time that the block takes.

        Args:
            work: What it is spent on.
            within: What is measured around the block: there it is not counted again.
        """
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            self.add(work, seconds)
            if within is not None:
                self.add(within, -seconds)

    def take_in(self, seconds: Mapping[Work, float]) -> None:
        """Count what another clock has measured."""
        for work, n in seconds.items():
            self.add(work, n)

    @property
    def seconds(self) -> dict[Work, float]:
        """What was counted so far."""
        with self._adding:
            return dict(self._seconds)


def shares(seconds: Mapping[Work, float]) -> dict[Work, float]:
    """Seconds for each second of a device, whether it runs or waits; nothing where no device has run."""
    devices = seconds["forward"] + seconds["wait"]
    return {work: n / devices for work, n in seconds.items()} if devices else {}


def time_line(seconds: Mapping[Work, float]) -> str:
    """The shares in words."""
    own = {work: f"{work} {share:.0%}" for work, share in shares(seconds).items()}
    if not own:
        return "time: no device has run"
    beside = ", ".join(own[work] for work in ("read", "decode", "prepare", "copy", "write"))
    total = seconds["forward"] + seconds["wait"]
    return f"time: {total:,.0f} s of devices: {own['forward']}, {own['wait']}; beside them, in the same measure, {beside}"


Point = float | torch.cuda.Event
Moment = tuple[Point, ...]
"""A point in time of each device: of a GPU the end of what was queued there until then."""


def moment(devices: Sequence[torch.device]) -> Moment:
    """Now. Nothing waits for a GPU."""
    return tuple(_event(device) if device.type == "cuda" else time.perf_counter() for device in devices)


def _event(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def between(first: Moment, then: Moment) -> list[float]:
    """Seconds from one moment to a later one on each device; both are over."""
    return [_seconds(one, other) for one, other in zip(first, then, strict=True)]


def _seconds(one: Point, other: Point) -> float:
    if isinstance(one, torch.cuda.Event) and isinstance(other, torch.cuda.Event):
        return one.elapsed_time(other) / 1000
    assert isinstance(one, float)
    assert isinstance(other, float)
    return other - one


class Turn:
    """A micro-batch's time on the devices.

    Attributes:
        before: When the one before it ended; None for the first.
        begun: When it began.
        ended: When it ended; on a GPU that may be still to come.
    """

    def __init__(self, before: Moment | None, begun: Moment) -> None:
        self.before, self.begun, self.ended = before, begun, begun

    def settle(self, clock: Clock) -> None:
        """Wait for its end, and count it: the longest of the devices, and the least that one of them waited."""
        for event in self.ended:
            if isinstance(event, torch.cuda.Event):
                event.synchronize()
        clock.add("forward", max(between(self.begun, self.ended)))
        clock.add("wait", 0.0 if self.before is None else max(0.0, min(between(self.before, self.begun))))


class DeviceTurns:
    """The micro-batches on a model's devices, one after the other, whoever runs them."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._devices = tuple(devices)
        self._last: Moment | None = None

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Time of the block on the devices. One at a time: whoever enters it holds the lock on the model."""
        own = Turn(self._last, moment(self._devices))
        yield own
        own.ended = self._last = moment(self._devices)
