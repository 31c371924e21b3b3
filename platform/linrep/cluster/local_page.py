"""The page of `jobs/ask.py --serve`, as a function from requests to responses: whom it answers, how much it reads, what it sends.

Every page that a browser here has open can send requests to this one. So a request must name this machine as its host: a foreign
name that resolves to it is refused. And a question must come from the page itself.
Nothing here knows Ray.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linrep.cluster.asking import Asker, Query
from linrep.errors import LinrepError
from linrep.explorer.asked import ASSETS, SERVED_POLICY, asked_data, asset, page_html, shown_image
from linrep.reading.changes import SITES
from linrep.vlm.image import BadImage, decode

MOST_BYTES = 20 << 20
"""Of an uploaded image."""
MOST_BODY = MOST_BYTES * 4 // 3 + (1 << 16)
"""Of a request: the image in base64, and what is asked."""
MOST_TEXT = 4000
"""Characters of a question."""
MOST_EDITS = 8
FILES = (*ASSETS, "serve.js")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
HEADERS = {
    "Content-Security-Policy": f"{SERVED_POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Response:
    """What is sent.

    Attributes:
        status: HTTP's.
        body: Its bytes.
        content_type: What they are.
        headers: What else stands at its head.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=lambda: HEADERS)


class LocalPage:
    """Answers the requests of the page.

    Args:
        asker: Who is asked.
        port: The port that it is served on.
    """

    def __init__(self, asker: Asker, port: int) -> None:
        self._asker, self._hosts = asker, {f"{name}:{port}" for name in LOOPBACK}

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Response | None:
        """Why a request is not answered, known before its body is read; None where it is.

        Args:
            method: GET or POST.
            path: Of the address.
            headers: By their names in small letters.
        """
        host = headers.get("host", "")
        if host not in self._hosts:
            return _error(421, "this page is served to this machine alone: open it by its address")
        known = {("GET", name) for name in ("/", "/about", *(f"/{name}" for name in FILES))} | {("POST", "/ask")}
        if (method, path) not in known:
            there = any(path == other for _, other in known)
            return _error(405 if there else 404, "there is no such page")
        if method == "GET":
            return None
        if headers.get("origin") != f"http://{host}" or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return _error(403, "another page may not ask here")
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _error(415, "a question is JSON")
        size = headers.get("content-length", "")
        if not size.isdecimal():
            return _error(411, "a question says how long it is")
        return _error(413, TOO_LARGE) if int(size) > MOST_BODY else None

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """The response to a request."""
        refused = self.refusal(method, path, headers)
        if refused is not None:
            return refused
        if method == "POST":
            return self._ask(body)
        if path == "/about":
            return Response(200, _json(self._about()))
        if path == "/":
            scripts = [name for name in FILES if name.endswith(".js")]
            return Response(200, page_html(scripts, "Ask", SERVED_POLICY).encode(), "text/html; charset=utf-8")
        name = path.removeprefix("/")
        return Response(200, asset(name), TYPES[name.rpartition(".")[2]])

    def _about(self) -> dict[str, Any]:
        asker = self._asker
        saes = [{"layer": one.layer, "name": one.name, "latents": getattr(one.encoder, "n_latents", 0)} for one in asker.saes]
        return {
            "question": asker.question,
            "classes": list(asker.classes),
            "layers": list(asker.layers),
            "sites": list(SITES),
            "saes": saes,
            "missing": list(asker.missing),
            "most_bytes": MOST_BYTES,
        }

    def _ask(self, body: bytes) -> Response:
        if len(body) > MOST_BODY:
            return _error(413, TOO_LARGE)
        try:
            query = read_query(body)
            asked = self._asker(query)
        except (LinrepError, _Wrong) as error:
            return _error(422, str(error).replace("--", ""))
        src = None
        if query.image is not None:
            name, data = shown_image(decode(query.image))
            kind = "jpeg" if name.endswith("jpg") else "png"
            src = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        return Response(200, _json(asked_data(asked, self._asker.card, src)))


TOO_LARGE = f"the image is larger than {MOST_BYTES >> 20} MiB"


class _Wrong(ValueError):
    """What is wrong with a question."""


def read_query(body: bytes) -> Query:
    """The question in a request.

    Raises:
        ValueError: It is none; the message says why.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise _Wrong("the question is no JSON") from None
    if not isinstance(found, dict):
        raise _Wrong("the question is no record")
    text, name, site = (_text(found, key, most) for key, most in (("text", MOST_TEXT), ("name", 255), ("site", 20)))
    latents, edits = (_texts(found, key) for key in ("latents", "edits"))
    image: bytes | None = None
    if found.get("image") is not None:
        try:
            image = base64.b64decode(str(found["image"]), validate=True)
        except (binascii.Error, ValueError):
            raise _Wrong("the image is not base64") from None
        if len(image) > MOST_BYTES:
            raise _Wrong(TOO_LARGE)
        try:
            decode(image)
        except BadImage as reason:
            raise _Wrong(str(reason)) from None
    return Query(image, name or "image", text or None, latents, edits, site or "image")


def _text(found: dict[str, Any], key: str, most: int) -> str:
    value = found.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise _Wrong(f"{key} is no text of at most {most} characters")
    return value


def _texts(found: dict[str, Any], key: str) -> tuple[str, ...]:
    values = found.get(key) or []
    if not isinstance(values, list) or len(values) > MOST_EDITS or not all(isinstance(v, str) and len(v) < 1000 for v in values):
        raise _Wrong(f"{key} are at most {MOST_EDITS} texts")
    return tuple(values)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, allow_nan=False).encode()


def _error(status: int, why: str) -> Response:
    return Response(status, _json({"error": why}))
