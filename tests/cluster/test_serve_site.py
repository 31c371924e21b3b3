"""A served site gives its files to this machine's browser, and nothing to anybody else."""

import threading
import urllib.error
import urllib.request

import pytest

from linrep.cluster.serve_site import SiteServer
from linrep.errors import RecipeError
from linrep.places import place


@pytest.fixture
def served(tmp_path):
    (tmp_path / "secret.txt").write_text("no")
    folder = tmp_path / "explorer"
    (folder / "data").mkdir(parents=True)
    (folder / "index.html").write_text("<p>hello")
    (folder / "data" / "a b.js").write_text("1")
    with SiteServer(place(folder), 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def status(server: SiteServer, path: str, host: str | None = None) -> int:
    request = urllib.request.Request(server.address + path, headers={} if host is None else {"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_files_of_the_site_are_served_and_no_others(served):
    assert [status(served, path) for path in ("", "index.html", "data/a%20b.js")] == [200, 200, 200]
    assert [status(served, path) for path in ("data/", "../secret.txt", "%2e%2e/secret.txt", "x")] == [404, 404, 404, 404]


def test_a_page_of_another_name_may_not_read_it(served):
    assert status(served, "", f"localhost:{served.server_port}") == 200
    assert [status(served, "", host) for host in ("evil.example", f"evil.example:{served.server_port}")] == [403, 403]
    assert served.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_named(served, tmp_path):
    with pytest.raises(RecipeError, match=rf"^--port {served.server_port}: .*; name another, for example --port"):
        SiteServer(place(tmp_path), served.server_port)
