"""What the committed model can name: `python -m demo_training.evaluate` prints it, with 95% Wilson intervals, as in its card."""

import argparse
from dataclasses import dataclass

import torch
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from demo_training.looking import answers, group
from linrep.demo import model_folder
from linrep.demo.language import COLOUR, GROUND, WHAT, parse_answer
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


def named(n: int, first: int = 20000) -> dict[str, Share]:
    """Shares of held-out scenes whose object, colour and ground `generate` names, over all and over unseen combinations."""
    model = LlavaNextForConditionalGeneration.from_pretrained(model_folder(), dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(model_folder())
    scenes = [draw_scene(0, "heldout", first + i) for i in range(n)]
    unseen = [is_unseen(s.main.object, s.main.colour, s.main.ground) for s in scenes]
    found: dict[str, Share] = {}
    for what, question in (("object", WHAT), ("colour", COLOUR), ("ground", GROUND)):
        said = answers(model, processor, list(group(processor, scenes, [question] * n)), max_new_tokens=4)
        right = [getattr(parse_answer(a), f"{what}s") == (getattr(s.main, what),) for a, s in zip(said, scenes, strict=True)]
        found[what] = Share(sum(right), n)
        found[f"{what}, unseen combination"] = Share(sum(r for r, u in zip(right, unseen, strict=True) if u), sum(unseen))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="Held-out scenes.")
    for what, share in named(parser.parse_args().n).items():
        interval = in_brackets(*share.interval, "{:.3f}".format)
        print(f"| {what} | {share.value:.3f} |{interval} | {share.n} |")


if __name__ == "__main__":
    main()
