"""The address of a workspace's database, for MLflow's pages: python -m linrep.tracking WORKSPACE."""

import sys

from linrep.errors import LinrepError
from linrep.places import place
from linrep.tracking.database import file_of
from linrep.tracking.where import tracking_uri


def main(workspace: str) -> int:
    """Print the address, or say that there is nothing to look at; returns the exit status."""
    try:
        uri = tracking_uri(place(workspace))
    except LinrepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    file = file_of(uri)
    if file is not None and not file.is_file():
        print(
            f"no results in {workspace}: run 'make demo' and then 'make demo-tune' (or jobs/tune_sae.py with your recipe) for a "
            f"search, or name a folder: make ui WORKSPACE=...",
            file=sys.stderr,
        )
        return 1
    print(uri)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
