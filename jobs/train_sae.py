"""Train sparse autoencoders on the tokens of a harvest, image and text together, and evaluate them on held-out samples.

  .venv/bin/python jobs/train_sae.py --config recipes/demo.yaml --workspace runs
  .venv/bin/python jobs/train_sae.py --workspace runs --evaluate path/to/an/sae

It reads the harvest of the same recipe, and the class directions of its probes where they are there. Run it again to resume
from the last checkpoint. Every field can be set from here: --sae.layers 8,16 --sae.grid.sparsity 32,64 --sae.workers 2.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Train and evaluate, and say what came out and where it lies."""
    from linrep.cluster.report import report
    from linrep.cluster.run_train_sae import run_train_sae
    from linrep.places import place

    report(run_train_sae(request.recipe, place(request.workspace), request.evaluate))


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
