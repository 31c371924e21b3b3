"""How a benchmark of a workspace ends: 0 done, 2 something that the message says how to mend."""

import argparse
import sys
from collections.abc import Callable, Sequence

from linrep.errors import LinrepError


def end_with(run: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, words: Sequence[str] | None) -> int:
    """Run what the command line asks for, and say what the user can mend in one line.

    Args:
        run: Takes what is asked for.
        parser: Of the command.
        words: The command line; None for that of the process.
    """
    try:
        run(parser.parse_args(words))
    except LinrepError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
