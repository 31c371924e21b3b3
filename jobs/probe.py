"""Fit linear probes to the activations of a harvest: which classes can be read off the residual stream, at which layer.

  python jobs/probe.py --config recipes/demo.yaml --workspace runs

It reads the harvest of the same recipe (jobs/harvest.py makes it). Run it again to resume: only views and layers without a
commit are probed. Every field of the recipe can be set from here, for example --probe.layers 8,16 --probe.views pooled.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Probe, and say where the results lie and how to read them."""
    from linrep.cluster.commands import literal
    from linrep.cluster.run_probe import run_probe
    from linrep.places import place
    from linrep.tracking import pages

    outcome = run_probe(request.recipe, place(request.workspace))
    where = outcome.probes.place
    print("Nothing to do: the probes are complete." if not outcome.n_new else "Probes complete.")
    print(f"\nProbes {outcome.probes.manifest.name}-{outcome.probes.manifest.digest}\n  {where}\n{outcome.summary}\n")
    print("What to do next:")
    print(f"  table:       linrep.probe.artefact.open_probes({literal(where)}).table()")
    print(f"  directions:  linrep.probe.artefact.open_probes({literal(where)}).directions")
    print(f"  compare:     {pages(outcome.tracking_uri)}")


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
