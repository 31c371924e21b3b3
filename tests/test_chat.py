"""The chat client: whatever a server does is an answer or a reason; its key goes nowhere else; time and size are bounded."""

import contextlib
import json
import random
import socket
import threading
import time

import pytest
from pydantic import ValidationError

from linrep import wire
from linrep.chat import PASSING, ChatClient, ChatServer, NoAnswer, read_content, read_usage, retry_after
from linrep.errors import ServiceError
from linrep.places import place
from tests.chat import says, serving


@pytest.fixture
def server():
    with serving() as one:
        yield one


def client(port, tmp_path, payer="", **more):
    settings = {"url": f"http://127.0.0.1:{port}/v1", "model": "m", "timeout": 1.0, "tries": 1, **more}
    return ChatClient(ChatServer(**settings), place(tmp_path / "cache"), pause=0.01, payer=payer)


def ask(one, text="q"):
    return one.ask([{"role": "user", "content": text}], str)


@contextlib.contextmanager
def raw(*pieces, pause=0.0, after=None):
    """A server of bytes: sends the pieces with pauses between, whatever is asked; yields its port and what was asked."""
    listener, asked, stop = socket.create_server(("127.0.0.1", 0)), [], threading.Event()

    def serve():
        with contextlib.suppress(OSError):
            while not stop.is_set():
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(2)
                    asked.append(connection.recv(65536))
                    for piece in pieces:
                        connection.sendall(piece)
                        if stop.wait(pause):
                            break

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], asked
    finally:
        stop.set()
        listener.close()


