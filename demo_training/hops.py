"""What a model answers where a name is not enough: of two objects, of an image and a sentence, and facts that no image shows.

  .venv/bin/python -m demo_training.hops platform/linrep/demo/looking

prints a table of held-out scenes. Everything is asked of the image and of the same scene described in words, so that what an
image lacks is seen beside what the decoder can do at all. Facts are parted by how far they were asked in training, see
`facts.reach`.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from demo_training.facts import KINDS, fact_question, reach
from demo_training.looking import answers, group
from linrep.demo.language import IMAGE_TOKEN, WHAT, caption, parse_answer, prompt
from linrep.demo.scene import Scene, draw_scene
from linrep.stats import clusters
from linrep.stats.interval import Interval, in_brackets


@dataclass(frozen=True)
class Case:
    """A question that is asked.

    Attributes:
        row: Row of the table that it counts for.
        scene: What is shown, or described.
        prompt: What the model is given.
        right: The right answer, a word.
        wrong: The answer that would show that the scene was not used: the control.
        cluster: What stands or falls together: an object's fact, or the scene.
    """

    row: str
    scene: Scene
    prompt: str
    right: str
    wrong: str
    cluster: str


@dataclass(frozen=True)
class Answers:
    """A row of the table: shares of right answers and of the control's, of n questions in so many clusters."""

    right: Interval
    wrong: Interval
    n: int
    clusters: int


def fact_cases(scenes: Sequence[Scene]) -> Iterator[Case]:
    """All kinds of facts of one-object scenes; the control is the fact of the next scene's object, if it is another's."""
    for i, scene in enumerate(scenes):
        it = scene.main.object
        for kind in KINDS:
            asked = fact_question(it, kind)
            others = (scenes[(i + k) % len(scenes)].main.object for k in range(1, len(scenes)))
            wrong = next(w for o in others if (w := _word(fact_question(o, kind).answer)) != _word(asked.answer))
            for how, context in _contexts(scene):
                row = f"fact, asked of {reach(it, kind)}, {how}".replace("asked of stated", "only stated")
                yield Case(row, scene, prompt(asked.question, context), _word(asked.answer), wrong, f"{it} {kind}")


def pair_cases(scenes: Sequence[Scene]) -> Iterator[Case]:
    """Questions of one, two and three hops about scenes of two objects; the control is the other object's value."""
    for scene in scenes:
        a, b = scene.things
        asked = [
            ("name of the thing of a colour", f"what is the {a.colour} thing ?", a.object, b.object),
            ("name of the thing beside", f"what is beside the {b.object} ?", a.object, b.object),
            ("colour of the thing beside", f"what colour is the thing beside the {b.object} ?", a.colour, b.colour),
        ]
        for kind in KINDS:
            if reach(a.object, kind) == "images":
                one, other = (fact_question(t.object, kind, f"the thing beside the {b.object}") for t in (a, b))
                if one.answer != other.answer:
                    asked.append(("fact of the thing beside", one.question, _word(one.answer), _word(other.answer)))
        for what, question, right, wrong in asked:
            for how, context in _contexts(scene):
                yield Case(f"{what}, {how}", scene, prompt(question, context), right, wrong, scene.id)


def mixed_cases(scenes: Sequence[Scene]) -> Iterator[Case]:
    """One question about the image and one about the sentence after it; the control is the other object's colour."""
    for i, scene in enumerate(scenes):
        others = (scenes[(i + k) % len(scenes)].main for k in range(1, len(scenes)))
        a = scene.main
        b = next(o for o in others if o.object != a.object and o.colour != a.colour)
        context = f"{IMAGE_TOKEN} {caption(replace(scene, things=(b,)))}"
        for where, one, other in (("shown", a, b), ("described", b, a)):
            asked = prompt(f"what colour is the {one.object} ?", context)
            yield Case(f"image and sentence: colour of the one that is {where}", scene, asked, one.colour, other.colour, scene.id)


def _contexts(scene: Scene) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("image", IMAGE_TOKEN), ("described", caption(scene))


def _word(answer: str) -> str:
    return answer.split()[0]


def ask(folder: Path, cases: Sequence[Case]) -> list[str]:
    """The first word of each greedy answer; of none, an empty one."""
    model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    groups = list(group(processor, [case.scene for case in cases], [case.prompt for case in cases]))
    return [(said.split() or [""])[0] for said in answers(model, processor, groups, max_new_tokens=2)]


def table(cases: Sequence[Case], said: Sequence[str]) -> dict[str, Answers]:
    """The rows, in the order of the cases."""
    found: dict[str, list[tuple[str, bool, bool]]] = {}
    for case, word in zip(cases, said, strict=True):
        found.setdefault(case.row, []).append((case.cluster, word == case.right, word == case.wrong))
    rows = {}
    for row, hits in found.items():
        _, of = np.unique([cluster for cluster, _, _ in hits], return_inverse=True)
        n = np.bincount(of).astype(float)
        right, wrong = (clusters.share(n, np.bincount(of, [hit[i] for hit in hits])) for i in (1, 2))
        rows[row] = Answers(right, wrong, len(hits), len(n))
    return rows


def where_named(folder: Path, cases: Sequence[Case]) -> list[Case]:
    """The cases without those of an image whose object the model does not name: what is missing then is seeing."""
    scenes = list({case.scene.id: case.scene for case in cases}.values())
    named = ask(folder, [Case("", scene, prompt(WHAT), scene.main.object, "", "") for scene in scenes])
    unnamed = {s.id for s, said in zip(scenes, named, strict=True) if parse_answer(said).objects != (s.main.object,)}
    return [case for case in cases if not (case.scene.id in unnamed and IMAGE_TOKEN in case.prompt)]


def several_hops(folder: Path, n: int, first: int = 20000) -> dict[str, Answers]:
    """Everything that is asked of n held-out scenes of one object, and of as many of two."""
    single = [draw_scene(0, "heldout", first + i) for i in range(n)]
    double = [draw_scene(0, "heldout", first + i, pair_share=1.0) for i in range(n)]
    cases = [*where_named(folder, list(fact_cases(single))), *pair_cases(double), *mixed_cases(single)]
    return dict(sorted(table(cases, ask(folder, cases)).items()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="The model's.")
    parser.add_argument("--n", type=int, default=500, help="Held-out scenes of one object, and of two.")
    args = parser.parse_args()
    number = "{:.2f}".format
    for row, found in several_hops(args.folder, args.n).items():
        right, wrong = (f"{number(s.value)}{in_brackets(s.low, s.high, number)}" for s in (found.right, found.wrong))
        print(f"| {row} | {right} | {wrong} | {found.n} | {found.clusters} |")


if __name__ == "__main__":
    main()
