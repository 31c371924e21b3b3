"""A client of OpenAI-compatible chat servers: patient with a busy one, asks nothing twice, counts what it costs."""

import json
import math
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import Any, TypeVar

from linrep.chat_server import ChatServer
from linrep.errors import ServiceError
from linrep.places import Place
from linrep.wire import Elsewhere, NoReply, Reply, exchange

GAVE_UP = (502, 504, 524)
"""Replies of a gateway behind which the model may have answered, and be paid for."""
PASSING = (408, 409, 425, 429)
"""Statuses under 500 after which the same request may succeed; of those above it may after any."""
OF_THE_REQUEST = (400, 413, 422)
"""Statuses that may be about what is in a request: too long, or filtered. Then others may be answered."""
MOST_TOKENS = 10**9
"""That one answer can have taken: a server that counts more has not counted."""
LONGEST_PAUSE = 60.0

T = TypeVar("T")
Message = dict[str, Any]


@dataclass
class Usage:
    """What the answers cost.

    Attributes:
        requests: Requests that were answered.
        retries: Requests that had to be made again.
        cached: Answers that were known already, and paid for on another account.
        prompt_tokens: As the server counted them.
        completion_tokens: Likewise.
        cost: By the recipe's prices.
        uncounted: Attempts whose tokens the server did not count, or not readably, or to which no whole reply came: they cost
            more than is known.
    """

    requests: int = 0
    retries: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    uncounted: int = 0


@dataclass
class Paid:
    """What one answer took, replies that were not as asked included.

    Attributes:
        requests: Requests that were answered.
        prompt_tokens: As the server counted them.
        completion_tokens: Likewise.
        uncounted: Attempts whose tokens are not known.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0

    def add(self, other: "Paid") -> None:
        """Take in what another request took."""
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.uncounted += other.uncounted


@dataclass(frozen=True)
class NoAnswer:
    """Why a question goes without an answer.

    Attributes:
        reason: What went wrong the last time.
        away: Whether the server was away or too busy; else it replied, but not as asked.
    """

    reason: str
    away: bool


@dataclass
class ChatClient:
    """Asks every distinct question once; several threads may use it at once.

    A reply is kept on disk under a hash of everything that decides it, so a job that is started again asks only for the rest.
    The model's name and the request decide it; at which address the model answers does not.

    Attributes:
        server: Server, model and limits.
        cache: Folder of kept replies.
        pause: Seconds before the second try; doubled before each further one, and drawn around that.
        name: What error messages call it.
        usage: What was asked so far.
        payer: On whose account questions are asked. A reply that was kept on the same account by an earlier process counts here
            as a request with what it took, once; any other kept reply counts as cached.
    """

    server: ChatServer
    cache: Place
    pause: float = 1.0
    name: str = "server"
    usage: Usage = field(default_factory=Usage)
    payer: str = ""
    _counted: set[str] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ask(self, messages: list[Message], read: Callable[[str], T], **settings: Any) -> T | NoAnswer:
        """What `read` makes of the reply to some messages.

        Args:
            messages: The conversation.
            read: Raises a ValueError for a reply that is not as asked; then the question is asked again.
            settings: Further fields of the request, such as max_tokens.

        Raises:
            ServiceError: The server refuses every request in the same way (a wrong key, a model that it does not have).
        """
        body = {"model": self.server.model, "temperature": 0, "messages": messages, **settings}
        file = self.cache / f"{sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()}.json"
        known = self._known(file, read)
        if known is not None:
            self._count_known(file.name, *known[1:])
            return known[0]
        last, paid = NoAnswer("never asked", away=True), Paid()
        for attempt in range(self.server.tries):
            if attempt:
                with self._lock:
                    self.usage.retries += 1
            try:
                said, model = self._request(body, paid)
                value = read(said)
            except _Wait as wait:
                last = NoAnswer(str(wait), away=True)
                if attempt + 1 < self.server.tries:
                    time.sleep(self._backoff(attempt) if wait.seconds is None else max(wait.seconds, self.pause / 2))
                continue
            except _Refused as refused:
                return NoAnswer(str(refused), away=False)
            except ValueError as error:  # the server answers, but not as asked: another try may do better
                last = NoAnswer(f"a reply that is not as asked: {error}", away=False)
                continue
            kept = {"said": said, "model": model, "payer": self.payer, "paid": asdict(paid)}
            file.write_json(kept)
            with self._lock:
                self._counted.add(file.name)
            return value
        return last

    def check(self) -> None:
        """Make sure that the server is there, knows the model, and lets this key in; costs nothing.

        Raises:
            ServiceError: It does not; one line says what to do.
        """
        where, variable = self.server.url, self.server.key_variable
        try:
            reply = self._exchange("models", None, min(self.server.timeout, 15.0))
        except NoReply as error:
            raise ServiceError(f"no {self.name} answers at {where}: {error}") from None
        if reply.status in (401, 403):
            what = f"the key in {variable}" if os.environ.get(variable) else f"requests without a key: set {variable}"
            raise ServiceError(f"the {self.name} at {where} refuses {what} ({reply.status})")
        if not 200 <= reply.status < 300:
            return  # it is there, and has no list of its models
        try:
            listed = json.loads(reply.body)
        except (ValueError, RecursionError):
            raise ServiceError(
                f"no {self.name} answers at {where}: instead of a list of models there is {_shown(reply.body)!r}"
            ) from None
        data = listed.get("data") if isinstance(listed, dict) else None
        models = [one.get("id") for one in data if isinstance(one, dict)] if isinstance(data, list) else []
        if models and self.server.model not in models:
            shown = ", ".join(map(str, models[:8]))
            raise ServiceError(f"the {self.name} at {where} has no model {self.server.model!r}: it has {shown}")

    def _backoff(self, attempt: int) -> float:
        return min(LONGEST_PAUSE, self.pause * 2**attempt) * random.uniform(0.5, 1.0)

    def _headers(self) -> dict[str, str]:
        variable = self.server.key_variable
        key = os.environ.get(variable, "").strip()
        if not (key.isascii() and (key.isprintable() or not key)) or " " in key:
            raise ServiceError(f"the key in {variable} holds a space, or a character that no key has: set it anew")
        return {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}

    def _exchange(self, path: str, body: bytes | None, seconds: float) -> Reply:
        variable = self.server.proxy_variable
        proxy = os.environ.get(variable) if variable else None
        if variable and not proxy:
            raise ServiceError(f"proxy_variable: the environment has no {variable}")
        try:
            return exchange(f"{self.server.url.rstrip('/')}/{path}", self._headers(), body, seconds, proxy)
        except Elsewhere as to:
            raise ServiceError(
                f"the {self.name} at {self.server.url} sends requests on to {to}, where the key is not taken: "
                "if that is right, name that address as url"
            ) from None

    def _request(self, body: dict[str, Any], paid: "Paid") -> tuple[str, str | None]:
        """What the model said, and what the server calls it."""
        try:
            reply = self._exchange("chat/completions", json.dumps(body).encode(), self.server.timeout)
        except NoReply as error:
            if error.sent:
                self._take(Paid(uncounted=1), paid)
            raise _Wait(str(error), None) from None
        said = f"({reply.status}): {_shown(reply.body)}"
        if reply.status in GAVE_UP:
            self._take(Paid(uncounted=1), paid)
        if reply.status in PASSING or reply.status >= 500:
            raise _Wait(f"status {said}", retry_after(reply.headers.get("retry-after")))
        if reply.status in OF_THE_REQUEST and self.usage.requests:
            raise _Refused(f"the {self.name} refuses this request {said}")
        if not 200 <= reply.status < 300:
            raise ServiceError(f"the {self.name} at {self.server.url} refuses {said}")
        try:
            value = read_body(reply.body)
        except ValueError:
            self._take(Paid(1, uncounted=1), paid)
            raise
        self._take(read_usage(value), paid)
        return read_content(value), value["model"] if isinstance(value.get("model"), str) else None

    def _take(self, took: "Paid", paid: "Paid") -> None:
        """Count what one attempt took, for its question and in all."""
        paid.add(took)
        with self._lock:
            self._count(took)

    def _count(self, took: "Paid") -> None:
        self.usage.requests += took.requests
        self.usage.prompt_tokens += took.prompt_tokens
        self.usage.completion_tokens += took.completion_tokens
        self.usage.uncounted += took.uncounted
        self.usage.cost += (took.prompt_tokens * self.server.price[0] + took.completion_tokens * self.server.price[1]) / 1e6

    def _count_known(self, name: str, payer: object, paid: Paid) -> None:
        with self._lock:
            if self.payer and payer == self.payer and name not in self._counted:
                self._counted.add(name)
                self._count(paid)
            else:
                self.usage.cached += 1

    def _known(self, file: Place, read: Callable[[str], T]) -> tuple[T, object, Paid] | None:
        if not file.is_file():
            return None
        try:
            kept = file.read_json()
            return read(kept["said"]), kept.get("payer"), Paid(**kept["paid"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # damaged: asked again
            return None


def read_body(body: bytes) -> dict[str, Any]:
    """The object that a reply is.

    Raises:
        ValueError: It is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):  # wrong bytes, a page in HTML, nested beyond reason
        raise ValueError(f"no JSON in {_shown(body)!r}") from None
    if not isinstance(value, dict):
        raise ValueError(f"no message in {_shown(body)!r}")
    return value


