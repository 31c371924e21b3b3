"""Questions about facts, which no image shows: an image gives the object, texts alone say what it has, is for and belongs to.

Part of the (object, kind) pairs are kept from the questions, so that it can be measured whether a fact that is known from
texts is found from an image. The words are the world's own: its vocabulary has no others.
"""

from typing import Literal

from linrep.demo.language import FACTS, Answered, reading_order
from linrep.demo.scene import Scene
from linrep.demo.shapes import OBJECTS

KINDS: dict[str, str] = {
    "category": "{thing} is a what ?",
    "part": "{thing} has a what ?",
    "place": "{thing} is found at the what ?",
    "user": "{thing} belongs to the what ?",
    "use": "{thing} is good for what ?",
}

Reach = Literal["images", "texts", "stated"]
"""How far a fact is asked in training: of images and texts, of texts alone, or nowhere, so that texts only ever state it."""


def reach(obj: str, kind: str) -> Reach:
    """How far this object's fact is asked in training: of an object's five kinds three, one and one; a fixed pattern."""
    place = (OBJECTS.index(obj) + 2 * list(KINDS).index(kind)) % len(KINDS)
    return "images" if place < 3 else "texts" if place == 3 else "stated"


def fact_question(obj: str, kind: str, thing: str = "it") -> Answered:
    """A fact asked of an object, which the question calls `thing`."""
    return Answered(KINDS[kind].format(thing=thing), f"{getattr(FACTS[obj], kind)} .", "fact")


def fact_questions(scene: Scene, reaches: tuple[Reach, ...] = ("images",)) -> list[Answered]:
    """Every fact of the scene's objects that is asked this far.

    The question names the object as "it" where it is alone, by its colour, or as what is beside the other; never by its name,
    for then the scene would not be needed.
    """
    things = reading_order(scene)
    asked = []
    for i, thing in enumerate(things):
        called = [f"the {thing.colour} thing", f"the thing beside the {things[1 - i].object}" if len(things) > 1 else "it"]
        asked += [
            fact_question(thing.object, kind, by) for kind in KINDS if reach(thing.object, kind) in reaches for by in called
        ]
    return asked
