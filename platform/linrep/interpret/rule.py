"""Explanations in a small exact language, so that what they say can be checked against the truth of a drawn world.

    images: object is boat or car and colour is red, or ground is snow; patches on object or outline, height is top
    texts: words "it" or "this"; after "sail" or "floats"
    texts: words "is"; right after "it", or words "red", or any word; right after "a"

The two parts stand in one line with `|` between them. A part that is missing says that the latent never fires there.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from linrep.interpret.clauses import Clause
from linrep.store.layout import Modality

ZONES = ("object", "outline", "ground")
"""Where a patch may lie: mostly on the object, partly, or beside it."""
MOSTLY, PARTLY = 0.5, 0.05
"""Shares of a patch that the object covers, from which on it lies on the object, or on its outline."""
ANY, ANY_WORD = "any image", "any word"
OR = ", or "
"""Between clauses of which one must hold."""
_WORD = r'"(?:[^"\\]|\\.)*"'
_WORDS = rf"{_WORD}(?: or {_WORD})*"
_SPOKEN = re.compile(rf"(?:words ({_WORDS})|{ANY_WORD})(?:; (after|right after) ({_WORDS}))?")


def zone(share: float) -> str:
    """Where a patch lies of which the object covers this share."""
    return "object" if share >= MOSTLY else "outline" if share >= PARTLY else "ground"


def holds(clause: Clause, attributes: Mapping[str, str]) -> bool:
    """Whether all conditions of a clause hold."""
    return all(attributes.get(name) in values for name, values in clause)


def said(clause: Clause) -> str:
    """A clause in words."""
    return " and ".join(f"{name} is {' or '.join(values)}" for name, values in clause)


@dataclass(frozen=True)
class ImageRule:
    """Which images, and where in them.

    Attributes:
        conditions: Attributes with the values that will do; all must hold, and none holds for every image.
        zones: Where the patches lie.
        others: Further sets of conditions: an image of which one holds will do as well.
        places: What else must hold of the patches.
    """

    conditions: Clause = ()
    zones: tuple[str, ...] = ZONES
    others: tuple[Clause, ...] = ()
    places: Clause = ()

    def fits(self, attributes: Mapping[str, str]) -> bool:
        """Whether an image is one of these."""
        return any(holds(clause, attributes) for clause in (self.conditions, *self.others))

    def fits_marks(self, patches: Sequence[Mapping[str, str]]) -> bool:
        """Whether most of some patches lie where it says, given the attributes of each, its zone among them."""
        right = [patch["zone"] in self.zones and holds(self.places, patch) for patch in patches]
        return 2 * sum(right) > len(right)

    def __str__(self) -> str:
        images = OR.join(said(clause) for clause in (self.conditions, *self.others)) or ANY
        on = [f"on {' or '.join(self.zones)}"] if set(self.zones) != set(ZONES) else []
        where = ", ".join([*on, *([said(self.places)] if self.places else [])])
        return f"images: {images}" + (f"; patches {where}" if where else "")


@dataclass(frozen=True)
class TextRule:
    """Which words, and after which.

    Attributes:
        words: Words on which it fires; empty for any.
        after: One of these stands somewhere before; empty for no matter what.
        right: It is the very word before.
        others: Further rules: a word on which one of them fires will do as well.
    """

    words: tuple[str, ...]
    after: tuple[str, ...] = ()
    right: bool = False
    others: tuple["TextRule", ...] = ()

    def fires(self, words: Sequence[str]) -> list[bool]:
        """On which of the successive words of a text."""
        seen, found = not self.after, []
        for word in words:
            found.append(seen and (not self.words or word in self.words))
            seen = not self.after or word in self.after or (seen and not self.right)
        more = [other.fires(words) for other in self.others]
        return [any(fires) for fires in zip(found, *more, strict=True)]

    def __str__(self) -> str:
        words, after = (" or ".join(json.dumps(w, ensure_ascii=False) for w in some) for some in (self.words, self.after))
        one = (f"words {words}" if words else ANY_WORD) + (
            f"; {'right after' if self.right else 'after'} {after}" if after else ""
        )
        return "texts: " + OR.join([one, *(str(other).removeprefix("texts: ") for other in self.others)])


@dataclass(frozen=True)
class Rule:
    """An explanation.

    Attributes:
        image: On which images it fires; None for none.
        text: In which texts.
    """

    image: ImageRule | None = None
    text: TextRule | None = None

    def part(self, modality: Modality) -> str:
        """What it says of one modality."""
        own = self.image if modality == "image" else self.text
        return "" if own is None else str(own)

    def __str__(self) -> str:
        return " | ".join(filter(None, (self.part("image"), self.part("text"))))


def read_rule(line: str) -> Rule:
    """The rule that a line says.

    Raises:
        ValueError: It is not in the language; the message shows how a rule looks.
    """
    image, text = None, None
    # A word of a text may be the bar itself, so parts are recognised by how they begin.
    head, bar, tail = line.partition("texts: ")
    if head.strip(" |"):
        image = _read_image(head.strip().rstrip("|").strip())
    if bar:
        text = _read_text(tail.strip())
    if image is None and text is None:
        raise ValueError(_wrong(line))
    return Rule(image, text)


def _read_image(line: str) -> ImageRule:
    found = re.fullmatch(r"images: ([^;]+?)(?:; patches (?:on ([^,]+))?(?:, )?(.+ is .+)?)?", line)
    if found is None:
        raise ValueError(_wrong(line))
    zones = tuple(found[2].split(" or ")) if found[2] else ZONES
    unknown = [name for name in zones if name not in ZONES]
    if unknown:
        raise ValueError(f"no zone {unknown[0]!r}: there are {', '.join(ZONES)}")
    clauses = [() if part == ANY else _read_clause(part, line) for part in found[1].split(OR)]
    return ImageRule(clauses[0], zones, tuple(clauses[1:]), _read_clause(found[3], line) if found[3] else ())


def _read_clause(part: str, line: str) -> Clause:
    conditions = []
    for condition in part.split(" and "):
        name, verb, values = condition.partition(" is ")
        if not verb or not name.strip() or not values.strip():
            raise ValueError(_wrong(line))
        conditions.append((name.strip(), tuple(value.strip() for value in values.split(" or "))))
    return tuple(conditions)


def _read_text(part: str) -> TextRule:
    rules, at = [], 0
    while True:
        found = _SPOKEN.match(part, at)
        if found is None:
            raise ValueError(_wrong(part))
        words, after = (tuple(json.loads(word) for word in re.findall(_WORD, some or "")) for some in (found[1], found[3]))
        rules.append(TextRule(words, after, found[2] == "right after"))
        at = found.end()
        if at == len(part):
            return replace(rules[0], others=tuple(rules[1:]))
        if not part.startswith(OR, at):
            raise ValueError(_wrong(part))
        at += len(OR)


def _wrong(line: str) -> str:
    return (
        f"{line!r} is no rule such as 'images: object is boat or car and colour is red; patches on object' or "
        """'texts: words "it"; after "sail"', or both with | between them"""
    )
