"""Names of classes: those of ILSVRC-2012, what a class without a name of its own is called, and which names are no words.

A judge looks for a class's name in an answer, and a question asks for it: nobody says `n03000684` or `class 7`.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from importlib import resources

IMAGENET = "ilsvrc2012"
"""In the place of a file of names: those that ship with the package."""

_MOST = 5  # names that a line shows
_WNID = re.compile(r"n\d{8}")
_IN_NAME = re.compile(r"(?<![0-9A-Za-z])n\d{8}(?![0-9A-Za-z])(?=[^/]*$)")
_LED_BY_WNID = re.compile(r"\An\d{8}[-_. ]+(?=[^\W\d_])")
_LED_BY_NUMBER = re.compile(r"\A(?:0\d*[-_. ]+|\d+[._]+)(?=[^\W\d_])")
"""`001.albatross`, `7_tench`; but not `18-wheeler` and not `3.5 mm jack`."""

_NOTHING = re.compile(r"\A")
_HEX = re.compile(r"(?=.*\d)[0-9a-f]{6,}", re.IGNORECASE)
_UUID = re.compile(r"\{?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}?", re.IGNORECASE)
_SEPARATOR = re.compile(r"[^\w'’]+|_+")
_GENERIC = frozenset(
    {
        "category", "categories", "cat", "cls", "class", "classes", "cluster", "concept", "dir", "file", "folder",
        "group", "id", "idx", "image", "images", "img", "index", "item", "key", "kind", "label", "lbl", "no", "num",
        "number", "object", "obj", "sample", "synset", "tag", "target", "type", "wnid",
    }
)  # fmt: skip
"""Words that only number a class: `class 7`, `label_3`."""

_PLACEHOLDERS = frozenset({"nan", "none", "null", "nil", "undefined", "n/a", "na", "<na>", "nat"})


@lru_cache(maxsize=1)
def imagenet_names() -> dict[str, str]:
    """Name of each of the 1,000 classes of ILSVRC-2012, by its wnid; no two names are equal."""
    text = resources.files("linrep.corpora").joinpath("ilsvrc2012.txt").read_text("utf-8")
    return dict(line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))


@lru_cache(maxsize=1)
def numbered_names() -> dict[str, str]:
    """Name of each class of ILSVRC-2012 by its label: its place among the sorted wnids, as everybody numbers them."""
    return {str(i): name for i, name in enumerate(imagenet_names().values())}


def is_imagenet(names: Mapping[str, str]) -> bool:
    """Whether the names of labels are those of ILSVRC-2012, though a few may be written otherwise."""
    known = numbered_names()
    return names.keys() == known.keys() and sum(names[label] == name for label, name in known.items()) >= 990


def numbers_are_imagenets(labels: Iterable[str | None], paths: Iterable[str | None]) -> bool:
    """Whether labels number the classes of ILSVRC-2012: each is the place of the wnid in its image's name.

    Args:
        labels: Class ids of images.
        paths: Names of their files: n01440764_10026_n01440764.JPEG.
    """
    place = {wnid: str(i) for i, wnid in enumerate(imagenet_names())}
    both = [(label, _IN_NAME.search(path)) for label, path in zip(labels, paths, strict=False) if label and path]
    said = [(label, place.get(wnid[0])) for label, wnid in both if wnid]
    return bool(said) and all(label == number for label, number in said)


def is_word(name: str) -> bool:
    """Whether a class's name is made of words that an answer could hold.

    No words are: nothing at all, numbers, wnids, hashes and other codes of letters and digits, one of these in front of a word
    (`001.albatross`), words that only number a class (`class 7`), and the spellings of a missing value (`nan`, `None`). A word
    may have any script, and digits may stand beside it (`Boeing 747`).
    """
    name = unicodedata.normalize("NFC", name).strip()
    low = name.lower()
    if low in _PLACEHOLDERS or _UUID.fullmatch(name) or _LED_BY_NUMBER.match(name) or not name.isprintable():
        return False
    tokens = [token for token in _SEPARATOR.split(name) if token]
    if any(_WNID.fullmatch(token.lower()) for token in tokens):
        return False
    words = [token for token in tokens if _spoken_token(token)]
    codes = [token for token in tokens if any(c.isdigit() for c in token)]
    if codes and all(word.lower() in _GENERIC for word in words):
        return False
    # A long code weighs more than the letters beside it: `deadbeef-c0ffee12`.
    return bool(words) and not any(len(token) >= 8 and _HEX.fullmatch(token) and not token.isdigit() for token in tokens)


def not_words(names: Iterable[str]) -> list[str]:
    """Those of the names that are no words, in their order."""
    return [name for name in names if not is_word(name)]


def unspoken(names: Collection[str]) -> list[str]:
    """A line for people if some of the classes have names that are no words; nothing else."""
    odd = not_words(names)
    if not odd:
        return []
    some = ", ".join(odd[:_MOST]) + (", ..." if len(odd) > _MOST else "")
    return [f"{len(odd):,} of {len(names):,} class names are no words ({some}): no answer holds them; set corpora.images.names"]


def default_name(class_id: str) -> str:
    """What a class is called that has no name of its own: its id with spaces for underscores and without a leading code.

    >>> default_name("chain_saw"), default_name("001.Black_footed_Albatross"), default_name("n03000684")
    ('chain saw', 'Black footed Albatross', 'chain saw')
    """
    if class_id in imagenet_names():
        return imagenet_names()[class_id]
    for code in (_LED_BY_WNID, _LED_BY_NUMBER, _NOTHING):
        name = " ".join(code.sub("", class_id, count=1).replace("_", " ").split())
        if is_word(name):
            return name
    return class_id


def _spoken_token(token: str) -> bool:
    """Whether a token is a word: two letters or more, or one of a script that writes a word so, and no digit."""
    if any(c.isdigit() or not (c.isalpha() or c in "'’" or unicodedata.combining(c)) for c in token):
        return False
    letters = [c for c in token if c.isalpha()]
    if len(letters) == 1:
        return unicodedata.category(letters[0]) == "Lo"
    # No English word of six letters lacks a vowel; a random code does.
    return bool(letters) and not (len(token) >= 6 and token.isascii() and not set("aeiouy") & set(token.lower()))