def read_content(reply: dict[str, Any]) -> str:
    """What the model said: a text, or parts of one.

    Raises:
        ValueError: There is no message, or no text in it.
    """
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise ValueError(f"no message in {json.dumps(reply)[:120]}")
    content = message.get("content")
    if isinstance(content, list):
        parts = [one.get("text") if isinstance(one, dict) else one for one in content]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content:
        raise ValueError(f"a message without text (finish_reason {str(choice.get('finish_reason'))[:40]!r})")
    # Halves of characters cannot be kept as UTF-8.
    return content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_usage(reply: dict[str, Any]) -> Paid:
    """What a reply says that it took; none of it where that is not readable, and then it counts as uncounted."""
    used = reply.get("usage")
    counts = [_tokens(used.get(name)) if isinstance(used, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    return Paid(1, counts[0] or 0, counts[1] or 0, uncounted=int(None in counts))


def _tokens(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:  # NaN is not, either
        return None
    return math.ceil(value)


def _shown(body: bytes) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in body[:500].decode(errors="replace")).split())[:200]


class _Refused(Exception):
    """Why one request is refused that others need not share."""


class _Wait(Exception):
    """Why a request may be made again, and after how many seconds if the server says so."""

    def __init__(self, why: str, seconds: float | None) -> None:
        super().__init__(why)
        self.seconds = seconds


def retry_after(value: str | None, now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a server asks to wait, given as a number or as a date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now()
        except (TypeError, ValueError, OverflowError, IndexError):
            return None
    return min(LONGEST_PAUSE, max(0.0, seconds))