GOOD = says("good")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_elsewhere_never_gets_the_key(server, tmp_path, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    with serving() as other:
        other.script = [GOOD]
        server.script = [(status, "", ("Location", f"http://localhost:{other.server_port}/v1/chat/completions"))]
        with pytest.raises(ServiceError, match=r"sends requests on to http://localhost:\d+/.* where the key is not taken"):
            ask(client(server.server_port, tmp_path))
        assert other.asked == []
    for to in ("https://127.0.0.1/v1", "//elsewhere.example/x", "file:" + "///etc/passwd", "http://[", "http://x:y/"):
        server.script = [(status, "", ("Location", to))]
        with pytest.raises(ServiceError, match="sends requests on to"):
            ask(client(server.server_port, tmp_path), to)


def test_a_redirect_at_home_is_followed_where_it_keeps_the_request(server, tmp_path):
    server.script = [(307, "", ("Location", "/elsewhere")), GOOD]
    assert ask(client(server.server_port, tmp_path)) == "good"
    assert server.asked[0] == server.asked[1]
    server.script = [(308, "", ("Location", "/round"))]
    with pytest.raises(ServiceError, match="one address after another"):
        ask(client(server.server_port, tmp_path), "again")
    server.script = [(302, "", ("Location", "/elsewhere")), GOOD]  # a POST would become a GET
    with pytest.raises(ServiceError, match="sends requests on to"):
        ask(client(server.server_port, tmp_path), "and again")


USAGES = [
    None, [], [1, 2], "many", 7, float("inf"), {}, {"prompt_tokens": None}, {"prompt_tokens": [3]},
    {"prompt_tokens": float("inf"), "completion_tokens": float("nan")}, {"prompt_tokens": -5, "completion_tokens": -1e308},
    {"prompt_tokens": 10**400, "completion_tokens": {}}, {"prompt_tokens": "12", "completion_tokens": True},
]  # fmt: skip


@pytest.mark.parametrize("usage", USAGES, ids=lambda u: str(u)[:30])
def test_a_count_of_tokens_that_is_none_is_told_and_ends_nothing(server, tmp_path, usage):
    server.script = [(200, json.dumps({"choices": [{"message": {"content": "x"}}], "usage": usage}))]
    one = client(server.server_port, tmp_path, price=(1.0, 1.0))
    assert ask(one) == "x"
    assert (one.usage.requests, one.usage.uncounted, one.usage.prompt_tokens, one.usage.cost) == (1, 1, 0, 0.0)


@pytest.mark.parametrize(("lost", "requests"), [((502, "later"), 0), ((504, ""), 0), ((200, "<html>"), 1), ((200, ""), 1)])
def test_an_attempt_without_a_readable_answer_is_uncounted_also_after_a_restart(server, tmp_path, lost, requests):
    server.script = [lost, lost, GOOD]
    first = client(server.server_port, tmp_path, payer="a", tries=3)
    assert ask(first) == "good"
    again = client(server.server_port, tmp_path, payer="a", tries=3)
    assert ask(again) == "good"
    taken = [(one.usage.uncounted, one.usage.requests) for one in (first, again)]
    known = int(read_usage(json.loads(GOOD[1])).uncounted)
    assert taken == [(2 + known, 2 * requests + 1)] * 2


def test_an_attempt_that_may_have_been_paid_for_is_uncounted_and_one_that_was_never_sent_is_not(tmp_path):
    with raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{") as (port, asked):
        cut_off = client(port, tmp_path, tries=2)
        assert isinstance(ask(cut_off), NoAnswer)
        assert len(asked) == cut_off.usage.uncounted == 2
    with raw(pause=3.0) as (port, asked):
        silent = client(port, tmp_path, tries=1, timeout=0.3)
        assert isinstance(ask(silent), NoAnswer)
        assert silent.usage.uncounted == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        nobody = client(taken.getsockname()[1], tmp_path, tries=2)
        assert isinstance(ask(nobody), NoAnswer)
        assert nobody.usage.uncounted == 0


BODIES = [
    "", "null", "[]", "7", '"x"', "<html>busy</html>", "{", '{"choices": null}', '{"choices": {}}', '{"choices": []}',
    '{"choices": [null]}', '{"choices": [{"message": null}]}', '{"choices": [{"message": {"content": null}}]}',
    '{"choices": [{"message": {"content": 7}}]}', '{"choices": [{"message": {"content": {"a": 1}}}]}',
    '{"choices": [{"message": {"content": []}}]}', '{"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}',
    '{"choices": [{"message": {"content": [{"type": "image"}, 3, null]}}]}', '{"error": {"message": "no"}}', "[" * 100_000,
    '{"choices": ' * 50_000, '{"usage": ' + "9" * 5000 + "}",
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda b: b[:30])
def test_a_body_that_is_no_answer_is_a_reason(server, tmp_path, body):
    server.script = [(200, body)]
    found = ask(client(server.server_port, tmp_path))
    assert isinstance(found, NoAnswer)
    assert not found.away
    assert len(found.reason) < 400


def test_a_message_in_parts_and_halves_of_characters():
    def reply(content):
        return {"choices": [{"message": {"content": content}}]}

    assert read_content(reply([{"type": "text", "text": "a "}, "b", {"type": "image_url"}])) == "a b"
    assert read_content(reply("x\ud83d\ude00 \ud800")) == "x😀 \ufffd"
    assert read_usage({"usage": {"prompt_tokens": 2.0, "completion_tokens": 3}}).prompt_tokens == 2


STATUSES = [*range(200, 600, 7), 204, 205, 206, 304, 404, 405, 418, 451, 501, 505, 520, 529, 599]


def test_every_status_is_an_answer_a_reason_or_one_line(server, tmp_path):
    for i, status in enumerate(STATUSES):
        server.script = [(status, "" if status in (204, 304) else "oops\x1b[31m")]
        one = client(server.server_port, tmp_path)
        if 300 <= status < 500 and status not in PASSING:
            with pytest.raises(ServiceError, match=rf"refuses \({status}\): (oops .31m)?$"):
                ask(one, f"q{i}")
        else:
            found = ask(one, f"q{i}")
            assert isinstance(found, NoAnswer), status
            assert found.away == (status >= 300), status


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_for_its_content_costs_one_answer_if_others_are_answered(server, tmp_path, status):
    server.script = [(status, "too long")]
    one = client(server.server_port, tmp_path)
    with pytest.raises(ServiceError, match=rf"refuses \({status}\): too long"):
        ask(one, "first")
    server.script = [GOOD, (status, "too long"), GOOD]
    assert ask(one, "a") == "good"
    assert ask(one, "b") == NoAnswer(f"the server refuses this request ({status}): too long", away=False)
    assert ask(one, "c") == "good"


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", *[b"{"] * 500),
        (b"H", b"T", b"T", b"P", b"/", b"1", b".", b"1", b" ", b"2", b"0", b"0", b" ", b"O", b"K", b"\r", *[b"x"] * 500),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 500),
    ],
    ids=["body", "head", "chunks"],
)
def test_a_slow_drip_ends_when_the_time_is_up(tmp_path, pieces):
    with raw(*pieces, pause=0.1) as (port, _):
        start = time.monotonic()
        found = ask(client(port, tmp_path, timeout=0.5))
        assert time.monotonic() - start < 3
        assert found == NoAnswer("no whole reply within 0.5 seconds", away=True)


