"""Benchmarks end: nothing starts that cannot end by the deadline, and a result says how many rounds it rests on."""

import itertools
import random
import signal
import time

import pytest

from bench import timing
from bench.timing import Rates, Schedule, TimeUp, cut_off, interleave, report

DEADLINE = 100.0


class Clock:
    """A clock that only contenders move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.runs = 0.0, []
        monkeypatch.setattr(timing.time, "monotonic", lambda: self.now)

    def contender(self, name: str, seconds):
        """One that takes the next of these seconds whenever it runs."""

        def run() -> tuple[float, float]:
            took = next(seconds)
            self.runs.append((name, self.now, took))
            self.now += took
            return 100.0 * len(self.runs), took

        return run

    def contenders(self, **seconds: float):
        return {name: self.contender(name, itertools.repeat(took)) for name, took in seconds.items()}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("a", "b", "runs", "counted", "said"),
    [
        (1, 1, 8, 3, None),
        (10, 10, 8, 3, None),
        (12.5, 12.5, 8, 3, None),
        (20, 20, 4, 1, "in round 2, at a: 1 of 3 rounds"),
        (30, 30, 2, 0, "in round 1, at a: 0 of 3 rounds"),
        (60, 5, 1, 0, "in the warm-up, at b: 0 of 3 rounds"),
        (5, 60, 2, 0, "in round 1, at a: 0 of 3 rounds"),
        (300, 300, 1, 0, "in the warm-up, at b: 0 of 3 rounds"),
    ],
)
def test_a_slow_machine_gets_fewer_rounds(clock: Clock, capsys, a, b, runs, counted, said):
    rates = interleave(clock.contenders(a=a, b=b), 3, "rows", Schedule(DEADLINE))
    printed = capsys.readouterr().out
    assert len(clock.runs) == runs
    assert [len(values) for values in rates.rates.values()] == [counted, counted]
    assert len(printed.splitlines()) == runs + (said is not None)  # each result as it comes
    assert (said or "") in printed
    if counted:
        assert rates.rates["a"][0] == 300 / a  # the warm-up does not count


@pytest.mark.parametrize("seed", range(200))
def test_nothing_starts_that_the_time_so_far_says_cannot_end(clock: Clock, seed):
    draw = random.Random(seed)
    load = draw.choice([1, 5, 30])
    names = "abc"[: draw.randint(1, 3)]
    times = {name: (draw.uniform(0.1, 1) * draw.choice([1, load]) * 5 for _ in itertools.count()) for name in names}
    rounds = draw.randint(1, 5)
    rates = interleave({n: clock.contender(n, times[n]) for n in names}, rounds, "rows", Schedule(DEADLINE))

    longest: dict[str, float] = {}
    for name, begun, took in clock.runs:
        assert begun + longest.get(name, max(longest.values(), default=0)) <= DEADLINE
        longest[name] = max(took, longest.get(name, 0))
    assert clock.now <= DEADLINE + max(took for *_, took in clock.runs)  # no more than the last one can be late
    complete = len(clock.runs) // len(names) - 1
    assert {len(values) for values in rates.rates.values()} == {max(complete, 0)}
    if complete < rounds:  # it stopped because it had to
        rest = names[len(clock.runs) % len(names) :]
        expected = [longest.get(name, max(longest.values())) for name in (rest if complete >= 0 else rest[:1])]
        assert clock.now + sum(expected) > DEADLINE


def test_a_round_that_turns_slow_half_way_does_not_count(clock: Clock):
    contenders = {"a": clock.contender("a", iter([10, 10, 75])), "b": clock.contender("b", iter([10, 10, 10]))}
    rates = interleave(contenders, 3, "rows", Schedule(120.0))
    assert [name for name, *_ in clock.runs] == list("ababa")
    assert [len(values) for values in rates.rates.values()] == [1, 1]


def test_a_deadline_that_is_past_starts_nothing(clock: Clock, capsys):
    clock.now = DEADLINE + 1
    rates = interleave(clock.contenders(a=1), 3, "rows", Schedule(DEADLINE))
    assert clock.runs == []
    result = report("nothing", rates, [("a", "a", 1.0)])
    assert result["rounds"] == 0
    assert result["ratios"] == []
    said = [line for line in capsys.readouterr().out.splitlines() if "too few rounds to report a ratio" in line]
    assert len(said) == 1


def test_times_known_from_elsewhere_count(clock: Clock):
    interleave(clock.contenders(b=1), 3, "rows", Schedule(DEADLINE, {"a": DEADLINE + 1}))
    assert clock.runs == []


@pytest.mark.parametrize(("n", "said"), [(1, "from 1 round,"), (2, "from 2 rounds:"), (3, "from 3 rounds:")])
def test_a_result_says_how_many_rounds_it_rests_on(capsys, n, said):
    result = report("title", Rates("rows", {"a": [1.0, 2.0, 3.0][:n], "b": [1.0] * n}), [("a", "b", 1.5)])
    printed = capsys.readouterr().out
    assert said in printed
    assert "too few" not in printed
    assert result["rounds"] == n
    assert ("[1.000, " in printed) == (n > 1)  # one round has no range
    assert ("missed by" if n == 1 else "met") in printed


def test_work_that_no_estimate_foresaw_is_cut_off(capsys):
    def endless() -> tuple[float, float]:
        try:
            time.sleep(30)
        except Exception:  # a library that retries
            time.sleep(30)
        return 1, 1

    before = signal.getsignal(signal.SIGALRM)
    start = time.monotonic()
    with cut_off(0.1):
        rates = interleave({"a": lambda: (1, 1), "b": endless}, 3, "rows")
    assert time.monotonic() - start < 5
    assert rates.rates == {"a": [], "b": []}
    assert "in the warm-up, at b" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGALRM) is before
    with pytest.raises(TimeUp), cut_off(0.05):
        time.sleep(5)
    with cut_off(0.05):
        pass
    time.sleep(0.1)  # what ended in time is left alone
