"""Search width and sparsity of sparse autoencoders: a front of loss against sparsity, and which one to take.

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
    from linrep.cluster.commands import job, read_parquet
    from linrep.cluster.run_tune_sae import run_tune_sae
    from linrep.places import place
    from linrep.tracking import pages

    outcome = run_tune_sae(request.recipe, place(request.workspace))
    print("The search is complete." if outcome.n_new else "Nothing to do: the search is complete.")
    print(f"\nSearch\n  {outcome.place}\n{outcome.text}\n")
    print("What to do next:")
    print(f"  train:    {job('train_sae', replace(request, config=str(outcome.recipe), overrides=()))}")
    print(f"  table:    {read_parquet(outcome.place / 'front.parquet')}")
    print(f"  compare:  {pages(outcome.tracking_uri)}")


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
