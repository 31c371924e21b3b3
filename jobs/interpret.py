"""Explain latents in words, and score the words: do they predict when a latent fires? Controls stand beside every score.

  .venv/bin/python jobs/interpret.py --config recipes/demo.yaml --workspace runs

It reads the features of the same recipe (jobs/features.py makes them; --interpret.features names others). Run it again to resume.
A chat server: --interpret.backend.kind chat --interpret.backend.url http://localhost:8000/v1 --interpret.backend.model NAME,
its key in OPENAI_API_KEY. To score explanations that people edited: --interpret.edited FILE, a finished run's explanations.csv.
"""

import sys
from typing import TYPE_CHECKING

from linrep.cluster.entry import run_job

if TYPE_CHECKING:
    from linrep.recipe import Request


def main(request: "Request") -> None:
    """Interpret, and say what came out and where it lies."""
    from linrep.cluster.commands import EDITED, job
    from linrep.cluster.report import report
    from linrep.cluster.run_interpret import run_interpret
    from linrep.places import place

    outcome = run_interpret(request.recipe, place(request.workspace))
    report(outcome, [("score", job("interpret", request, "--interpret.edited", EDITED))])


if __name__ == "__main__":
    sys.exit(run_job(__doc__, main))
