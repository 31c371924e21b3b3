"""How every job begins and ends: arguments parsed, errors of the user's making told in one line, others in full."""

import sys
from collections.abc import Callable

from linrep.errors import LinrepError
from linrep.places import place
from linrep.recipe import Request, parse
from linrep.tracking import notice


def run_job(description: str | None, main: Callable[[Request], None], argv: list[str] | None = None) -> int:
    """Run a job; returns its exit status: 0 done, 1 something that the message says how to mend, 130 interrupted.

    Args:
        description: The job's docstring, the top of its help.
        main: What it does.
        argv: Arguments, those of the process if None.
    """
    try:
        request = parse(description or "", argv)
        said = notice(place(request.workspace))
        if said:
            print(said, file=sys.stderr)
        main(request)
    except LinrepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume", file=sys.stderr)
        return 130
    return 0
