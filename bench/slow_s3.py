"""An object store in memory that counts requests and lets each of them wait, as a real one does.

It knows what pyarrow asks of S3, no more, and is fast: what is measured is the waiting. Which uploads complete is tested against
moto's S3, which knows the whole protocol.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase, BytesIO
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from linrep.places import Place, place

BUCKET = "bench"
LATENCY = 0.03
"""Seconds before each answer: what an object store takes within a region."""
_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_MODIFIED = "Sat, 01 Jan 2000 00:00:00 GMT"


class SlowS3:
    """A server on a loopback port of its own.

    Attributes:
        latency: Seconds before each answer.
        requests: Method and key of each request so far.
        most: Requests that waited at the same time, at most.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.latency, self.most = 0.0, 0
        self.requests: list[tuple[str, str]] = []
        self.lock, self.waiting = threading.Lock(), 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def folder(self, name: str) -> Place:
        """A folder in its bucket."""
        address = f"127.0.0.1:{self._server.server_port}"
        return place(f"s3://key:secret@{BUCKET}/{name}?region=us-east-1&scheme=http&endpoint_override={address}")

    def fill(self, source: Path, target: Place) -> None:
        """Put all files below a local folder into one of its folders, without requests."""
        for path in source.rglob("*"):
            if path.is_file():
                self.objects[(target / path.relative_to(source).as_posix()).path.partition("/")[2]] = path.read_bytes()

    @contextmanager
    def counting(self, latency: float = 0.0) -> Iterator[list[tuple[str, str]]]:
        """The requests of a block: method and key. Each waits for so many seconds."""
        self.requests, self.most, self.latency = [], 0, latency
        try:
            yield self.requests
        finally:
            self.latency = 0.0

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


def by_method(requests: list[tuple[str, str]]) -> dict[str, int]:
    """How many requests there were of each method."""
    return dict(Counter(method for method, _ in requests))


class _Handler(BaseHTTPRequestHandler):
    store: SlowS3
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def handle_one_request(self) -> None:
        """As always, but a connection that the client drops is no error."""
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def _begin(self) -> tuple[str, dict[str, str], bytes]:
        address = urlsplit(self.path)
        key = unquote(address.path).partition(f"/{BUCKET}")[2].lstrip("/")
        query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        in_chunks = self.headers.get("Transfer-Encoding") == "chunked"
        body = _joined(self.rfile) if in_chunks else self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            body = _joined(BytesIO(body))
        store = self.store
        with store.lock:
            store.requests.append((self.command, key))
            store.waiting += 1
            store.most = max(store.most, store.waiting)
        time.sleep(store.latency)
        with store.lock:
            store.waiting -= 1
        return key, query, body

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def do_HEAD(self) -> None:
        """Bytes of an object."""
        key, _, _ = self._begin()
        found = self.store.objects.get(key)
        if found is None:
            self._answer(200 if not key else 404)
        else:
            self._answer(200, Content_Length=str(len(found)), ETag='"0"', Last_Modified=_MODIFIED)

    def do_GET(self) -> None:
        """An object, a range of it, or the keys of a folder."""
        key, query, _ = self._begin()
        if not key:
            self._answer(200, self._listing(query), Content_Type="application/xml")
            return
        found = self.store.objects.get(key)
        if found is None:
            self._answer(404, f"{_XML}<Error><Code>NoSuchKey</Code></Error>".encode())
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), min(int(asked[2]), len(found) - 1)) if asked else (0, len(found) - 1)
        part = memoryview(found)[first : last + 1]
        self._answer(206 if asked else 200, part, Content_Range=f"bytes {first}-{last}/{len(found)}", ETag='"0"')  # type: ignore[arg-type]

    def do_PUT(self) -> None:
        """An object, a part of one, or a copy."""
        key, query, body = self._begin()
        source = self.headers.get("x-amz-copy-source")
        if "uploadId" in query:
            self.store.parts[query["uploadId"]][int(query["partNumber"])] = body
        elif source:
            self.store.objects[key] = self.store.objects[unquote(source).lstrip("/").partition("/")[2]]
            self._answer(200, f'{_XML}<CopyObjectResult><ETag>"0"</ETag></CopyObjectResult>'.encode())
            return
        else:
            self.store.objects[key] = body
        self._answer(200, ETag='"0"')

    def do_POST(self) -> None:
        """The beginning and the end of an upload in parts, and the deletion of several objects."""
        key, query, body = self._begin()
        if "uploads" in query:
            name = f"upload{len(self.store.parts)}"
            self.store.parts[name] = {}
            answer = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
        elif "delete" in query:
            for gone in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.store.objects.pop(gone, None)
            answer = "<DeleteResult/>"
        else:
            parts = self.store.parts.pop(query["uploadId"])
            self.store.objects[key] = b"".join(parts[number] for number in sorted(parts))
            answer = '<CompleteMultipartUploadResult><ETag>"0"</ETag></CompleteMultipartUploadResult>'
        self._answer(200, f"{_XML}{answer}".encode(), Content_Type="application/xml")

    def do_DELETE(self) -> None:
        """An object away, or an upload."""
        key, query, _ = self._begin()
        if "uploadId" in query:
            self.store.parts.pop(query["uploadId"], None)
        else:
            self.store.objects.pop(key, None)
        self._answer(204)

    def _listing(self, query: dict[str, str]) -> bytes:
        prefix, end, most = query.get("prefix", ""), query.get("delimiter", ""), int(query.get("max-keys", 1000))
        after, entries = query.get("continuation-token", ""), {}
        for key in sorted(key for key in list(self.store.objects) if key.startswith(prefix)):
            inner, is_folder, _ = key[len(prefix) :].partition(end) if end else (key[len(prefix) :], "", "")
            entries[prefix + inner + is_folder] = None if is_folder else len(self.store.objects[key])
        names = [name for name in entries if name > after]
        shown = []
        for name in names[:most]:
            size, own = entries[name], f"<Key>{escape(name)}</Key>"
            kept = f"<Size>{size}</Size><LastModified>2000-01-01T00:00:00.000Z</LastModified>"
            shown.append(
                f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" if size is None
                else f"<Contents>{own}{kept}</Contents>"
            )  # fmt: skip
        more = f"<NextContinuationToken>{escape(names[most - 1])}</NextContinuationToken>" if len(names) > most else ""
        cut = f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated><KeyCount>{len(shown)}</KeyCount>{more}"
        return f"{_XML}<ListBucketResult>{cut}{''.join(shown)}</ListBucketResult>".encode()


def _joined(stream: BufferedIOBase) -> bytes:
    """The content of a body that comes in chunks, each after its length; after an empty one there may be lines to its end."""
    found = []
    while size := int(stream.readline().partition(b";")[0], 16):
        found.append(stream.read(size))
        stream.readline()
    while stream.readline().strip():
        pass
    return b"".join(found)
