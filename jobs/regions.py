"""Label the patches of a harvest's images with boxes or masks that people drew: COCO's JSON, or PNGs.

  .venv/bin/python jobs/regions.py --config recipes/demo.yaml --workspace runs
  .venv/bin/python jobs/regions.py --workspace runs --regions.source.path instances.json

It reads the harvest of the same recipe (jobs/harvest.py makes it); probes and features read what it makes.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Label the patches, and say how many there are and where they lie."""
    from linrep.cluster.report import report
    from linrep.cluster.run_regions import run_regions
    from linrep.places import place

    report(run_regions(request.recipe, place(request.workspace)))


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
