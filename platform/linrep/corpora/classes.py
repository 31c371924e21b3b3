"""Classes: what a folder or a label means in words, and which ones a recipe takes."""

import difflib
import json
from collections import Counter
from collections.abc import Iterable

from linrep.corpora.config import field_of
from linrep.corpora.names import IMAGENET, default_name, imagenet_names, numbered_names
from linrep.corpora.runs import Class
from linrep.corpora.streams import decoded
from linrep.errors import CorpusError
from linrep.places import Place
from linrep.repository.streamed import open_place

_SYNSETS = "LOC_synset_mapping.txt"
_LISTS = ("classes.json", "imagenet_class_index.json", _SYNSETS)


def find_names(folder: Place) -> dict[str, str]:
    """Names of the classes by id, from the first list that lies in the folder or its parent; empty if none does.

    ImageNet's own archive keeps its list four folders above the images, so that one is also looked for there.
    """
    above = [folder]
    while len(above) < 5 and above[-1].parent.path not in ("", above[-1].path):  # up to a bucket, or a disk's root
        above.append(above[-1].parent)
    candidates = [here / name for here in above[:2] for name in _LISTS] + [here / _SYNSETS for here in above[2:]]
    return next((read_names(file) for file in candidates if file.is_file()), {})


def read_names(file: Place | str) -> dict[str, str]:
    """Names of the classes by id.

    Args:
        file: `ilsvrc2012` for those that ship with the package, by wnid and by number. Else JSON {"n01440764": "tench"}, or
            ImageNet's {"0": ["n01440764", "tench"]}, or text with "n01440764 tench, Tinca tinca" a line, of which the first name
            counts.

    Raises:
        CorpusError: The file is missing, or in none of these forms.
    """
    if file == IMAGENET:
        return imagenet_names() | numbered_names()
    file = open_place(file)
    try:
        text = decoded(file.read_bytes())
        if file.name.endswith(".txt"):
            lines = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
            return {wnid: names.split(",")[0].strip() for wnid, names in lines}
        listed = json.loads(text).items()
        return dict((key, name) if isinstance(name, str) else _indexed(*name) for key, name in listed)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CorpusError(f'cannot read class names from {file}: {error}; it should hold {{"<class id>": "<name>"}}') from error


def _indexed(wnid: str, name: str) -> tuple[str, str]:
    return wnid, name.replace("_", " ")


def select(ids: Iterable[str], names: dict[str, str], wanted: tuple[str, ...] | None, where: object) -> tuple[Class, ...]:
    """The classes to take, sorted by id; integer ids are sorted as numbers.

    Args:
        ids: The classes that the corpus holds.
        names: Their names; one that is a wnid is looked up, and a class that the list leaves out is called by its id. Empty where
            there is no list: then `default_name` decides, unless two classes would be called the same.
        wanted: Ids, or names in any case; None for all.
        where: The corpus, for the message.

    Raises:
        CorpusError: A wanted class is unknown (the message lists near matches), or its name is that of several.
    """
    ids = set(ids)
    numbers = all(name.isdecimal() and len(name) < 100 for name in ids)
    called = _called(ids, names)
    every = tuple(Class(name, called[name]) for name in sorted(ids, key=lambda name: (int(name) if numbers else 0, name)))
    if wanted is None:
        return every
    taken = {_match(want, every, where) for want in wanted}
    return tuple(known for known in every if known in taken)


def together(sources: dict[str, tuple[Class, ...]]) -> tuple[tuple[Class, ...], dict[str, list[int]]]:
    """The classes of several sources as one list, and the place in it of every class of each source.

    Classes of one name are one class, under the id of the first source that has it. Each source adds what is new at the end:
    it changes no label of those before it.

    Raises:
        CorpusError: Two sources have a class that is only a number: nobody can say whether it means the same in both.
    """
    every: list[Class] = []
    first: dict[str, tuple[int, str]] = {}
    places: dict[str, list[int]] = {}
    for key, classes in sources.items():
        times = Counter(one.name for one in classes)
        places[key] = []
        for one in classes:
            known_as = one.name if times[one.name] == 1 else one.id
            place, source = first.setdefault(known_as, (len(every), key))
            if place == len(every):
                every.append(one)
            elif known_as.isdecimal():
                raise CorpusError(
                    f"class {known_as} of {field_of(source)} and of {field_of(key)} is only a number, which need not mean the "
                    "same: give both their names"
                )
            places[key].append(place)
    return tuple(every), places


def _called(ids: set[str], names: dict[str, str]) -> dict[str, str]:
    """Name of each class."""
    if names:
        given = {id: names.get(id, "").strip() or id for id in ids}
        return {id: imagenet_names().get(name, name) if id != name else name for id, name in given.items()}
    default = {id: default_name(id) for id in ids}
    taken = Counter(default.values())
    return {id: name if taken[name] == 1 else id for id, name in default.items()}


def _match(want: str, every: tuple[Class, ...], where: object) -> Class:
    found = [known for known in every if known.id == want] or [known for known in every if known.name.lower() == want.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise CorpusError(f"class {want!r} is the name of {', '.join(known.id for known in found)} in {where}: give the id")
    spellings = {spelling.lower(): spelling for known in every for spelling in known}
    near = [spellings[low] for low in difflib.get_close_matches(want.lower(), spellings, n=3)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {len(every)}, such as {_some(every)}"
    raise CorpusError(f"no class {want!r} in {where}: {hint}")


def _some(every: tuple[Class, ...]) -> str:
    return ", ".join(repr(known.name) for known in every[:3]) or "none"
