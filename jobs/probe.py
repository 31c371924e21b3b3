"""Fit linear probes to the activations of a harvest: which classes can be read off the residual stream, at which layer.

  .venv/bin/python jobs/probe.py --config recipes/demo.yaml --workspace runs

It reads the harvest of the same recipe (jobs/harvest.py makes it). Run it again to resume: only views and layers without a
commit are probed. Every field of the recipe can be set from here, for example --probe.layers 8,16 --probe.views pooled.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Probe, and say what came out and where it lies."""
    from linrep.cluster.report import report
    from linrep.cluster.run_probe import run_probe
    from linrep.places import place

    report(run_probe(request.recipe, place(request.workspace)))


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
