"""The program that waits for the notice that a spot node is taken away."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from tests.house.local_head import free_ports
from tests.house.programs import program

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def drain() -> ModuleType:
    return program("drain")


class Metadata(BaseHTTPRequestHandler):
    """A node's metadata server: Amazon's, which wants a token first, or Google's, which wants a header."""

    answers: ClassVar[dict[str, str]] = {}

    def _reply(self, text: str | None) -> None:
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def do_PUT(self) -> None:
        wanted = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._reply(self.answers.get("token") if wanted else None)

    def do_GET(self) -> None:
        amazon = self.headers["X-aws-ec2-metadata-token"] == self.answers.get("token", "")
        google = self.headers["Metadata-Flavor"] == "Google"
        self._reply(self.answers.get(self.path) if amazon or google else None)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What the node's metadata server says; nothing at first."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Metadata, "answers", {})
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
    try:
        yield Metadata.answers
    finally:
        server.shutdown()
        server.server_close()


def test_amazon_names_the_moment(drain, metadata):
    assert drain.seconds_left(NOW) is None
    metadata["token"] = "t"
    assert drain.seconds_left(NOW) is None
    metadata["/latest/meta-data/spot/instance-action"] = json.dumps({"action": "terminate", "time": "2030-01-02T03:06:00Z"})
    assert drain.seconds_left(NOW) == 115
    assert drain.seconds_left(datetime(2031, 1, 1, tzinfo=UTC)) == 0


def test_google_says_that_it_is_so(drain, metadata):
    metadata["/computeMetadata/v1/instance/preempted"] = "FALSE"
    assert drain.seconds_left(NOW) is None
    metadata["/computeMetadata/v1/instance/preempted"] = "TRUE"
    assert drain.seconds_left(NOW) == drain.GOOGLE_S


def test_a_node_without_such_a_server_is_never_taken_away(drain, monkeypatch):
    (port,) = free_ports(1)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{port}")
    assert drain.seconds_left(NOW) is None
