"""Measure how much image and text share, layer by layer: geometry, concepts, and latents of SAEs, beside their nulls.

  .venv/bin/python jobs/sharing.py --config recipes/demo.yaml --workspace runs

It reads the harvest of the same recipe (jobs/harvest.py makes it), which must hold image-caption pairs. Run it again to resume.
sharing.untrained: control is an untrained model, which jobs/control.py makes; sharing.own names the SAE of both models
whose latents are compared. Without them: --sharing.untrained null --sharing.own null.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Compare, and say what it shows and where the results lie."""
    from linrep.cluster.report import report
    from linrep.cluster.run_sharing import run_sharing
    from linrep.places import place

    report(run_sharing(request.recipe, place(request.workspace)))


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
