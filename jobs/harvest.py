"""Stream photographs and texts through a vision-language LLM and write its residual stream to parquet.

  python jobs/harvest.py --config recipes/demo.yaml --workspace runs

Run it again to resume: only chunks without a commit are harvested. Every field of the recipe can be set from here, for
example --harvest.layers 8,16,24 --pool.gpus 0.5 --corpora.images.path /data/imagenet/train.
"""

import json
import shlex
import sys

from linrep.cluster.entry import run_job
from linrep.recipe import Request


def main(request: Request) -> None:
    """Harvest, and say where the store lies and how to read it."""
    from linrep.cluster.run_harvest import run_harvest
    from linrep.places import place, redacted
    from linrep.store.layout import MODALITIES

    outcome = run_harvest(request.recipe, place(request.workspace))
    store, where = outcome.store, json.dumps(str(outcome.store.place), ensure_ascii=False)
    view, layer = store.manifest.views[0], store.manifest.layers[-1]
    modality = next((m for m in MODALITIES if len(store.select(view, layer, m))), MODALITIES[0])
    print("Nothing to do: the harvest is complete." if not outcome.n_new else "Harvest complete.")
    print(f"\n{store}\n")
    print("What to do next:")
    print(f"  look:     python -c {shlex.quote(f'import linrep.store as s; print(s.open({where}))')}")
    print(f'  read:     linrep.store.open({where}).select("{view}", layer={layer}, modality="{modality}").torch()')
    print(f"  compare:  mlflow ui --backend-store-uri {shlex.quote(redacted(outcome.tracking_uri))}")
    if store.place.key:
        print("The address is shown without its key: put it back, or keep it in the environment (AWS_ACCESS_KEY_ID, ...).")


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
