"""Stream photographs and texts through a vision-language LLM and write its residual stream to parquet.

  python jobs/harvest.py --config recipes/demo.yaml --workspace runs

Run it again to resume: only chunks without a commit are harvested. Every field of the recipe can be set from here, for
example --harvest.layers 8,16,24 --pool.gpus 0.5 --corpora.images.path /data/imagenet/train.
"""

import sys

from linrep.cluster.entry import run_job
from linrep.recipe import Request


def main(request: Request) -> None:
    """Harvest, and say where the store lies and how to read it."""
    from linrep.cluster.run_harvest import run_harvest
    from linrep.places import place, redacted

    outcome = run_harvest(request.recipe, place(request.workspace))
    print("Nothing to do: the harvest is complete." if not outcome.n_new else "Harvest complete.")
    print(f"\n{outcome.store}\n")
    print("What to do next:")
    print(f"  look:     python -c \"import linrep.store as s; print(s.open('{outcome.store.place}'))\"")
    layer = outcome.store.manifest.layers[-1]
    view = outcome.store.manifest.views[0]
    print(f"  read:     linrep.store.open('{outcome.store.place}').select('{view}', layer={layer}, modality='image').torch()")
    print(f"  compare:  mlflow ui --backend-store-uri {redacted(outcome.tracking_uri)}")


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
