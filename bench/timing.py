"""Interleaved timing: every contender in turn, round after round, so that a machine that drifts drifts for all."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


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


def interleave(
    contenders: Mapping[str, Callable[[], tuple[float, float]]], rounds: int, unit: str, deadline: float | None = None
) -> Rates:
    """Run every contender once a round, and say so as each ends.

    Args:
        contenders: Each does its work and returns how much it did and in how many seconds.
        rounds: Rounds that count; one more comes first and does not.
        unit: What is counted.
        deadline: On `time.monotonic`'s clock: no further round begins that would not end by then, if it took as long as the
            longest so far. One round always counts; where there is time for no more than the first, that is the one.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    longest = 0.0
    for number in range(rounds + 1):
        begun = time.monotonic()
        if number and deadline is not None and begun + longest > deadline:
            print(f"the time is up: {number - 1} of {rounds} rounds{', the first one counts' if number == 1 else ''}", flush=True)
            return Rates(unit, rates)
        if number == 1:
            rates = {name: [] for name in contenders}
        for name, contender in contenders.items():
            work, seconds = contender()
            rates[name].append(work / seconds)
            what = f"round {number} of {rounds}" if number else "first round, which does not count"
            print(f"{what}: {name} {work / seconds:,.0f} {unit}/s in {seconds:.1f} s", flush=True)
        longest = max(longest, time.monotonic() - begun)
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
    print(f"\n{title}")
    rows = []
    for name, to, target in comparisons:
        median, low, high = rates.ratio(name, to)
        best = rates.best(name) / rates.best(to)
        verdict = "" if target is None else ("met" if median >= target else f"missed by {target - median:.2f}")
        aim = "" if target is None else f">= {target}"
        print(f"  {name} / {to}: {median:.3f} [{low:.3f}, {high:.3f}], best over best {best:.3f}  {aim}  {verdict}")
        rows.append({"what": name, "against": to, "median": median, "low": low, "high": high, "best": best, "target": target})
    n = len(next(iter(rates.rates.values())))
    result = {"title": title, "rounds": n, "unit": rates.unit, "ratios": rows}
    print(json.dumps(result))
    return result
