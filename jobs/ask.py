"""Ask the model of a harvest about your own image or text, and see what it reads there by layer.

  .venv/bin/python jobs/ask.py --workspace runs --image my.jpg --text "what is it ?"
  .venv/bin/python jobs/ask.py --workspace runs --image my.jpg --latent 309=4.0 --edit boat:tree@4=2
  .venv/bin/python jobs/ask.py --workspace runs --serve

It writes a page that opens from disk, uses whatever stages the workspace has, and names the command for what is missing.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Ask once and say where the page lies; or serve a page to ask from."""
    from linrep.cluster.commands import job
    from linrep.cluster.run_ask import run_ask
    from linrep.places import place

    if request.serve is not None:
        from linrep.cluster.run_serve import run_serve

        run_serve(request, place(request.workspace), request.serve)
        return
    print("\n".join(run_ask(request, place(request.workspace), lambda name: job(name, request))))


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