@pytest.mark.parametrize("sized", [True, False])
def test_a_body_without_end_is_not_read_whole(tmp_path, monkeypatch, sized):
    monkeypatch.setattr(wire, "MOST_BYTES", 2**20)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 629145600\r\n\r\n" if sized else b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    with raw(head, *[b" " * 2**16] * 600) as (port, _):
        found = ask(client(port, tmp_path, timeout=5))
        assert found == NoAnswer("a reply of more than 1 MB", away=True)


def test_a_compressed_body_is_not_unpacked(server, tmp_path):
    server.script = [(200, "x", ("Content-Encoding", "gzip"))]
    found = ask(client(server.server_port, tmp_path))
    assert isinstance(found, NoAnswer)
    assert "compressed reply" in found.reason


def test_bytes_of_any_kind_are_a_reason(tmp_path):
    rng = random.Random(0)
    some = [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 \r\n", b"Content-Length: 3\r\n", b"Content-Length: -3\r\n", b"\r\n", b"zz\r\n"]
    some += [b"Content-Length: 9999999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"\xff\xfe\x00{", b"\x00"]
    for i in range(25):
        with raw(b"".join(rng.choices(some, k=rng.randrange(6)))) as (port, _):
            assert isinstance(ask(client(port, tmp_path, timeout=0.5), f"{i}"), NoAnswer)


def test_neither_netrc_nor_the_environments_proxies_are_asked(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.script = [GOOD]
    assert ask(client(server.server_port, tmp_path)) == "good"
    assert "Authorization" not in {name.title() for name in server.headers_seen[0]}
    assert isinstance(ask(client(server.server_port, tmp_path, proxy_variable="HTTP_PROXY"), "other"), NoAnswer)
    with pytest.raises(ServiceError, match="the environment has no NO_SUCH_VARIABLE"):
        ask(client(server.server_port, tmp_path, proxy_variable="NO_SUCH_VARIABLE"), "third")


@pytest.mark.parametrize("key", ["se same", "schlüssel", "a\nX-Other: b", "a\x00"])
def test_a_key_that_is_none_is_one_line_without_the_key(server, tmp_path, monkeypatch, key):
    if "\x00" in key:
        key = "a\x01"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    server.script = [GOOD]
    with pytest.raises(ServiceError, match="the key in OPENAI_API_KEY holds") as error:
        ask(client(server.server_port, tmp_path))
    assert key not in str(error.value)
    assert server.asked == []


@pytest.mark.parametrize(
    "url", ["file:" + "///etc", "ftp://x/v1", "x/v1", "", "http://", "http://me:pw@x/v1", "http://x/v1?key=1", "http://[x"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValidationError):
        ChatServer(url=url, model="m")


@pytest.mark.parametrize(
    "said", ["-5", "nan", "inf", "-inf", "1e999", "Mon, 99 Foo 99999 99:99:99 GMT", "Thu, 01 Jan 9999999 00:00:00 GMT", "\x00"]
)
def test_a_pause_that_no_one_can_wait_is_none(said):
    found = retry_after(said)
    assert found is None or 0 <= found <= 60


@pytest.mark.parametrize(
    "models", ["[]", "null", '{"data": null}', '{"data": 7}', '{"data": [1, {"id": []}]}', '{"data": [{"id": "m"}]}']
)
def test_a_list_of_models_of_any_kind_is_read_or_one_line(server, tmp_path, models):
    server.models = (200, models)
    with contextlib.suppress(ServiceError):
        client(server.server_port, tmp_path).check()
    server.models = (200, "<html>")
    with pytest.raises(ServiceError, match="instead of a list of models there is '<html>'"):
        client(server.server_port, tmp_path).check()


@pytest.mark.parametrize(
    "kept", ["[]", '{"said": 7}', '{"said": "x", "paid": 3}', '{"said": "x", "paid": {"cost": 1}}', "[" * 9999]
)
def test_a_kept_reply_of_any_kind_is_read_or_asked_again(server, tmp_path, kept):
    server.script = [GOOD]
    one = client(server.server_port, tmp_path)
    ask(one)
    (name,) = one.cache.names()
    (one.cache / name).write_bytes(kept.encode())
    assert one.ask([{"role": "user", "content": "q"}], lambda said: said.upper()) == "GOOD"
