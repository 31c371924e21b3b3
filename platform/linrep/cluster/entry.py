"""How every job begins and ends: arguments parsed, signals heard, errors reported in one line, our own faults in full.

It imports nothing but the standard library until signals are heard: what the jobs need takes seconds to import.
"""

import contextlib
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO, cast

from linrep.cluster.stop import Stop, listen
from linrep.errors import LinrepError

if TYPE_CHECKING:
    from linrep.recipe import Request

FAULT = 70
"""Exit status of a fault in this program, as sysexits.h has it."""
SURROUNDINGS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EFBIG, errno.ELOOP, errno.ENOMEM),
}
"""Errors of the operating system that no program can mend."""


def run_job(description: str | None, main: "Callable[[Request], None]", argv: list[str] | None = None) -> int:
    """Run a job; returns its exit status: 0 done, 1 something that the message says how to mend, 70 a fault of this program.

    After a signal it is 128 and the signal's number: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. What was committed is kept.

    Args:
        description: The job's docstring, the top of its help.
        main: What it does.
        argv: Arguments, those of the process if None.
    """
    if argv is None:
        _in_utf8()
    stop = Stop(alone=argv is None)
    end = listen(stop)
    try:
        return _run(description, main, argv, stop)
    except KeyboardInterrupt:
        stop.arrived()
        stop.speak()
        _say(f"{stop.word}: run the same command again to resume")
        if argv is None:
            _flush()
            _leave(stop.status)
        return stop.status
    finally:
        if argv is None:
            # The interpreter has still to end what others left running: there is nothing to interrupt, and a signal ends that.
            stop.ended = True
            _flush()
        else:
            end()


def _run(description: str | None, main: "Callable[[Request], None]", argv: list[str] | None, stop: Stop) -> int:
    request: Request | None = None
    try:
        from linrep.recipe import parse

        request = parse(description or "", argv)
        from linrep.places import place
        from linrep.tracking import notice

        said = notice(place(request.workspace))
        if said:
            _say(said)
        try:
            main(request)
        except KeyboardInterrupt:
            _remember(request, begun=True)
            raise
        if stop.number is not None:  # somebody has swallowed the stop, and all was done by then
            raise KeyboardInterrupt
        _remember(request)
    except Exception as error:
        if stop.number is not None:  # whatever a library has made of it
            raise KeyboardInterrupt from error
        stop.speak()
        line = _line(error)
        if line is not None:
            _say(f"error: {line if request is None else _with_commands(line, request)}")
            return 1
        traceback.print_exc()
        from linrep import __version__

        _say(f"error: this is a fault in linrep {__version__}, not in what was asked of it: report it with the lines above")
        return FAULT
    return 0


def _with_commands(line: str, request: "Request") -> str:
    """A line whose advice to run a job of the same recipe is a command that can be pasted."""
    from linrep.cluster.commands import job

    advice = r"run jobs/(\w+)\.py with (?:the same|this|its) recipe( first| again|)"
    return re.sub(advice, lambda found: f"run{found[2]}: {job(found[1], request)}", line)


def _remember(request: "Request", begun: bool = False) -> None:
    """Keep the recipe in its workspace, where that can be written."""
    from linrep.recipe import remember

    with contextlib.suppress(OSError):
        remember(request.recipe, request.workspace, begun)


def _line(error: Exception) -> str | None:
    """What a user should read of an error; None where it is a fault of this program."""
    for one in _causes(error):
        if isinstance(one, LinrepError):
            return str(one)
    for one in _causes(error):
        if isinstance(one, OSError) and one.errno in SURROUNDINGS:
            return f"{one.filename}: {one.strerror}" if one.filename else str(one).splitlines()[0]
        if isinstance(one, MemoryError):
            return "out of memory"
    if type(error).__module__.startswith("ray.") and not hasattr(error, "cause"):
        return f"Ray gave up: {next(iter(str(error).strip().splitlines()), type(error).__name__)}"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised for, the innermost last; Ray keeps what a task raised in `cause`."""
    seen: list[BaseException] = []
    found: object = error
    while isinstance(found, BaseException) and found not in seen:
        seen.append(found)
        found = getattr(found, "cause", None) or found.__cause__
    # The innermost of Ray's pair is the plain error: its text is the message alone.
    return reversed(seen)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that hung up
        print(line, file=sys.stderr, flush=True)


def _flush() -> None:
    """Write what is left to write now: who reads it may be gone, and the interpreter would say so in its own words."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(status: int) -> None:
    """End at once if Ray was begun, which would end this process in its own way."""
    if "ray" in sys.modules:
        from linrep.cluster.session import leave

        leave(status)


def _in_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale says otherwise, and print whatever a name holds."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            cast("TextIO", stream).reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
