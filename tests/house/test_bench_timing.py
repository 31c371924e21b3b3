"""Benchmarks end: a deadline stops further rounds and says so, and every contender's result is printed as it comes."""

import pytest

from bench import timing


@pytest.mark.parametrize(
    ("seconds", "counted", "said"),
    [(1, 3, None), (10, 3, None), (20, 1, "1 of 3 rounds"), (300, 1, "0 of 3 rounds, the first one counts")],
)
def test_a_slow_machine_gets_fewer_rounds(monkeypatch, capsys, seconds, counted, said):
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "monotonic", lambda: now[0])

    def contender(name: str) -> tuple[float, float]:
        now[0] += seconds
        calls.append(name)
        return 100.0 * len(calls), seconds

    rates = timing.interleave({n: lambda n=n: contender(n) for n in "ab"}, 3, "rows", deadline=100.0)
    printed = capsys.readouterr().out
    assert [len(values) for values in rates.rates.values()] == [counted, counted]
    assert len(printed.splitlines()) == len(calls) + (said is not None)
    assert (said or "") in printed
    if said is None or "first one" not in said:
        assert rates.rates["a"][0] == 300 / seconds  # the first round does not count
