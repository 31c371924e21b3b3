"""A chat server on this machine that behaves as a test wants, badly too."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator


class Server(http.server.ThreadingHTTPServer):
    """Answers by a script: for each request a status and a body, in turn; the last one stays."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.asked, self.lock, self.headers_seen = [], [], threading.Lock(), []
        self.models = (200, json.dumps({"data": [{"id": "m"}]}))


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.headers_seen.append(dict(self.headers))
            step = self.server.script.pop(0) if len(self.server.script) > 1 else self.server.script[0]
        status, content, *headers = step(body) if callable(step) else step
        if status == "hang up":
            self.connection.close()
            return
        if status == "sleep":
            threading.Event().wait(content)
            return
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        data = content.encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        status, content = self.server.models
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server for the length of the block."""
    one = Server()
    thread = threading.Thread(target=one.serve_forever, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        one.shutdown()
        one.server_close()


def says(content):
    return 200, json.dumps(
        {"choices": [{"message": {"content": content}}], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
    )
