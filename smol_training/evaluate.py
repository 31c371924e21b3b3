"""What SmolLM2-135M behind the committed projector names: `python -m smol_training.evaluate FOLDER` prints its card's table."""

import argparse
from pathlib import Path

from demo_training.evaluate import named, rows
from smol_training.chat import COLOUR, GROUND, WHAT

PROMPTS = {one.about: one.prompt for one in (WHAT, COLOUR, GROUND)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="The model, as smol_training.build wrote it.")
    parser.add_argument("--n", type=int, default=1000, help="Held-out scenes.")
    args = parser.parse_args()
    print(*rows(named(args.n, folder=args.folder, prompts=PROMPTS)), sep="\n")


if __name__ == "__main__":
    main()
