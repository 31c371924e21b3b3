"""The words of the embedded world: facts, riddles, captions, questions with their answers, and the exact reader of answers.

Everything is lower case, words and marks are separated by single spaces, every word is one token. Texts speak of three things:
what an object is like (facts), which one is meant (riddles), and scenes described in words, with the questions asked of images.
"""

import itertools
import re
from dataclasses import dataclass

import numpy as np

from linrep.demo.scene import COLOURS, GROUNDS, Scene, Split, Thing, draw_scene
from linrep.demo.shapes import OBJECTS

WHAT = "what is it ?"
COLOUR = "what colour is it ?"
GROUND = "where is it ?"
DESCRIBE = "describe the picture ."
IMAGE_TOKEN = "<image>"
ANSWER = "answer :"
"""Every prompt ends alike, so the last token knows nothing by itself: it has to fetch the question first and the answer then."""

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", IMAGE_TOKEN)
PAD_ID, BOS_ID, EOS_ID, _, IMAGE_ID = range(len(SPECIAL_TOKENS))
"""Special tokens come first in the vocabulary, so these are their ids."""


def prompt(question: str, context: str = IMAGE_TOKEN) -> str:
    """What the model is given: an image (or a scene described in words), the question, and the cue to answer."""
    return f"{context} {question} {ANSWER}"


@dataclass(frozen=True)
class Facts:
    """What texts say about one object, a word each: its category, a part, what it does, where it is, who has it, its use."""

    category: str
    part: str
    action: str
    place: str
    user: str
    use: str


FACTS: dict[str, Facts] = {
    "boat": Facts("vehicle", "sail", "floats", "harbour", "sailor", "crossing"),
    "car": Facts("vehicle", "wheel", "drives", "road", "driver", "travel"),
    "tree": Facts("plant", "trunk", "grows", "forest", "woodman", "shade"),
    "flower": Facts("plant", "petal", "blooms", "garden", "gardener", "gifts"),
    "leaf": Facts("plant", "stem", "falls", "branch", "caterpillar", "compost"),
    "fish": Facts("animal", "fin", "swims", "sea", "fisher", "dinner"),
    "bird": Facts("animal", "wing", "flies", "nest", "watcher", "singing"),
    "key": Facts("tool", "tooth", "turns", "lock", "owner", "opening"),
    "bell": Facts("tool", "clapper", "rings", "tower", "priest", "calling"),
    "arrow": Facts("weapon", "tip", "strikes", "quiver", "archer", "hunting"),
    "cup": Facts("vessel", "handle", "spills", "kitchen", "cook", "drinking"),
    "house": Facts("building", "roof", "stands", "street", "family", "living"),
    "star": Facts("light", "ray", "twinkles", "galaxy", "astronomer", "guiding"),
    "moon": Facts("light", "crater", "rises", "orbit", "dreamer", "tides"),
    "heart": Facts("organ", "pulse", "beats", "chest", "doctor", "loving"),
    "cloud": Facts("weather", "drop", "drifts", "storm", "pilot", "rain"),
}

_CLUES = (
    "it is {category}",
    "it has a {part}",
    "it {action}",
    "it is found at the {place}",
    "it belongs to the {user}",
    "it is good for {use}",
)


@dataclass(frozen=True)
class Answered:
    """A question and its right answer; `about` names what the answer is: object, colour, ground or scene."""

    question: str
    answer: str
    about: str


def article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def phrase(thing: Thing) -> str:
    """ "a red boat on the sand" """
    return f"{article(thing.colour)} {thing.object} on the {thing.ground}"


def reading_order(scene: Scene) -> list[Thing]:
    """The scene's objects from left to right, in tall images from top to bottom."""
    return sorted(scene.things, key=lambda thing: thing.y if scene.stacked else thing.x)


def caption(scene: Scene, variant: int = 0) -> str:
    """One of six ways to describe a scene in words; number 0 is the model's own way for an image."""
    things = reading_order(scene)
    tail = f" and {phrase(things[1])}" if len(things) > 1 else ""
    first = things[0]
    match variant % 6:
        case 0:
            return f"{phrase(first)}{tail} ."
        case 1:
            return f"there is {phrase(first)}{tail} ."
        case 2:
            return f"here we see {phrase(first)}{tail} ."
        case 3:
            return f"on the {first.ground} is {article(first.colour)} {first.object}{tail} ."
        case 4:
            return " ".join(f"this {t.object} is {t.colour} and it is on the {t.ground} ." for t in things)
        case _:
            return " ".join(f"on the {t.ground} we see {article(t.object)} . the {t.object} is {t.colour} ." for t in things)


def questions(scene: Scene) -> list[Answered]:
    """Every question that has one right answer in this scene.

    "it" is asked where there is one object. With two, the question names the one it means by its colour, its kind, its ground or
    as what is beside the other: to answer, the model has to read the question first and to look at the image with it.
    """
    things = reading_order(scene)
    asked = [Answered(DESCRIBE, caption(scene), "scene")]
    if len(things) == 1:
        (it,) = things
        asked += [
            Answered(WHAT, f"{it.object} .", "object"),
            Answered(COLOUR, f"{it.colour} .", "colour"),
            Answered(GROUND, f"{it.ground} .", "ground"),
        ]
    for i, thing in enumerate(things):
        other = things[1 - i] if len(things) > 1 else None
        asked += [
            Answered(f"what is the {thing.colour} thing ?", f"{thing.object} .", "object"),
            Answered(f"what colour is the {thing.object} ?", f"{thing.colour} .", "colour"),
            Answered(f"where is the {thing.object} ?", f"{thing.ground} .", "ground"),
            Answered(f"where is the {thing.colour} thing ?", f"{thing.ground} .", "ground"),
            Answered(f"what is beside the {thing.object} ?", f"{other.object if other else 'nothing'} .", "object"),
        ]
        if other is None or other.ground != thing.ground:
            asked += [
                Answered(f"what is on the {thing.ground} ?", f"{thing.object} .", "object"),
                Answered(f"what colour is the thing on the {thing.ground} ?", f"{thing.colour} .", "colour"),
            ]
        if other is not None:
            asked.append(Answered(f"what colour is the thing beside the {thing.object} ?", f"{other.colour} .", "colour"))
    return asked


