"""Joining and starting Ray: what goes wrong is one line that says what to look at."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import ray

from linrep.cluster import session
from linrep.cluster.session import STARTS, check_address, cluster
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


@contextlib.contextmanager
def answering(reply: bytes | None) -> Iterator[str]:
    """A server that says one thing to everybody, or nothing at all; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                held = [server.accept()[0]]
                if reply is not None:
                    held[0].sendall(reply)
                    held[0].recv(1 << 10)
                    held[0].close()
                server.accept()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_cluster_that_is_there_is_joined(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(bytes(3) + b"\x04" + bytes(5)) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with cluster():
            assert starts.asked == [address]


def test_a_real_cluster_answers_the_knock(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    address = ray.get_runtime_context().gcs_address
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for known in (address, f"ray://{address}"):
        monkeypatch.setenv("RAY_ADDRESS", known)
        check_address()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (None, "said nothing for 1 s"),
        (b"", "ends them at once"),
        (b"\x00\x00", "ends them at once"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "something else than Ray"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "something else than Ray"),
    ],
)
def test_what_listens_and_is_no_ray_is_one_clear_line_soon(starts: Starts, monkeypatch: pytest.MonkeyPatch, reply, said) -> None:
    monkeypatch.setattr(session, "KNOCK_S", 1.0)
    with answering(reply) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        start = time.monotonic()
        with pytest.raises(ServiceError, match=rf"RAY_ADDRESS={address}: .*{said}"), cluster():
            pass
        assert time.monotonic() - start < 5
    assert starts.asked == []


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8265", "127.0.0.1:99999", "nowhere.invalid:6379", "[::1]:1", "127.0.0.1:0"]
)
def test_an_address_at_which_no_cluster_can_be_is_one_clear_line(
    starts: Starts, monkeypatch: pytest.MonkeyPatch, address
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ServiceError, match="no Ray cluster answers at RAY_ADDRESS=") as caught:
        check_address()
    assert "\n" not in str(caught.value)
    with pytest.raises(ServiceError), cluster():
        pass
    assert starts.asked == []
