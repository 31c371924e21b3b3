"""A client of OpenAI-compatible chat servers: patient with a busy one, asks nothing twice, counts what it costs."""

import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from hashlib import sha256
from http.client import HTTPException
from typing import Any, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt

from linrep.config import Section
from linrep.errors import ServiceError
from linrep.places import Place

PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""
LONGEST_PAUSE = 60.0

T = TypeVar("T")
Message = dict[str, Any]


class ChatServer(Section):
    """Where a chat model answers; its key is read from an environment variable, never from the recipe."""

    url: str = Field(description="Address up to and without /chat/completions, for example http://localhost:8000/v1.")
    model: str = Field(description="Name of the model.")
    key_variable: str = Field(default="OPENAI_API_KEY", description="Environment variable that holds the key; unset for none.")
    timeout: PositiveFloat = Field(default=60, description="Seconds that one request may take.")
    tries: PositiveInt = Field(default=5, description="Times that a request is made before its answer goes without a verdict.")
    parallel: PositiveInt = Field(default=8, description="Requests at once.")
    price: tuple[float, float] = Field(default=(0.0, 0.0), description="Cost of a million prompt and completion tokens.")


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
    """

    requests: int = 0
    retries: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


@dataclass
class Paid:
    """What one answer took, replies that were not as asked included.

    Attributes:
        requests: Requests that were answered.
        prompt_tokens: As the server counted them.
        completion_tokens: Likewise.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: "Paid") -> None:
        """Take in what another request took."""
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens


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
            self._count_known(file.name, known[1])
            return known[0]
        last, paid = NoAnswer("never asked", away=True), Paid()
        for attempt in range(self.server.tries):
            if attempt:
                with self._lock:
                    self.usage.retries += 1
            try:
                said, reply = self._request(body, paid)
                value = read(said)
            except _Wait as wait:
                last = NoAnswer(str(wait), away=True)
                if attempt + 1 < self.server.tries:
                    time.sleep(wait.seconds if wait.seconds is not None else self._backoff(attempt))
                continue
            except ValueError as error:  # the server answers, but not as asked: another try may do better
                last = NoAnswer(f"a reply that is not as asked: {error}", away=False)
                continue
            kept = {"said": said, "model": reply.get("model"), "payer": self.payer, "paid": asdict(paid)}
            file.write_json(kept)
            with self._lock:
                self._counted.add(file.name)
            return value
        return last

    def check(self) -> None:
        """See to it that the server is there, knows the model, and lets this key in; costs nothing.

        Raises:
            ServiceError: It does not; one line says what to do.
        """
        where, variable = self.server.url, self.server.key_variable
        request = urllib.request.Request(f"{where.rstrip('/')}/models", headers=self._headers())
        try:
            with urllib.request.urlopen(request, timeout=min(self.server.timeout, 15.0)) as response:
                listed = json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (401, 403):
                    what = f"the key in {variable}" if os.environ.get(variable) else f"requests without a key: set {variable}"
                    raise ServiceError(f"the {self.name} at {where} refuses {what} ({error.code})") from None
            return  # it is there, and has no list of its models
        except (OSError, HTTPException, ValueError) as error:
            raise ServiceError(f"no {self.name} answers at {where}: {getattr(error, 'reason', None) or error}") from None
        models = [one.get("id") for one in listed.get("data", []) if isinstance(one, dict)] if isinstance(listed, dict) else []
        if models and self.server.model not in models:
            shown = ", ".join(map(str, models[:8]))
            raise ServiceError(f"the {self.name} at {where} has no model {self.server.model!r}: it has {shown}")

    def _backoff(self, attempt: int) -> float:
        return min(LONGEST_PAUSE, self.pause * 2**attempt) * random.uniform(0.5, 1.0)

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self.server.key_variable)
        return {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}

    def _request(self, body: dict[str, Any], paid: "Paid") -> tuple[str, dict[str, Any]]:
        request = urllib.request.Request(
            f"{self.server.url.rstrip('/')}/chat/completions", data=json.dumps(body).encode(), headers=self._headers()
        )
        try:
            with urllib.request.urlopen(request, timeout=self.server.timeout) as response:
                reply = json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                said = " ".join(error.read(500).decode(errors="replace").split())[:200]
            if error.code not in PASSING:
                raise ServiceError(f"the {self.name} at {self.server.url} refuses ({error.code}): {said}") from None
            raise _Wait(f"status {error.code}: {said}", retry_after(error.headers.get("Retry-After"))) from None
        except (OSError, HTTPException) as error:  # no connection, cut off, too slow
            raise _Wait(f"{type(error).__name__}: {error}", None) from None
        used = reply.get("usage") if isinstance(reply, dict) else None
        used = used if isinstance(used, dict) else {}
        took = Paid(1, *(int(used.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")))
        paid.add(took)
        with self._lock:
            self._count(took)
        try:
            return str(reply["choices"][0]["message"]["content"]), reply
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"no message in {json.dumps(reply)[:120]}") from None

    def _count(self, took: "Paid") -> None:
        self.usage.requests += took.requests
        self.usage.prompt_tokens += took.prompt_tokens
        self.usage.completion_tokens += took.completion_tokens
        self.usage.cost += (took.prompt_tokens * self.server.price[0] + took.completion_tokens * self.server.price[1]) / 1e6

    def _count_known(self, name: str, kept: dict[str, Any]) -> None:
        with self._lock:
            if self.payer and kept.get("payer") == self.payer and name not in self._counted:
                self._counted.add(name)
                self._count(Paid(**kept["paid"]))
            else:
                self.usage.cached += 1

    def _known(self, file: Place, read: Callable[[str], T]) -> tuple[T, dict[str, Any]] | None:
        if not file.is_file():
            return None
        try:
            kept = file.read_json()
            return read(kept["said"]), kept
        except (ValueError, KeyError, TypeError):  # damaged: asked again
            return None


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
        except (TypeError, ValueError):
            return None
    return min(LONGEST_PAUSE, max(0.0, seconds))
