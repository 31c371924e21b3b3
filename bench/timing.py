"""Interleaved timing: every contender in turn, round after round, so that a machine that drifts drifts for all."""

import contextlib
import json
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn


@dataclass(frozen=True)
class Rates:
    """Work per second of each contender, one value a round."""

    unit: str
    rates: dict[str, list[float]]

    def best(self, name: str) -> float:
        """The best round."""
        return max(self.rates[name])

    def ratio(self, name: str, to: str) -> tuple[float, float, float]:
        """Median, lowest and highest of the ratios round by round."""
        ratios = [a / b for a, b in zip(self.rates[name], self.rates[to], strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


class TimeUp(BaseException):
    """The time of a benchmark is up in the middle of its work. No `Exception`: a library that retries must not catch it."""


@contextlib.contextmanager
def cut_off(seconds: float) -> Iterator[None]:
    """Raise TimeUp in the main thread if the block takes longer, whatever it is doing: for work that no estimate foresaw."""

    def end(signum: int, frame: FrameType | None) -> NoReturn:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Schedule:
    """What may still start before a deadline, from the time that each contender has taken so far.

    Attributes:
        deadline: On `time.monotonic`'s clock; None if there is none.
        longest: The longest time of each contender, in seconds.
    """

    deadline: float | None
    longest: dict[str, float] = field(default_factory=dict)

    def ran(self, name: str, seconds: float) -> None:
        """Count a time."""
        self.longest[name] = max(seconds, self.longest.get(name, 0.0))

    def fits(self, names: Sequence[str]) -> bool:
        """Whether these, one after the other, end by the deadline.

        Each is expected to take as long as it ever took. One that has not run yet is expected to take as long as the longest
        of the others.
        """
        unknown = max(self.longest.values(), default=0.0)
        expected = sum(self.longest.get(name, unknown) for name in names)
        return self.deadline is None or time.monotonic() + expected <= self.deadline


def interleave(
    contenders: Mapping[str, Callable[[], tuple[float, float]]], rounds: int, unit: str, schedule: Schedule | None = None
) -> Rates:
    """Run every contender once a round, and say so as each ends.

    Args:
        contenders: Each does its work and returns how much it did and in how many seconds.
        rounds: Rounds that count; a warm-up comes first and does not.
        unit: What is counted.
        schedule: Its deadline, and what is known of times already; they are added to. No contender starts, in the warm-up or
            later, that cannot end by the deadline if it takes as long as its longest run so far. No round starts that cannot
            end as a whole. Only complete rounds count, so that there may be none.
    """
    names, schedule = list(contenders), schedule or Schedule(None)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        speeds: dict[str, float] = {}
        for at, name in enumerate(names):
            begun = time.monotonic()
            try:
                measured = contenders[name]() if schedule.fits(names[at:] if number else [name]) else None
            except TimeUp:
                measured = None
            if measured is None:
                where = f"round {number}" if number else "the warm-up"
                print(f"the time is up in {where}, at {name}: {max(number - 1, 0)} of {rounds} rounds", flush=True)
                return Rates(unit, rates)
            schedule.ran(name, time.monotonic() - begun)
            work, seconds = measured
            speeds[name] = work / seconds
            what = f"round {number} of {rounds}" if number else "warm-up, which does not count"
            print(f"{what}: {name} {work / seconds:,.0f} {unit}/s in {seconds:.1f} s", flush=True)
        if number:
            for name, speed in speeds.items():
                rates[name].append(speed)
    return Rates(unit, rates)


def timed(work: float, call: Callable[[], object]) -> tuple[float, float]:
    """The work and the seconds that the call took."""
    start = time.perf_counter()
    call()
    return work, time.perf_counter() - start


def report(title: str, rates: Rates, comparisons: Sequence[tuple[str, str, float | None]]) -> dict[str, object]:
    """Print a table of ratios against their targets, and the same as one line of JSON.

    Args:
        title: What was measured.
        rates: The measurements.
        comparisons: Contender, what it is compared with, and the ratio aimed at (None where there is no target).
    """
    n = len(next(iter(rates.rates.values())))
    print(f"\n{title}")
    print(f"  {rests_on(n)}")
    rows = []
    for name, to, target in comparisons if n else ():
        median, low, high = rates.ratio(name, to)
        best = rates.best(name) / rates.best(to)
        verdict = "" if target is None else ("met" if median >= target else f"missed by {target - median:.2f}")
        aim = "" if target is None else f">= {target}"
        spread = f" [{low:.3f}, {high:.3f}]" if n > 1 else ""
        print(f"  {name} / {to}: {median:.3f}{spread}, best over best {best:.3f}  {aim}  {verdict}")
        rows.append({"what": name, "against": to, "median": median, "low": low, "high": high, "best": best, "target": target})
    result = {"title": title, "rounds": n, "unit": rates.unit, "ratios": rows}
    print(json.dumps(result))
    return result


def rests_on(rounds: int) -> str:
    """What a result rests on, as a line."""
    if not rounds:
        return "too few rounds to report a ratio: none was complete; give it more minutes, less work or a quieter machine"
    if rounds == 1:
        return "from 1 round, which says nothing of the spread"
    return f"from {rounds} rounds: median [lowest, highest]"
