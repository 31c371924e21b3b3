"""Progress: what is left is measured from the first finished unit, not from the start of a cluster."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from linrep.cluster import meter, progress
from linrep.cluster.progress import Progress, within


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(clock: list[float], out: io.StringIO, start_s: float, each_s: float, n: int, done: int = 0) -> list[str]:
    """100 units, a token each: the first after a start-up, the others at an even pace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", out)
        shown = Progress("stage", 100, done)
    with shown:
        clock[0] += start_s
        for _ in range(n):
            clock[0] += each_s
            shown.add(1, 1)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("start_s", [0.0, 60.0, 3600.0])
@pytest.mark.parametrize("done", [0, 40])
def test_a_start_up_does_not_count_as_speed(clock, start_s, done):
    said = lines(clock, io.StringIO(), start_s, 10.0, 5, done)
    assert said[-1].endswith(f", {progress.tqdm.format_interval((100 - done - 5) * 10)} left")
    assert f"5 tokens at {1 / 10:,.0f}/s" in said[-1]


def test_nothing_is_foretold_before_two_units_are_done(clock):
    (line,) = lines(clock, io.StringIO(), 3600.0, 10.0, 1)
    assert "left" not in line
    assert "/s" not in line
    assert line.endswith("1:00:10 gone")


def test_units_that_end_together_are_no_division_by_zero(clock):
    clock_still = lines(clock, io.StringIO(), 100.0, 0.0, 50)
    assert all("left" not in line for line in clock_still)


def test_the_end_says_that_nothing_is_left_and_how_fast_all_was(clock):
    line = lines(clock, io.StringIO(), 100.0, 1.0, 100)[-1]
    assert line == "stage: 100% 100/100 samples, 100 tokens at 0/s, 03:20 gone, 00:00 left"


def test_a_terminal_is_shown_the_same(clock):
    out = Terminal()
    lines(clock, out, 3600.0, 10.0, 5)
    assert re.findall(r"[0-9:]+ left", out.getvalue())[-1] == "15:50 left"


def test_what_is_done_is_counted_for_prometheus_where_a_cluster_is_joined(monkeypatch):
    counted: list[tuple[int, dict[str, str]]] = []
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(meter, "_counter", lambda: SimpleNamespace(inc=lambda n, tags: counted.append((n, tags))))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: joined))
    joined = False
    with within("1/2 "), Progress("harvest", 9) as shown:
        shown.add(3, 70)
        joined = True
        shown.add(4, 50)
        shown.add(0, 20)
    with Progress("probe", 9, unit="units", rate="units") as shown:
        shown.add(1, 1)
    harvest = {"stage": "harvest"}
    assert counted == [
        (4, {**harvest, "unit": "samples"}),
        (50, {**harvest, "unit": "tokens"}),
        (20, {**harvest, "unit": "tokens"}),
        (1, {"stage": "probe", "unit": "units"}),
    ]
