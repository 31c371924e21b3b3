"""Several calls at once give what one after another gives, hold no more than is allowed, and end with the first error."""

import threading
import time

import pytest

from linrep.ahead import in_order


@pytest.mark.parametrize("at_once", [1, 2, 7, 50])
def test_results_come_in_the_order_of_the_items_whatever_ends_first(at_once: int) -> None:
    def slower_first(i: int) -> int:
        time.sleep(0.002 * (20 - i))
        return i * i

    assert list(in_order(slower_first, range(20), at_once)) == [i * i for i in range(20)]


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_more_than_so_many_are_under_way_or_wait(at_once: int) -> None:
    begun, taken, most = 0, 0, 0
    lock = threading.Lock()

    def call(i: int) -> int:
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun - taken)
        return i

    for _ in in_order(call, range(30), at_once):
        time.sleep(0.001)
        with lock:
            taken += 1
    assert (begun, taken) == (30, 30)
    assert most <= at_once + 1  # the one that the caller has in hand


@pytest.mark.parametrize("at_once", [1, 4])
def test_the_first_error_in_order_ends_it_and_what_runs_is_awaited(at_once: int) -> None:
    done = []

    def call(i: int) -> int:
        time.sleep(0.005)
        if i == 5:
            raise OSError("gone away")
        done.append(i)
        return i

    found: list[int] = []
    with pytest.raises(OSError, match="gone away"):
        found.extend(in_order(call, range(1000), at_once))
    assert found == [0, 1, 2, 3, 4]
    n = len(done)
    assert n < 5 + 2 * at_once
    time.sleep(0.05)
    assert len(done) == n
