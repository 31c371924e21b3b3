"""Steer a vision-language LLM: add class directions to its residual stream, and measure what its answers become.

  .venv/bin/python jobs/steer.py --config recipes/demo.yaml --workspace runs

It needs the harvest and the probes of the same recipe. Run it again to resume: only chunks without a commit are run. Every
field can be set from here, for example --steer.dose.strengths 0.5,1,2 --steer.judge.kind words --steer.pairs '[["boat","tree"]]'.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Steer, and say what came out and where it lies."""
    from linrep.cluster.report import report
    from linrep.cluster.run_steer import run_steer
    from linrep.places import place

    report(run_steer(request.recipe, place(request.workspace)))


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
