"""Make pages of all results in a workspace: open them from disk, no server and no network is needed.

  .venv/bin/python jobs/explore.py --config recipes/demo.yaml --workspace runs

  .venv/bin/python jobs/explore.py --workspace runs --serve

It reads what is complete: only a harvest, or everything. Run it again after another stage: a site of the
same results stays as it is.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Make the site, and say where it lies."""
    from linrep.cluster.commands import job
    from linrep.cluster.run_explore import run_explore
    from linrep.places import place

    built = run_explore(request.recipe, place(request.workspace), lambda name: job(name, request))
    print("Made." if built.new else "Nothing to do: the site shows these results already.")
    print(f"{built.files:,} files, {built.size / 1e6:,.1f} MB\n\nSite   {built.index}", flush=True)
    if request.serve is not None:
        from linrep.cluster.serve_site import SiteServer

        with SiteServer(built.index.parent, request.serve) as server:
            print(f"Served at {server.address}   (Ctrl-C ends it)", flush=True)
            server.serve_forever()


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
