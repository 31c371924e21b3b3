"""Make the control of a recipe: an untrained model of the same shape, harvested, and its SAEs trained. jobs/sharing.py reads it.

  .venv/bin/python jobs/control.py --config recipes/demo.yaml --workspace runs

It lies in the same workspace, under the recipe's name with `-control` at its end. Run it again to resume.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Make the model, harvest it, and train the SAEs that sharing asks for."""
    from linrep.cluster.commands import job
    from linrep.cluster.run_control import run_control
    from linrep.places import place
    from linrep.tracking import pages, tracking_uri

    workspace = place(request.workspace)
    lines = run_control(request.recipe, workspace).lines
    next_ = [f"  sharing: {job('sharing', request)}", f"  compare: {pages(tracking_uri(workspace))}"]
    print("\n".join([*lines, "", "Next:", *next_]))


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
