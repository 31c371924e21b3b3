"""What a committed model can name: `python -m demo_training.evaluate` prints it, with 95% Wilson intervals, as in its card."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from demo_training.looking import answers, group
from linrep.demo import model_folder
from linrep.demo.language import COLOUR, GROUND, WHAT, parse_answer, prompt
from linrep.demo.scene import draw_scene, is_unseen
from linrep.stats.interval import in_brackets
from linrep.stats.wilson import wilson


@dataclass(frozen=True)
class Share:
    """A share of n, with its 95% Wilson interval."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """The share itself; NaN of nothing."""
        return self.hits / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        return wilson(self.value, self.n)


PROMPTS = {"object": prompt(WHAT), "colour": prompt(COLOUR), "ground": prompt(GROUND)}


def named(n: int, first: int = 20000, folder: Path | None = None, prompts: Mapping[str, str] = PROMPTS) -> dict[str, Share]:
    """Shares of held-out scenes whose object, colour and ground `generate` names, over all and over unseen combinations.

    Args:
        n: Scenes.
        first: Number of the first one.
        folder: The model's; None for the committed one.
        prompts: How it is asked, by what it is asked for.
    """
    folder = folder or model_folder()
    model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    scenes = [draw_scene(0, "heldout", first + i) for i in range(n)]
    unseen = [is_unseen(s.main.object, s.main.colour, s.main.ground) for s in scenes]
    found: dict[str, Share] = {}
    for what, asked in prompts.items():
        said = answers(model, processor, list(group(processor, scenes, [asked] * n)), max_new_tokens=4)
        right = [getattr(parse_answer(a), f"{what}s") == (getattr(s.main, what),) for a, s in zip(said, scenes, strict=True)]
        found[what] = Share(sum(right), n)
        found[f"{what}, unseen combination"] = Share(sum(r for r, u in zip(right, unseen, strict=True) if u), sum(unseen))
    return found


def rows(found: Mapping[str, Share]) -> Iterator[str]:
    """Lines of a card's table."""
    for what, share in found.items():
        yield f"| {what} | {share.value:.3f} |{in_brackets(*share.interval, '{:.3f}'.format)} | {share.n} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="Held-out scenes.")
    parser.add_argument("--folder", type=Path, help="Of the model; else the embedded world's own, demo://model.")
    args = parser.parse_args()
    print(*rows(named(args.n, folder=args.folder)), sep="\n")


if __name__ == "__main__":
    main()
