"""Join the cluster that is named, or start a small one here; quiet except for what matters."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

PATHS = os.pathsep.join(str(Path(__file__).parents[up]) for up in (2, 3))
"""Where `linrep` and `schemas` lie, for workers on this machine that have them from a checkout and not installed."""


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """A Ray cluster for the length of the block.

    Inside `ray job submit`, or with RAY_ADDRESS set, it joins that cluster and leaves it running. A Ray that this process has
    started already is used as it is. Otherwise it starts one on this machine and ends it.
    """
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Ray's C++ core writes its log lines to the terminal as well as to its own files.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    paths = os.pathsep.join(filter(None, [PATHS, os.environ.get("PYTHONPATH")]))
    with _silent():
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init("local", include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": paths}}, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing on standard error, also from code that is not Python; what goes wrong in the block is raised all the same."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
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
