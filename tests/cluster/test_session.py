"""Joining and starting Ray: what goes wrong is one line that says what to look at."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray

from linrep.cluster import knock, session
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


SETTINGS = bytes(3) + b"\x04" + bytes(5)
"""How a server of HTTP/2 begins to speak."""


@contextlib.contextmanager
def answering(reply: bytes | None, then_ends: bool = True, host: str = "") -> Iterator[str]:
    """A server that says one thing to everybody, or nothing at all; yields its address."""
    held, both = [], host == "localhost"
    with socket.create_server(("", 0), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    door = server.accept()[0]
                    held.append(door)
                    if reply is not None:
                        door.sendall(reply)
                        if then_ends:
                            door.recv(1 << 10)
                            door.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"{host or ray.util.get_node_ip_address()}:{server.getsockname()[1]}"


@pytest.mark.quick
def test_a_real_cluster_answers_and_is_joined(starts: Starts, local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    address = ray.get_runtime_context().gcs_address
    find = ray._private.services.canonicalize_bootstrap_address_or_die
    # Of several clusters on a machine Ray takes any for "auto": another test's as well.
    monkeypatch.setattr(
        "ray._private.services.canonicalize_bootstrap_address_or_die", lambda given: address if given == "auto" else find(given)
    )
    for known in (address, f"127.0.0.1:{address.rpartition(':')[2]}", "auto"):
        monkeypatch.setenv("RAY_ADDRESS", known)
        check_address()
        with cluster():
            assert starts.asked.pop() == known


@pytest.mark.quick
def test_a_server_for_clients_answers_at_its_own_kind_of_address(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.util.client.server.server import serve

    head = ray.get_runtime_context().gcs_address
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = serve("0.0.0.0", port)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    try:
        monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{port}")
        check_address()
        for wrong, said in ((f"127.0.0.1:{port}", "clients join at ray://"), (f"ray://{head}", "no server for Ray's clients")):
            monkeypatch.setenv("RAY_ADDRESS", wrong)
            with pytest.raises(ServiceError, match=said):
                check_address()
    finally:
        server.stop(0)


def refused_soon(monkeypatch: pytest.MonkeyPatch, address: str, said: str) -> None:
    """Assert that an address is refused by one line within the time for it."""
    monkeypatch.setattr(knock, "KNOCK_S", 1.0)
    monkeypatch.setenv("RAY_ADDRESS", address)
    start = time.monotonic()
    with pytest.raises(ServiceError, match=rf"RAY_ADDRESS={address}: .*{said}") as caught, cluster():
        pass
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize(
    ("reply", "then_ends", "said"),
    [
        (None, False, "no reply within 1 s"),
        (SETTINGS, False, "no reply within 1 s"),
        (SETTINGS, True, "ends them at once"),
        (b"", True, "ends them at once"),
        (b"\x00\x00", True, "ends them at once"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "something else than Ray"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", False, "something else than Ray"),
    ],
)
def test_what_listens_and_is_no_ray_is_one_clear_line_soon(
    starts: Starts, monkeypatch: pytest.MonkeyPatch, scheme, reply, then_ends, said
) -> None:
    with answering(reply, then_ends) as address:
        refused_soon(monkeypatch, scheme + address, said)
    assert starts.asked == []


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no name has two addresses here")
@pytest.mark.parametrize("reply", [None, SETTINGS])
def test_all_addresses_of_a_name_share_one_time_limit(starts: Starts, monkeypatch: pytest.MonkeyPatch, reply) -> None:
    with answering(reply, then_ends=False, host="localhost") as address:
        refused_soon(monkeypatch, f"ray://{address}", "no reply within 1 s")
    assert starts.asked == []


def test_a_search_without_a_time_limit_of_its_own_ends_too(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services

    monkeypatch.setattr(services, "canonicalize_bootstrap_address_or_die", lambda address: threading.Event().wait(20))
    refused_soon(monkeypatch, "elsewhere:6379", "no reply within 1 s")


def test_another_server_of_the_same_protocol_is_no_ray(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    import grpc

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("0.0.0.0:0")
    server.start()
    try:
        for scheme in ("", "ray://"):
            refused_soon(monkeypatch, f"{scheme}127.0.0.1:{port}", "something else than Ray")
    finally:
        server.stop(0)
    assert starts.asked == []


@pytest.mark.parametrize("address", [None, "auto"])
def test_a_ray_that_ends_the_process_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, starts: Starts, address) -> None:
    def gives_up(*_: object, **__: object) -> None:
        raise SystemExit(1)

    monkeypatch.setattr(ray, "init", gives_up)
    monkeypatch.setattr(session, "knock", lambda _: None)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ServiceError, match=r"Ray gave up with exit status 1$"), cluster():
        pass


@pytest.mark.parametrize("address", [None, "auto"])
def test_the_exit_that_a_signal_asks_of_ray_is_no_failure_of_it(monkeypatch: pytest.MonkeyPatch, starts: Starts, address) -> None:
    def terminated(*_: object, **__: object) -> None:
        raise SystemExit(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", terminated)
    monkeypatch.setattr(session, "knock", lambda _: None)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(SystemExit), cluster():
        pass


@pytest.mark.parametrize(
    "address",
    [
        *("http://127.0.0.1:8265", "127.0.0.1:99999", "nowhere.invalid:6379", "[::1]:1", "127.0.0.1:0"),
        *(
            "head",
            "head:",
            ":6379",
            "ray://",
            "ray://nowhere.invalid:10001",
            "ray://127.0.0.1:99999",
            "ray://127.0.0.1:1",
            "a b:1",
        ),
    ],
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
