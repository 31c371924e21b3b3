"""One driver per artefact: the second says so and leaves."""

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from linrep.cluster.lease_file import Holder, lease_file
from linrep.errors import WorkspaceBusy
from linrep.places import Place
from linrep.store.layout import LOCK

LEASE_SECONDS = 120.0
"""In an object store, a driver that has not renewed its lease for this long is taken for dead."""
RENEW_SECONDS = LEASE_SECONDS / 4
RETRY_SECONDS = 2.0
"""Pause after a renewal that failed."""
LOOK_SECONDS = 2.0
"""A driver that finds a lease looks this often whether it is renewed."""


@contextlib.contextmanager
def sole_driver(place: Place) -> Iterator[None]:
    """Hold a folder for this process.

    On a disk the operating system holds the lock and frees it however the process ends. An object store has no locks: there it
    is a lease that a thread renews while the block runs, and that runs out after `LEASE_SECONDS`. A renewal that fails is tried
    again until then; a lease that is lost interrupts the block. A driver that finds the lease of another one waits: until it is
    renewed, then the other one lives; or until it runs out, then this one is the next.

    Raises:
        WorkspaceBusy: Another driver holds it, or the lease was lost while the block ran.
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
    lease = _Lease(place)
    lease.take()
    keeper = threading.Thread(target=lease.keep, daemon=True)
    keeper.start()
    try:
        yield
    except KeyboardInterrupt:
        if lease.lost is None:
            raise
    finally:
        lease.ended.set()
        keeper.join()
        lease.give_back()
    if lease.lost is not None:
        raise WorkspaceBusy(lease.lost)


class _Lease:
    """A file that says who writes a folder, and when that was last true.

    Attributes:
        ended: Set when nothing is to be renewed any more.
        lost: Why the lease is no longer ours, None while it is.
    """

    def __init__(self, folder: Place) -> None:
        self.ended = threading.Event()
        self.lost: str | None = None
        self._folder, self._path, self._id = folder, (folder / LOCK).path, uuid.uuid4().hex
        self._file = lease_file(folder / LOCK)
        self._in_main = threading.current_thread() is threading.main_thread()
        self._renewed = 0.0

    def take(self) -> None:
        """Become the holder, at once or after another one's lease has run out.

        Raises:
            WorkspaceBusy: Another one is, and works.
        """
        found: Holder | None = None
        while True:
            before, found = found, self._file.read()
            left = 0.0 if found is None else LEASE_SECONDS - (time.time() - found.said["time"])
            if left <= 0:
                if self._write(found):
                    return
                raise WorkspaceBusy(f"another driver took {self._folder} at the same moment: nothing done")
            assert found is not None
            if before is None:
                self._say_waiting(found, left)
            elif before.version != found.version:
                raise WorkspaceBusy(f"another driver ({found.said['who']}) is writing {self._folder}: nothing done")
            time.sleep(min(left, LOOK_SECONDS) + 0.01)

    def _say_waiting(self, holder: Holder, left: float) -> None:
        line = f"another driver ({holder.said['who']}) holds {self._folder}: waiting {left:.0f} s at most, until it says that it"
        print(f"{line} is at work or its lease runs out", file=sys.stderr, flush=True)

    def keep(self) -> None:
        """Renew until `ended`, or until the lease is lost, and then interrupt the block."""
        pause, trouble = RENEW_SECONDS, "this process was asleep"
        while not self.ended.wait(pause):
            if time.time() - self._renewed > LEASE_SECONDS:
                return self._lose(f"it could not be renewed for {LEASE_SECONDS:.0f} s ({trouble})")
            try:
                holder = self._file.read()
                if holder is not None and not self._ours(holder):
                    return self._lose(f"another driver ({holder.said['who']}) took it over")
                pause = RENEW_SECONDS if self._write(holder) else RETRY_SECONDS
            except Exception as error:  # whatever it is: a thread that dies here would leave the folder to two drivers
                pause, trouble = RETRY_SECONDS, " ".join(str(error).split())[:200]
        return None

    def give_back(self) -> None:
        """Remove the file, unless it is another driver's by now. What cannot be removed runs out by itself."""
        with contextlib.suppress(OSError):
            if self._ours(self._file.read()):
                self._folder.files.delete_file(self._path)

    def _lose(self, why: str) -> None:
        self.lost = f"the lease on {self._folder} was lost: {why}; run the same command again to resume"
        if self._in_main and not self.ended.is_set():
            # A real signal: it also ends a system call that the main thread waits in.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _write(self, over: Holder | None) -> bool:
        """Whether the lease is ours now: it was as it had been read."""
        now = time.time()  # before the write, however long that takes: the file must not promise more than was true
        if self._file.write({"id": self._id, "time": now, "who": _who()}, over) is None:
            return False
        self._renewed = now
        return True

    def _ours(self, holder: Holder | None) -> bool:
        return holder is not None and holder.said["id"] == self._id


def _who() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
