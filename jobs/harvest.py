"""Stream photographs and texts through a vision-language LLM and write its residual stream to parquet.

  .venv/bin/python jobs/harvest.py --config recipes/demo.yaml --workspace runs

Run it again to resume: only chunks without a commit are harvested. Every field of the recipe can be set from here, for
example --harvest.layers 8,16,24 --pool.gpus 0.5 --corpora.images.path /data/imagenet/train.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Harvest, and say where the store lies and how to read it."""
    from linrep.cluster.commands import job, literal, python
    from linrep.cluster.run_harvest import run_harvest
    from linrep.places import place
    from linrep.tracking import pages

    outcome = run_harvest(request.recipe, place(request.workspace), request.reindex)
    where = outcome.store.place
    print("Nothing to do: the harvest is complete." if not outcome.n_new else "Harvest complete.")
    print(f"\n{outcome.store}\n")
    print("\n".join(["Corpora:", *(f"  {line}" for line in outcome.account), ""]))
    print("What to do next:")
    print(f"  look:     {python(f'import linrep.store as s; print(s.open({literal(where)}))')}")
    print(f"  read:     {python(f'import linrep.store as s; print(s.open({literal(where)}).{outcome.reading})')}")
    print(f"  compare:  {pages(outcome.tracking_uri)}")
    print(f"  renew:    {job('harvest', request, '--reindex')}")
    print(f"The corpora are as {outcome.index} lists them; renew, if they changed since.")
    if where.key:
        print("The address is shown without its key: put it back, or keep it in the environment (AWS_ACCESS_KEY_ID, ...).")


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