def draw_fact(rng: np.random.Generator, obj: str) -> str:
    """Two or three facts about a named object."""
    return f"this is {article(obj)} . {_draw_clues(rng, obj)} ."


def draw_riddle(rng: np.random.Generator, obj: str) -> tuple[str, Answered]:
    """A description without the name, and the question whose answer is the name."""
    return f"{_draw_clues(rng, obj)} .", Answered(WHAT, f"{obj} .", "object")


def _draw_clues(rng: np.random.Generator, obj: str) -> str:
    """Two or three clues; a category alone would not show which object is meant, so no clue stands alone."""
    facts = vars(FACTS[obj]) | {"category": article(FACTS[obj].category)}
    picked = rng.permutation(len(_CLUES))[: rng.integers(2, 4)]
    return " and ".join(_CLUES[i].format(**facts) for i in picked)


def draw_text(seed: int, split: Split, index: int) -> tuple[str, str]:
    """One document of the text corpus: the object it is about, and the text.

    Two in five state facts, two in five are riddles with their answer, one describes a scene and answers a question about it.
    """
    rng = np.random.default_rng([seed, 2 if split == "train" else 3, index])
    obj = OBJECTS[rng.integers(len(OBJECTS))]
    kind = rng.integers(5)
    if kind < 2:
        return obj, draw_fact(rng, obj)
    if kind < 4:
        clues, riddle = draw_riddle(rng, obj)
        return obj, f"{prompt(riddle.question, clues)} {riddle.answer}"
    scene = draw_scene(int(rng.integers(2**31)), split, 0)
    asked = questions(scene)
    picked = asked[rng.integers(1, len(asked))]
    return scene.main.object, f"{prompt(picked.question, caption(scene, int(rng.integers(6))))} {picked.answer}"


@dataclass(frozen=True)
class Reading:
    """What an answer says: the objects, colours and grounds it names, in order, and whether it is a well-formed sentence."""

    objects: tuple[str, ...]
    colours: tuple[str, ...]
    grounds: tuple[str, ...]
    well_formed: bool


def parse_answer(text: str) -> Reading:
    """Read an answer exactly: whole words alone, no guesses and no plurals.

    Case, the spaces around marks and the mark at the end do not count: other tokenizers than the world's own write "Boat." for
    "boat .". Well-formed are one word ("boat", "red", "sand", "nothing") with or without an article and a beginning such as "it
    is", and "a red boat on the sand" with "and ..." once more at most; each with one mark at the end, or none.
    """
    tokens = _TOKEN.findall(text.lower().replace("’", "'").replace("it's", "it is").replace("that's", "that is"))
    words = [token for token in tokens if token[0].isalpha()]
    objects = tuple(w for w in words if w in _NAMES)
    colours = tuple(w for w in words if w in COLOURS)
    grounds = tuple(w for w in words if w in GROUNDS)
    said = " ".join(tokens[:-1] if tokens and tokens[-1] in _ENDS else tokens)
    for beginning in _BEGINNINGS:
        if said.startswith(f"{beginning} "):
            said = said.removeprefix(f"{beginning} ")
            break
    short = said.split()[1:] if said.split()[:1] in (["a"], ["an"], ["the"]) else said.split()
    well_formed = len(short) == 1 and (short[0] == "nothing" or len(objects) + len(colours) + len(grounds) == 1)
    if len(objects) in (1, 2) and len(objects) == len(colours) == len(grounds):
        phrases = [_phrases(c, o, g) for c, o, g in zip(colours, objects, grounds, strict=True)]
        well_formed |= said in {" and ".join(some) for some in itertools.product(*phrases)}
    return Reading(objects, colours, grounds, well_formed)


def _phrases(colour: str, name: str, ground: str) -> list[str]:
    return [f"{a} {colour} {name} on the {ground}" for a in (article(colour).split()[0], "the")]


_TOKEN = re.compile(r"\w+|[^\w\s]")
_ENDS = (".", "!", "?")
_BEGINNINGS = (
    "it is",
    "this is",
    "that is",
    "there is",
    "here is",
    "i see",
    "we see",
    "here we see",
    "the answer is",
)
_NAMES = frozenset(OBJECTS)


def vocabulary() -> list[str]:
    """Every token the world can say, special tokens first, then in alphabetical order."""
    templates = " ".join((*_CLUES, WHAT, COLOUR, GROUND, DESCRIBE, ANSWER)).split()
    words = {word for word in templates if not word.startswith("{")}
    words |= {*OBJECTS, *COLOURS, *GROUNDS, "nothing", "a", "an", "and", "."}
    words |= {*["there", "is", "here", "we", "see", "on", "the", "this", "are", "thing", "beside", "what", "colour", "where"]}
    for facts in FACTS.values():
        words |= set(vars(facts).values())
    return [*SPECIAL_TOKENS, *sorted(words)]
