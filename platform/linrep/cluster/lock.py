"""One driver per artefact: the second says so and leaves."""

import contextlib
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from linrep.errors import WorkspaceBusy
from linrep.places import Place

LOCK = "driver.lock"
LEASE_SECONDS = 120.0
"""In an object store, a driver that has not renewed its lease for this long is taken for dead."""


@contextlib.contextmanager
def sole_driver(place: Place) -> Iterator[None]:
    """Hold a folder for this process.

    On a disk the operating system holds the lock and frees it however the process ends. An object store has no locks: there it
    is a lease that is renewed while the block runs and runs out after `LEASE_SECONDS`.

    Raises:
        WorkspaceBusy: Another driver holds it.
    """
    if place.local:
        with _file_lock(Path(place.path)):
            yield
    else:
        with _lease(place):
            yield


@contextlib.contextmanager
def _file_lock(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise WorkspaceBusy(
                f"another driver ({file.read().strip() or 'unknown'}) is writing {folder}: nothing done"
            ) from None
        file.truncate(0)
        file.write(_who())
        file.flush()
        yield


@contextlib.contextmanager
def _lease(place: Place) -> Iterator[None]:
    mine = uuid.uuid4().hex

    def renew() -> None:
        (place / LOCK).write_json({"id": mine, "time": time.time(), "who": _who()})

    if (place / LOCK).is_file():
        holder = (place / LOCK).read_json()
        if time.time() - holder["time"] < LEASE_SECONDS:
            raise WorkspaceBusy(f"another driver ({holder['who']}) is writing {place}: nothing done")
    renew()
    # Two drivers may have written at once: the one whose lease lasts goes on.
    time.sleep(1)
    if (place / LOCK).read_json()["id"] != mine:
        raise WorkspaceBusy(f"another driver took {place} at the same moment: nothing done")
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(LEASE_SECONDS / 4):
            renew()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        place.files.delete_file((place / LOCK).path)


def _who() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
