"""MLflow's client, opened and asked: patient with a server that is away, and in one line about what will not pass."""

import contextlib
import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from linrep.errors import ServiceError
from linrep.places import redacted
from linrep.retry import retried

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 20.0, 20.0, 20.0)
"""Seconds before each further try of a request that failed: a server has a minute and a half to come back."""
FIRST_PAUSES = (0.5, 1.0, 2.0)
"""The same before a job has begun: nothing is lost by an early answer."""
FIRST_TIMEOUT_S = 5
"""Seconds that a server may take for its first answer."""
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED", "UNAUTHENTICATED", "ENDPOINT_NOT_FOUND")
"""A server that answers so will do so again."""
LASTING = re.compile(
    r"readonly database|disk is full|no such (table|column)|not a database|unable to open database|malformed|database schema"
)
"""So will a database that says this."""
LASTING_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG}
_SCHEMA = re.compile(r"found version (\w+), but expected (\w+)|Can't locate revision identified by '(\w+)'")


def open_client(uri: str) -> "MlflowClient":
    """A client of a server or a database.

    Raises:
        ServiceError: The address is none that MLflow takes, or what is there cannot be opened.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if uri.startswith("http"):
        # MLflow's own retries last for minutes; `patiently` decides instead.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    from mlflow import MlflowClient

    for name in ("mlflow.store.db.utils", "alembic"):
        # What goes wrong there is raised as well, and reported then.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return MlflowClient(tracking_uri=uri)
    except Exception as error:  # whatever MLflow, SQLAlchemy, alembic or a driver raises: the address comes from a user
        raise ServiceError(reason(error, uri)) from error


@contextlib.contextmanager
def first_contact(uri: str) -> Iterator[None]:
    """Makes MLflow give up early, for the length of the block."""
    names = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    kept = {name: os.environ.get(name) for name in names}
    if uri.startswith("http"):
        os.environ.update(zip(names, (str(FIRST_TIMEOUT_S), "0"), strict=True))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def patiently(call: Callable[[], T], uri: str, pauses: Sequence[float] | None = None) -> T:
    """The call's result; tried again, after a pause, while a server is away. A line says so.

    Args:
        call: A request.
        uri: Whom it asks, for messages.
        pauses: Seconds before each further try, `PAUSES` if None.

    Raises:
        ServiceError: It refuses, or does not come back.
    """
    from mlflow.exceptions import MlflowException

    pauses, reported = PAUSES if pauses is None else pauses, [False]

    def away(error: Exception) -> bool:
        passing = isinstance(error, MlflowException | OSError) and not _lasts(error)
        if passing and not reported[0] and pauses is PAUSES:
            reported[0] = True
            print(f"MLflow at {shown(uri)} does not answer: trying again for {sum(pauses):.0f} s", file=sys.stderr, flush=True)
        return passing

    try:
        return retried(call, pauses, away)
    except (MlflowException, OSError) as error:
        raise ServiceError(reason(error, uri)) from error


def shown(uri: str) -> str:
    """An address for people: without secrets."""
    return redacted(uri)


def reason(error: BaseException, uri: str) -> str:
    """What is wrong with a server or a database, in one line, and what to do where that is known."""
    text = str(error)
    schema = _SCHEMA.search(text)
    if schema is not None:
        import mlflow

        return (
            f"the MLflow database {shown(uri)} has the tables of another version of MLflow ({schema[1] or schema[3]}) than the "
            f"one installed, {mlflow.__version__}: install the newer of the two; an older database is brought up by "
            f"'mlflow db upgrade {shown(uri)}', after a backup"
        )
    if not re.match(r"[a-z][a-z0-9+]*:", uri):
        return (
            f"MLFLOW_TRACKING_URI is {shown(uri)!r}, which is no address of a server (http://host:port) or of a database "
            f"(sqlite:////folder/mlflow.db)"
        )
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("[SQL", "[parameters", "(Background"))]
    said = (lines[0] if lines else type(error).__name__)[:300]
    return f"MLflow at {shown(uri)} does not answer as it should: {said}"


def _lasts(error: Exception) -> bool:
    return (
        getattr(error, "error_code", "") in REFUSALS
        or getattr(error, "errno", None) in LASTING_ERRNO
        or LASTING.search(str(error)) is not None
    )
