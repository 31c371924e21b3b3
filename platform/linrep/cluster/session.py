"""Join the cluster that is named, or start a small one here; quiet except for what matters."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from linrep.cluster.knock import knock
from linrep.cluster.stop import ending, kept_handlers
from linrep.errors import ServiceError
from linrep.places import redacted

STARTS = 2
"""Times that Ray is started here before a job gives up: it allows its own processes 30 s, which a crowded machine can take."""

PATHS = os.pathsep.join(str(Path(__file__).parents[up]) for up in (2, 3))
"""Where `linrep` and `schemas` lie, for workers on this machine that have them from a checkout and not installed."""


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """A Ray cluster for the length of the block.

    Inside `ray job submit`, or with RAY_ADDRESS set, it joins that cluster and leaves it running. A Ray that this process has
    started already is used as it is. Otherwise it starts one on this machine and ends it; where a signal ends the whole job, that
    is left for the very end, see `leave`.

    Raises:
        ServiceError: There is no cluster at the address, or none starts here.
    """
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Ray's C++ core writes its log lines to the terminal as well as to its own files.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        with kept_handlers():
            _connect(os.environ.get("RAY_ADDRESS"))
        yield
    finally:
        if not ending():
            _end_data()
            ray.shutdown()


def leave(status: int) -> None:
    """End this process at once if it has begun with Ray: its last act after a signal.

    Ray's core ends a process with status 1 and without a word when one of its threads asks a local raylet that is gone. A data
    set and a search have such threads. So nothing ends Ray's own processes while anything is left to close. Then those that Ray's
    servers have started are killed, and the system ends the servers with this process. A cluster that others started hears that
    this job is over.

    Args:
        status: The exit status.
    """
    ray = sys.modules.get("ray")
    if ray is None:
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.shutdown()
        os._exit(status)
    servers = psutil.Process().children()
    others = [process for process in psutil.Process().children(recursive=True) if process not in servers]
    for process in others:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(status)


def _end_data() -> None:
    """End the threads of Ray Data that an error has left at work; see `leave` for what they would do to the process."""
    module = sys.modules.get("ray.data._internal.execution.streaming_executor")
    for thread in threading.enumerate():
        if module is not None and isinstance(thread, module.StreamingExecutor):
            thread.shutdown(force=True)  # pyright: ignore[reportAttributeAccessIssue]


def _connect(address: str | None) -> None:
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    if address:
        with _answering(address), _silent():
            knock(address)
            ray.init(address=address, **quiet)
        return
    paths = os.pathsep.join(filter(None, [PATHS, os.environ.get("PYTHONPATH")]))
    for attempt in range(1, STARTS + 1):
        try:
            with _silent():
                ray.init("local", include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": paths}}, **quiet)
            return
        # Ray raises a bare Exception when its own processes are not up in time.
        except (Exception, SystemExit) as error:
            _let_signal_pass(error)
            ray.shutdown()
            if attempt == STARTS:
                raise ServiceError(
                    f"Ray did not start on this machine in {STARTS} attempts, which is often short of memory, disk or time then: "
                    f"{_first_line(error)}"
                ) from error


def check_address() -> None:
    """Make sure that a cluster is there, where RAY_ADDRESS names one: asked before a job makes anything.

    Raises:
        ServiceError: There is none.
    """
    address = os.environ.get("RAY_ADDRESS")
    ray = sys.modules.get("ray")
    if not address or (ray is not None and ray.is_initialized()):
        return
    with _answering(address), _silent():
        knock(address)


@contextlib.contextmanager
def _answering(address: str) -> Iterator[None]:
    """What fails in the block is that no cluster answers, in one line.

    Raises:
        ServiceError: It failed.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        _let_signal_pass(error)
        raise ServiceError(f"no Ray cluster answers at RAY_ADDRESS={redacted(address)}: {_first_line(error)}") from error


def _let_signal_pass(error: BaseException) -> None:
    """Raise an exit that Ray asks for because of SIGTERM again; any other is Ray that gives up."""
    if isinstance(error, SystemExit) and error.code == signal.SIGTERM:
        raise error


def _first_line(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"Ray gave up with exit status {error.code}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing on standard error, also from code that is not Python; what goes wrong in the block is raised all the same."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        if not ending():  # the job's end speaks again, and not before
            os.dup2(kept, 2)
        os.close(kept)


def quiet_data() -> None:
    """Ray Data without its own bars and log lines."""
    import ray

    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.verbose_progress = False
    # A drought of spot nodes is no reason to give up after half an hour.
    context.execution_no_progress_timeout_s = 24 * 3600
