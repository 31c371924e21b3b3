"""Find out what each latent of SAEs does: statistics, examples, attributes, words, neighbours; random directions beside.

  .venv/bin/python jobs/features.py --config recipes/demo.yaml --workspace runs
  .venv/bin/python jobs/features.py --workspace runs \\
    --features.saes '[{"sae": "topk-32-x8", "layer": 2}]'

It reads the harvest of the same recipe (jobs/harvest.py makes it), which must hold tokens. Run it again to resume.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Look into the SAEs, and say what came out and where it lies."""
    from linrep.cluster.report import report
    from linrep.cluster.run_features import run_features
    from linrep.places import place

    report(run_features(request.recipe, place(request.workspace)))


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
