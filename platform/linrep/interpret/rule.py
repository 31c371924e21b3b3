"""Explanations in a small exact language, so that what they say can be checked against the truth of a drawn world.

    pictures: object is boat or car and colour is red; patches on object or outline
    texts: words "it" or "this"; after "sail" or "floats"
    texts: words "is"; right after "it"

The two parts stand in one line with `|` between them. A part that is missing says that the latent never fires there.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linrep.store.layout import Modality

ZONES = ("object", "outline", "ground")
"""Where a patch may lie: mostly on the object, partly, or beside it."""
MOSTLY, PARTLY = 0.5, 0.05
"""Shares of a patch that the object covers, from which on it lies on the object, or on its outline."""
ANY = "any picture"
_WORD = r'"(?:[^"\\]|\\.)*"'
_WORDS = re.compile(rf"{_WORD}(?: or {_WORD})*")


def zone(share: float) -> str:
    """Where a patch lies of which the object covers this share."""
    return "object" if share >= MOSTLY else "outline" if share >= PARTLY else "ground"


@dataclass(frozen=True)
class PictureRule:
    """Which pictures, and where in them.

    Attributes:
        conditions: Attributes with the values that will do; all must hold, and none holds for every picture.
        zones: Where the patches lie.
    """

    conditions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    zones: tuple[str, ...] = ZONES

    def fits(self, attributes: Mapping[str, str]) -> bool:
        """Whether a picture is one of these."""
        return all(attributes.get(name) in values for name, values in self.conditions)

    def fits_marks(self, shares: Sequence[float]) -> bool:
        """Whether most of some patches lie where it says, given what share of each the object covers."""
        return 2 * sum(zone(share) in self.zones for share in shares) > len(shares)

    def __str__(self) -> str:
        said = " and ".join(f"{name} is {' or '.join(values)}" for name, values in self.conditions) or ANY
        return f"pictures: {said}" + ("" if set(self.zones) == set(ZONES) else f"; patches on {' or '.join(self.zones)}")


@dataclass(frozen=True)
class TextRule:
    """Which words, and after which.

    Attributes:
        words: Words on which it fires.
        after: One of these stands somewhere before; empty for no matter what.
        right: It is the very word before.
    """

    words: tuple[str, ...]
    after: tuple[str, ...] = ()
    right: bool = False

    def fires(self, words: Sequence[str]) -> list[bool]:
        """On which of the successive words of a text."""
        seen, found = not self.after, []
        for word in words:
            found.append(seen and word in self.words)
            seen = not self.after or word in self.after or (seen and not self.right)
        return found

    def __str__(self) -> str:
        quoted = [" or ".join(json.dumps(w, ensure_ascii=False) for w in words) for words in (self.words, self.after)]
        where = "right after" if self.right else "after"
        return f"texts: words {quoted[0]}" + (f"; {where} {quoted[1]}" if self.after else "")


@dataclass(frozen=True)
class Rule:
    """An explanation.

    Attributes:
        picture: On which pictures it fires; None for none.
        text: In which texts.
    """

    picture: PictureRule | None = None
    text: TextRule | None = None

    def part(self, modality: Modality) -> str:
        """What it says of one modality."""
        own = self.picture if modality == "image" else self.text
        return "" if own is None else str(own)

    def __str__(self) -> str:
        return " | ".join(filter(None, (self.part("image"), self.part("text"))))


def read_rule(said: str) -> Rule:
    """The rule that a line says.

    Raises:
        ValueError: It is not in the language; the message shows how a rule looks.
    """
    picture, text = None, None
    # A word of a text may be the bar itself, so parts are told by how they begin.
    head, bar, tail = said.partition("texts: ")
    if head.strip(" |"):
        picture = _read_picture(head.strip().rstrip("|").strip())
    if bar:
        text = _read_text(tail.strip())
    if picture is None and text is None:
        raise ValueError(_wrong(said))
    return Rule(picture, text)


def _read_picture(said: str) -> PictureRule:
    found = re.fullmatch(r"pictures: ([^;]+?)(?:; patches on (.+))?", said)
    if found is None:
        raise ValueError(_wrong(said))
    zones = tuple(found[2].split(" or ")) if found[2] else ZONES
    unknown = [name for name in zones if name not in ZONES]
    if unknown:
        raise ValueError(f"no zone {unknown[0]!r}: there are {', '.join(ZONES)}")
    if found[1] == ANY:
        return PictureRule((), zones)
    conditions = []
    for condition in found[1].split(" and "):
        name, verb, values = condition.partition(" is ")
        if not verb or not name.strip() or not values.strip():
            raise ValueError(_wrong(said))
        conditions.append((name.strip(), tuple(value.strip() for value in values.split(" or "))))
    return PictureRule(tuple(conditions), zones)


def _read_text(said: str) -> TextRule:
    found = re.fullmatch(rf"words ({_WORDS.pattern})(?:; (after|right after) ({_WORDS.pattern}))?", said)
    if found is None:
        raise ValueError(_wrong(said))
    words, after = (tuple(json.loads(word) for word in re.findall(_WORD, part or "")) for part in (found[1], found[3]))
    return TextRule(words, after, found[2] == "right after")


def _wrong(said: str) -> str:
    return (
        f"{said!r} is no rule such as 'pictures: object is boat or car and colour is red; patches on object' or "
        """'texts: words "it"; after "sail"', or both with | between them"""
    )
