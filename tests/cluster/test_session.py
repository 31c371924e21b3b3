"""Joining and starting Ray: what goes wrong is one line that says what to look at."""

import socket

import pytest
import ray

from linrep.cluster.session import STARTS, cluster
from linrep.errors import ServiceError

TIMED_OUT = "The current node timed out during startup.\nMore lines that nobody reads."


class Starts:
    """Ray's start, which fails some times."""

    def __init__(self, failures: int) -> None:
        self.failures, self.asked = failures, []

    def __call__(self, address: str | None = None, **_: object) -> None:
        self.asked.append(address)
        if len(self.asked) <= self.failures:
            raise Exception(TIMED_OUT)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    starts = Starts(0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", starts)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return starts


def test_a_slow_start_is_tried_again(starts: Starts) -> None:
    starts.failures = STARTS - 1
    with cluster():
        assert starts.asked == ["local"] * STARTS


def test_a_ray_that_does_not_start_is_one_clear_line(starts: Starts) -> None:
    starts.failures = STARTS
    with pytest.raises(ServiceError, match=r"did not start.*timed out during startup\.$") as caught, cluster():
        pass
    assert "\n" not in str(caught.value)


def test_a_cluster_that_does_not_answer_is_named_and_not_replaced(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ServiceError, match=rf"RAY_ADDRESS={address}: .*refused"), cluster():
            pass
    assert starts.asked == []


def test_a_cluster_that_is_there_is_joined(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with cluster():
            assert starts.asked == [address]
