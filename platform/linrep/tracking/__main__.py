"""The address of a workspace's database, for MLflow's pages: python -m linrep.tracking WORKSPACE [what `mlflow ui` is given].

The address goes to standard output; where the table of runs will be, to standard error.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from linrep.errors import LinrepError
from linrep.places import place
from linrep.tracking.client import shown
from linrep.tracking.database import experiment_id, file_of
from linrep.tracking.where import EXPERIMENT, tracking_uri


def main(workspace: str, options: Sequence[str] = ()) -> int:
    """Print the address, or say that there is nothing to look at; returns the exit status."""
    try:
        uri = tracking_uri(place(workspace))
    except LinrepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    file = file_of(uri)
    if file is not None and not file.is_file():
        where = shown(uri) if os.environ.get("MLFLOW_TRACKING_URI") else workspace
        print(
            f"no results in {where}: run 'make demo', or a job with your recipe, first; or name a folder: make ui WORKSPACE=...",
            file=sys.stderr,
        )
        return 1
    print(uri)
    number = experiment_id(file, EXPERIMENT) if file is not None else None
    page = _server(options)
    print(f"The runs: {page}/#/experiments/{number}" if number else f"MLflow's pages: {page}", file=sys.stderr, flush=True)
    return 0


def _server(options: Sequence[str]) -> str:
    """Where `mlflow ui` serves its pages when it is given these options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--host", default="127.0.0.1")
    parser.add_argument("-p", "--port", default="5000")
    asked, _ = parser.parse_known_args(options)
    return f"http://{asked.host}:{asked.port}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
