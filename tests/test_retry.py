"""Trying again: as often as there are pauses, only what may pass, and the cause comes out."""

import pytest

from linrep.retry import retried


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
