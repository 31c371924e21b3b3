"""Find out what each latent of dictionaries does: statistics, examples, attributes, words, neighbours; random directions beside.

  python jobs/features.py --config recipes/demo.yaml --workspace runs
  python jobs/features.py --workspace runs --features.dictionaries '[{"sae": "topk-32-x8", "layer": 2}]'

It reads the harvest of the same recipe (jobs/harvest.py makes it), which must hold tokens. Run it again to resume.
"""

import shlex
import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Look into the dictionaries, and say where the results lie."""
    from linrep.cluster.commands import literal
    from linrep.cluster.run_features import run_features
    from linrep.places import place
    from linrep.tracking import pages

    outcome = run_features(request.recipe, place(request.workspace))
    where = outcome.features.place
    print("Nothing to do: the features are complete." if not outcome.n_new else "Features complete.")
    print(f"\nFeatures {outcome.features.manifest.name}-{outcome.features.manifest.digest}\n  {where}\n{outcome.summary}\n")
    print("What to do next:")
    print(f"  latents:  linrep.features.artefact.open_features({literal(where)}).table()")
    print(f"  examples: linrep.features.artefact.open_features({literal(where)}).examples('DICTIONARY', first=0, last=8)")
    print(f"  export:   python -m linrep.features.exports neuronpedia {shlex.quote(str(where))} FOLDER   (or delphi)")
    print(f"  compare:  {pages(outcome.tracking_uri)}")


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
