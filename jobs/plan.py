"""Say what the harvest of a recipe will take before it runs: samples, tokens, bytes, objects, GPU-hours, money, memory.

  .venv/bin/python jobs/plan.py --config recipes/demo.yaml --workspace runs
  .venv/bin/python jobs/plan.py --config recipes/line_of_sight.yaml --gpus my-gpus.yaml

It indexes the corpora and prepares some samples of each; no weights are read and no cluster is started. --gpus names a table of
GPUs and prices of your own; the package's is platform/linrep/harvest/gpus.yaml.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Print the plan, and the command that carries it out."""
    from linrep.cluster.commands import job
    from linrep.cluster.run_plan import plan_lines
    from linrep.places import place

    print("\n".join(plan_lines(request.recipe, place(request.workspace), request.gpus)))
    print(f"Next:\n  harvest: {job('harvest', request)}")


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
