"""Run every stage of a recipe, each in its turn, and end with a report: the paper's four claims, each with its finding.

  .venv/bin/python jobs/reproduce.py --config recipes/demo.yaml --workspace runs
  .venv/bin/python jobs/reproduce.py --config recipes/demo.yaml --workspace runs --until probe

Stages are those that have a section in the recipe. What is complete is left as it is; run it again to resume.
--until STAGE ends after a stage, --only STAGE runs one and leaves the report, --dry-run says what lies there and what would run.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Run the stages, and say where the report lies."""
    from linrep.cluster.commands import job
    from linrep.cluster.reproduce import asked, planned_lines, reproduce
    from linrep.places import place
    from linrep.tracking import pages, tracking_uri

    workspace, parts = place(request.workspace), asked(request.recipe, request.until, request.only)
    if request.dry_run:
        print("\n".join(["Stages, in their order:", *planned_lines(request.recipe, workspace, parts)]))
        return
    done = reproduce(request.recipe, workspace, lambda name: job(name, request), parts, alone=request.only is not None)
    print("Reproduced." if done.n_new else "Nothing to do: every stage is complete.")
    if request.only is None:
        print(f"\nReport   {done.report}\nPage     {done.page}")
    else:
        print(f"\nThe report is of all stages: without --only it is renewed, {done.report}")
    if done.pages is not None:
        print(f"Browse   {done.pages}")
    print(f"Next:\n  compare: {pages(tracking_uri(workspace))}")


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
