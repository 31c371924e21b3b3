"""One HTTP request to a server that nobody trusts: bounded in time and size, never sent on to another place with its key.

Neither the environment's proxies nor a netrc file are used: who is asked, and with which key, the recipe alone says.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from ssl import SSLContext
from typing import Any, TypeVar

import httpx2

MOST_BYTES = 8 * 2**20
"""Of a reply's body; a verdict has some hundred."""
MOST_HOPS = 3
KEEPING = (307, 308)
"""Redirects that keep method and body."""
MOVED = (301, 302, 303, *KEEPING)

T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """What a server sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoReply(Exception):
    """Why nothing whole came: another try may do better.

    Attributes:
        sent: Whether the server may have the request, and ask money for it.
    """

    sent = True


class Elsewhere(Exception):
    """The server sends us to another place, which is not followed; the message says where."""


def exchange(url: str, headers: Mapping[str, str], body: bytes | None, seconds: float, proxy: str | None = None) -> Reply:
    """The reply to a request: a POST if there is a body, else a GET.

    Args:
        url: Where to.
        headers: To send, with the key.
        body: To send.
        seconds: That all of it may take, however slowly the server drips.
        proxy: Address of a proxy to go through.

    Raises:
        NoReply: No connection, cut off, too slow, too long, or not HTTP.
        Elsewhere: A redirect to another scheme, host or port, or one that loses the request's body.
    """
    return _finished(_exchange(url, headers, body, seconds, proxy))


def _finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, in a notebook too, whose thread has a running loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _exchange(url: str, headers: Mapping[str, str], body: bytes | None, seconds: float, proxy: str | None) -> Reply:
    trusted = _trusted()  # read once: a client of its own takes tens of milliseconds for it, also for http
    try:
        # A timeout of httpx is one of each read, which a server that drips never reaches; this one is of the whole.
        async with asyncio.timeout(seconds):
            async with httpx2.AsyncClient(timeout=seconds, trust_env=False, proxy=proxy, verify=trusted) as client:
                return await _followed(client, httpx2.URL(url), headers, body)
    except TimeoutError:
        raise NoReply(f"no whole reply within {seconds:g} seconds") from None
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        unsent = NoReply(f"{type(error).__name__}: {error}")
        unsent.sent = False
        raise unsent from None
    except (httpx2.HTTPError, httpx2.StreamError, OSError, ValueError, RuntimeError) as error:
        raise NoReply(f"{type(error).__name__}: {error}") from None


async def _followed(client: httpx2.AsyncClient, url: httpx2.URL, headers: Mapping[str, str], body: bytes | None) -> Reply:
    for _ in range(MOST_HOPS + 1):
        reply = await _one(client, url, headers, body)
        if reply.status not in MOVED or "location" not in reply.headers:
            return reply
        try:
            to = url.join(reply.headers["location"])
        except (httpx2.InvalidURL, ValueError):
            raise Elsewhere(f"an address that is none ({reply.status})") from None
        if _origin(to) != _origin(url) or (body is not None and reply.status not in KEEPING):
            raise Elsewhere(f"{_origin(to)}{to.path} ({reply.status})")
        url = to
    raise Elsewhere(f"one address after another, the last {_origin(url)}{url.path}")


async def _one(client: httpx2.AsyncClient, url: httpx2.URL, headers: Mapping[str, str], body: bytes | None) -> Reply:
    plain = {**headers, "Accept-Encoding": "identity"}  # a few bytes of gzip can be gigabytes
    async with client.stream("GET" if body is None else "POST", url, headers=plain, content=body) as response:
        if response.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise NoReply(f"a compressed reply ({response.headers['content-encoding']!r}), though it was not asked for")
        held = bytearray()
        async for piece in response.aiter_raw():
            held += piece
            if len(held) > MOST_BYTES:
                raise NoReply(f"a reply of more than {MOST_BYTES // 2**20} MB")
        return Reply(response.status_code, dict(response.headers), bytes(held))


def _origin(url: httpx2.URL) -> str:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return f"{url.scheme}://{url.host}:{port}"


@lru_cache(maxsize=1)
def _trusted() -> SSLContext:
    """Certificates that this machine trusts, read once."""
    return httpx2.create_ssl_context(trust_env=False)
