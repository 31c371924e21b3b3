"""Train sparse autoencoders on the tokens of a harvest, image and text together, and test them on held-out samples.

  python jobs/train_sae.py --config recipes/demo.yaml --workspace runs
  python jobs/train_sae.py --workspace runs --evaluate path/to/a/dictionary

It reads the harvest of the same recipe, and the class directions of its probes where they are there. Run it again to resume
from the last checkpoint. Every field can be set from here: --sae.layers 8,16 --sae.grid.sparsity 32,64 --sae.workers 2.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Train and test, and say what came out and where it lies."""
    from linrep.cluster.commands import read_parquet
    from linrep.cluster.run_train_sae import run_train_sae
    from linrep.places import place
    from linrep.tracking import pages

    outcome = run_train_sae(request.recipe, place(request.workspace), request.evaluate)
    what = "dictionary is tested" if request.evaluate else "dictionaries are complete"
    done = "Nothing to do: the" if not outcome.n_new + outcome.n_tested else "The"
    print(f"{done} {what}.\n\nDictionaries\n  {outcome.place}\n{outcome.text}\n")
    print("What to do next:")
    print(f"  tables:   {read_parquet(outcome.tested / 'quality.parquet')}")
    if not request.evaluate:
        print(f"  read:     linrep.sae.formats.read('{outcome.place}/layer-.../...'), or sae_lens.SAE.load_from_disk of the same")
    print(f"  compare:  {pages(outcome.tracking_uri)}")


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
