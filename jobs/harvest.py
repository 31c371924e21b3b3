"""Stream images and texts through a vision-language LLM and write its residual stream to parquet.

  .venv/bin/python jobs/harvest.py --config recipes/demo.yaml --workspace runs

Run it again to resume: only chunks without a commit are harvested. Add a layer, a view or a corpus to the recipe, and what
earlier harvests of the workspace hold of it is taken from them. Every field of the recipe can be set from here, for
example --harvest.layers 8,16,24 --pool.gpus 0.5 --corpora.images.path /data/imagenet/train.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Harvest, and say where the store lies and how to read it."""
    from linrep.cluster.commands import job
    from linrep.cluster.report import report
    from linrep.cluster.run_harvest import run_harvest
    from linrep.places import place

    outcome = run_harvest(request.recipe, place(request.workspace), request.reindex)
    report(outcome, [("renew", job("harvest", request, "--reindex"))])


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
