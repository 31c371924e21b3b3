"""Search width and sparsity of SAEs: a front of loss against sparsity, and which one to take.

  .venv/bin/python jobs/tune_sae.py --config recipes/demo.yaml --workspace runs

It reads the harvest of the same recipe. Run it again to resume: candidates that are done are not trained again. Every field can
be set from here: --tune.space.layers 16 --tune.search.kind random --tune.search.trials 40 --tune.stop.kind none.
"""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Search, and say what came out and how to train what is recommended."""
    from linrep.cluster.commands import job
    from linrep.cluster.report import report
    from linrep.cluster.run_tune_sae import RECIPE, run_tune_sae
    from linrep.places import place

    outcome = run_tune_sae(request.recipe, place(request.workspace))
    full = replace(request, config=str(outcome.artefact.place / RECIPE), overrides=())
    report(outcome, [("train", job("train_sae", full))])


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
