"""Look at a store: `python -m linrep.store verify PLACE` reads every file and says which are not as they were written."""

import argparse
import sys

from linrep.errors import LinrepError
from linrep.store.read import open as open_store


def main(words: list[str] | None = None) -> int:
    """Do what the command line says; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m linrep.store", description="Look at an activation store.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help in (
        ("verify", "read every file and hold it against the sums that were taken when it was written"),
        ("summary", "what the store holds"),
    ):
        commands.add_parser(name, help=help).add_argument("place", help="folder or URI of a harvest, or a workspace with one")
    args = parser.parse_args(words)
    try:
        store = open_store(args.place)
        if args.command == "summary":
            print(store)
            return 0
        found = store.verify()
    except LinrepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(found)
    return 0 if found.whole else 1


if __name__ == "__main__":
    sys.exit(main())
