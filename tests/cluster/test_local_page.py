"""The page that is served to this machine: whom it answers, how much it reads, what it sends; and once through Ray Serve."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from linrep.cluster.asking import Asker
from linrep.cluster.local_page import FILES, MOST_BODY, LocalPage, Response, read_query
from linrep.cluster.session import PATHS
from linrep.places import place
from linrep.recipe import Recipe
from linrep.vlm.config import ModelConfig
from tests.conftest import encoded_image
from tests.pages import browse, needs_chromium
from tests.reading.workspace import write_recipe

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1:8300"
OWN = {"host": HOST, "origin": f"http://{HOST}", "content-type": "application/json", "content-length": "100"}
DRIVE = Path(__file__).with_name("drive_served.js")
IMAGE = base64.b64encode(encoded_image(0)).decode()


@pytest.fixture(scope="module")
def recipe(random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return write_recipe(tmp_path_factory.mktemp("served"), random_vlm)


@pytest.fixture(scope="module")
def workspace(recipe: Recipe) -> Path:
    return Path(recipe.features.saes[0].path).parent / "ws"


@pytest.fixture(scope="module")
def page(recipe: Recipe, workspace: Path) -> LocalPage:
    return LocalPage(Asker(recipe, place(workspace), lambda name: f"run-{name}"), 8300)


def asked(page: LocalPage, headers: dict[str, str] | None = None, **body: object) -> tuple[int, dict]:
    found = page.answer("POST", "/ask", OWN | (headers or {}), json.dumps(body).encode())
    return found.status, json.loads(found.body)


def test_a_question_is_answered_as_the_job_answers_it(page):
    status, found = asked(page, image=IMAGE, name="<b>.jpg", text="what is it ?", latents=["7=5"], edits=["tench:church@2=2"])
    assert status == 200
    assert found["prompt"] == "a <image> what is it ?"
    assert found["name"] == "<b>.jpg"
    assert [one["label"].partition(" ")[0] for one in found["changed"]] == ["latent", "tench"]
    assert found["picture"]["image"]["src"].startswith("data:image/png;base64,")
    assert [one["layer"] for one in found["picture"]["saes"]] == [2]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"host": "evil.example:8300"}, 421),
        ({"host": "127.0.0.1:8301"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:8300"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-length": ""}, 411),
        ({"content-length": "-1"}, 411),
        ({"content-length": str(MOST_BODY + 1)}, 413),
        ({}, None),
    ],
)
def test_only_the_page_itself_may_ask(page, changed, status):
    """Names that resolve to this machine, other pages, and forms of theirs are refused before a body is read."""
    refused = page.refusal("POST", "/ask", OWN | changed)
    assert (None if refused is None else refused.status) == status


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no record"),
        (b'{"image": "!"}', "not base64"),
        (json.dumps({"image": base64.b64encode(b"GIF89a").decode()}).encode(), "image"),
        (json.dumps({"image": base64.b64encode(b"%!PS-Adobe-3.0").decode()}).encode(), "not an image of"),
        (json.dumps({"text": 4}).encode(), "text is no text"),
        (json.dumps({"text": "x" * 5000}).encode(), "text is no text"),
        (json.dumps({"latents": ["1=1"] * 9}).encode(), "latents are at most"),
        (json.dumps({"edits": [3]}).encode(), "edits are at most"),
    ],
)
def test_what_is_no_question_is_refused_in_words(body, said):
    with pytest.raises(ValueError, match=said):
        read_query(body)


def test_mistakes_come_back_as_one_line(page):
    assert asked(page, image=IMAGE, latents=["7"])[0] == 422
    assert asked(page)[1]["error"].startswith("there is nothing to ask about")
    assert "did you mean church" in asked(page, image=IMAGE, edits=["tench:churchh"])[1]["error"]
    assert page.answer("POST", "/ask", OWN, b" " * (MOST_BODY + 1)).status == 413


def test_every_file_of_the_page_is_there_and_nothing_else(page):
    html = page.answer("GET", "/", {"host": "localhost:8300"})
    names = re.findall(rb'(?:src|href)="([^"]+)"', html.body)
    assert {name.decode() for name in names} == set(FILES)
    for name in FILES:
        found = page.answer("GET", f"/{name}", {"host": HOST})
        assert (found.status, len(found.body) > 100) == (200, True)
        assert b"http:" not in found.body.replace(b"http://www.w3.org", b"")
        assert "frame-ancestors 'none'" in found.headers["Content-Security-Policy"]
    for path in ("/ask", "/../jobs/ask.py", "/data.js", "/ask.css/", "/%2e%2e/x"):
        assert page.answer("GET", path, {"host": HOST}).status in (404, 405)
    about = json.loads(page.answer("GET", "/about", {"host": HOST}).body)
    assert about["classes"] == ["tench", "church"]
    assert about["saes"] == [{"layer": 2, "name": "sae", "latents": 24}]


@contextlib.contextmanager
def plainly(asker: Asker) -> Iterator[str]:
    """The page without Ray, with a script in it that does what a person does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = page.answer("GET", self.path, self._headers())
            if self.path == "/drive.js":
                found = replace(found, status=200, content_type="text/javascript", body=DRIVE.read_bytes())
            elif self.path == "/":
                found = replace(found, body=found.body.replace(b"<script ", b'<script src="drive.js"></script>\n<script ', 1))
            self._send(found)

        def do_POST(self) -> None:
            self._send(page.answer("POST", self.path, self._headers(), self.rfile.read(int(self.headers["Content-Length"]))))

        def _headers(self) -> dict[str, str]:
            return {name.lower(): value for name, value in self.headers.items()}

        def _send(self, found: Response) -> None:
            self.send_response(found.status)
            more = {"Content-Type": found.content_type, "Content-Length": str(len(found.body))}
            for name, value in {**found.headers, **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    page = LocalPage(asker, server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@needs_chromium
@pytest.mark.slow
def test_a_person_asks_moves_a_slider_and_sees_the_answers(page, tmp_path):
    with plainly(page._asker) as address:
        dom = browse(address, tmp_path, "--dump-dom")
    found = re.search(r"<title>seen ([^<]+)</title>", dom)
    assert found is not None, dom[:3000]
    seen = json.loads(unquote(found[1]))
    assert seen["errors"] == []
    assert seen["sites"] == ["image", "last", "everywhere"]
    assert seen["first"] == 0
    assert [label.partition(",")[0] for label in seen["then"]] == ["none", "latent 7 = 12.5 at layer 2", "tench to church"]
    assert seen["trouble"].startswith("site image: there is no image")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_ray_serve_answers_at_the_loopback_address_alone(recipe, workspace, tmp_path):
    pytest.importorskip("grpc_reflection", reason="Ray Serve is not installed: pip install -e '.[serve]'")
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True)))
    port = free_port()
    words = [sys.executable, "jobs/ask.py", "--config", str(tmp_path / "t.yaml"), "--workspace", str(workspace)]
    environ = os.environ | {"PYTHONPATH": PATHS}
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen([*words, "--serve", "--port", str(port)], cwd=ROOT, env=environ, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 300
        while "Ask at" not in (tmp_path / "log").read_text():
            assert job.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.5)
        base = f"http://127.0.0.1:{port}"
        request = urllib.request.Request(
            f"{base}/ask", json.dumps({"image": IMAGE}).encode(), {"Content-Type": "application/json", "Origin": base}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert json.load(answer)["prompt"] == "a <image> what is it ?"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(f"{base}/ask", b"{}", {"Content-Type": "application/json"}), timeout=60)
        with pytest.raises(urllib.error.HTTPError, match="421"):
            urllib.request.urlopen(urllib.request.Request(base, headers={"Host": "evil.example"}), timeout=60)
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        places = set(re.findall(rf"([0-9A-F]+):{port:04X} [0-9A-F]+:0000 0A", listening))
        assert places == {"0100007F"}
    finally:
        job.send_signal(signal.SIGINT)
        job.wait(60)
    assert job.returncode == 130
