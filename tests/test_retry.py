"""Trying again: as often as there are pauses, only what may pass, and the cause comes out."""

from collections.abc import Iterator

import pytest

from linrep.retry import resumed, retried


class Flaky:
    """Fails with each error in turn, then gives its value; counts its calls."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def is_os(error: Exception) -> bool:
    return isinstance(error, OSError)


def test_what_passes_is_tried_again():
    call = Flaky(OSError("one"), OSError("two"))
    assert retried(call, (0.0, 0.0), is_os) == "done"
    assert call.calls == 3


def test_the_last_error_comes_out_when_the_pauses_are_used_up():
    call = Flaky(OSError("one"), OSError("two"), OSError("three"))
    with pytest.raises(OSError, match="two"):
        retried(call, (0.0,), is_os)
    assert call.calls == 2


def test_what_will_not_pass_is_not_tried_again():
    call = Flaky(OSError("one"), ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        retried(call, (0.0, 0.0, 0.0), is_os)
    assert call.calls == 2


class FlakyItems:
    """Gives 0 to 9, and fails before some of them once; counts what it was asked for."""

    def __init__(self, *fails: int, error: Exception | None = None) -> None:
        self.fails, self.error, self.begun = list(fails), error or OSError("not now"), []

    def __call__(self, start: int) -> Iterator[int]:
        self.begun.append(start)
        for i in range(start, 10):
            if self.fails and i == self.fails[0]:
                del self.fails[0]
                raise self.error
            yield i


def test_an_iterator_that_fails_on_its_way_goes_on_behind_what_it_gave():
    items = FlakyItems(0, 4, 4)
    assert list(resumed(items, (0.0, 0.0, 0.0), is_os)) == list(range(10))
    assert items.begun == [0, 0, 4, 4]


def test_an_iterator_fails_for_good_once_the_pauses_are_used_up_or_the_error_stays():
    often, stays = FlakyItems(3, 3), FlakyItems(3, error=ValueError("for good"))
    with pytest.raises(OSError, match="not now"):
        list(resumed(often, (0.0,), is_os))
    with pytest.raises(ValueError, match="for good"):
        list(resumed(stays, (0.0, 0.0), is_os))
    assert (often.begun, stays.begun) == ([0, 3], [0])
