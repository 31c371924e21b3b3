"""The fields of a recipe as people set them: dotted names, types, defaults, examples; and the name nearest to a mistaken one."""

import json
import shlex
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", types.NoneType: "null"}
ARTICLES = {"integer": "an ", "number": "a ", "list": "a ", "section": "a ", "mapping": "a "}
EXAMPLES = {int: 8, float: 0.5, bool: True}
"""Values for fields whose default says nothing: null, an empty list, or none at all."""


@dataclass(frozen=True)
class Setting:
    """A field of a recipe, or a section in it.

    Attributes:
        path: Its dotted name: probe.min_per_class.
        field: What pydantic knows of it.
        annotation: Its type.
        default: Its value where nothing is said; `...` where it must be given.
        kind: The one kind of its section that has it (`chat`); empty where all have it.
    """

    path: str
    field: FieldInfo
    annotation: Any
    default: Any
    kind: str = ""

    @property
    def sections(self) -> list[type[BaseModel]]:
        """The sections that it can be, one for each kind; empty where it is a plain field."""
        return [part for part in alternatives(self.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is ...

    @property
    def example(self) -> str:
        """A value that it takes, as it is typed."""
        if self.field.examples:
            return typed(self.field.examples[0])
        if isinstance(self.default, bool | int | float) or (self.default and not self.required):
            return typed(self.default)
        return typed(_made_up(self.annotation, self.path.rpartition(".")[2].upper()))

    @property
    def usage(self) -> str:
        """The option with a value that it takes; a flag takes none."""
        return f"--{self.path}" if self.annotation is bool else f"--{self.path} {self.example}"

    def takes(self, word: str) -> bool:
        """Whether a word of the command line is a value for it, as far as its type says."""
        adapter: TypeAdapter[Any] = TypeAdapter(Annotated[self.annotation, self.field])  # type: ignore[valid-type]
        for value in (None if word == "null" else word, word.split(",")):
            try:
                adapter.validate_python(value)
            except ValidationError:
                continue
            return True
        return False


def settings(model: type[BaseModel], prefix: str = "", default: Any = None, kind: str = "") -> Iterator[Setting]:
    """All fields of a section and of those in it, in their order; a field of several kinds comes once for each.

    Args:
        model: The section.
        prefix: What its fields' names begin with: `probe.`.
        default: The section as it is where nothing is said; its own defaults if None.
        kind: The kind that the section is, where there are several.
    """
    for name, field in model.model_fields.items():
        if kind and name == "kind":
            continue
        value = ... if field.is_required() else field.get_default(call_default_factory=True)
        value = getattr(default, name) if isinstance(default, model) else value
        setting = Setting(prefix + name, field, field.annotation, value, kind)
        yield setting
        members = setting.sections
        if len(members) > 1:
            kinds = tuple(one for member in members for one in choices(member.model_fields["kind"].annotation))
            yield Setting(f"{setting.path}.kind", _KIND, Literal[kinds], getattr(value, "kind", ...), kind)
        for member in members:
            kinds = choices(member.model_fields["kind"].annotation) if len(members) > 1 else []
            yield from settings(member, f"{setting.path}.", value, ", ".join(kinds))


_KIND = FieldInfo(description="Which kind; each has its own fields.")


def alternatives(annotation: Any) -> list[Any]:
    """The types that a type is one of.

    >>> alternatives(Annotated[int | None, "positive"])
    [<class 'int'>, <class 'NoneType'>]
    """
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for one in get_args(annotation) for part in alternatives(one)]
    return [annotation]


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a type is one of, or holds in a list or under names."""
    found: list[type[BaseModel]] = []
    for part in alternatives(annotation):
        if get_origin(part) is tuple:
            found += sections_in(get_args(part)[0])
        elif get_origin(part) is dict:
            found += sections_in(get_args(part)[1])
        elif isinstance(part, type) and issubclass(part, BaseModel):
            found.append(part)
    return found


def is_mapping(annotation: Any) -> bool:
    """Whether a type is a section's worth of names, each with a value of its own."""
    return any(get_origin(part) is dict for part in alternatives(annotation))


def choices(annotation: Any) -> list[str]:
    """The words that a type lists, in lists too.

    >>> choices(tuple[Literal["pooled", "tokens"], ...] | Literal["all"])
    ['pooled', 'tokens', 'all']
    """
    found: list[str] = []
    for part in alternatives(annotation):
        if get_origin(part) is Literal:
            found += [str(one) for one in get_args(part)]
        elif get_origin(part) is tuple:
            found += choices(get_args(part)[0])
    return found


def type_words(annotation: Any, articles: bool = False) -> str:
    """A type in words, with articles if it stands in a sentence.

    >>> type_words(tuple[int, ...] | Literal["all"], articles=True), type_words(tuple[int, int] | None)
    ('a list of integers or all', '2 integers or null')
    """
    words = [word for part in alternatives(annotation) for word in _words(part)]
    return either(ARTICLES.get(word.split()[0], "") + word if articles else word for word in words)


def _words(part: Any) -> list[str]:
    arguments = get_args(part)
    if get_origin(part) is Literal:
        return [str(one) for one in arguments]
    if get_origin(part) is tuple:
        of = alternatives(arguments[0])[0]
        several = "|".join(choices(of)) or (f"{WORDS[of]}s" if of in WORDS else "items")
        return [f"list of {several}" if arguments[-1] is Ellipsis else f"{len(arguments)} {several}"]
    if get_origin(part) is dict:
        return ["mapping of names to sections"]
    return [WORDS.get(part, "section")]


def either(words: Iterable[str]) -> str:
    """Words that are alternatives, each once.

    >>> either(["a", "b", "a", "c"])
    'a, b or c'
    """
    each = list(dict.fromkeys(words))
    return " or ".join([", ".join(each[:-1]), each[-1]]) if len(each) > 1 else "".join(each)


def typed(value: Any) -> str:
    """A value as it is typed on a command line.

    >>> print(typed(None), typed((0.5, 1.0)), typed([{"layer": 4}]))
    null 0.5,1 '[{"layer": 4}]'
    """
    plain = TypeAdapter(Any).dump_python(value, mode="json")
    if isinstance(plain, list) and plain and not any(isinstance(one, list | dict) for one in plain):
        return ",".join(typed(one) for one in plain)
    if isinstance(plain, float):
        return f"{plain:g}" if float(f"{plain:g}") == plain else repr(plain)
    if plain is None or isinstance(plain, bool | int):
        return json.dumps(plain)
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return quoted(text)


def quoted(text: str) -> str:
    """A word of a shell; with line breaks, of bash and zsh.

    >>> print(quoted("words"), quoted("two words"), quoted("<image>\\nWhat?"))
    words 'two words' $'<image>\\nWhat?'
    """
    if "\n" not in text:
        return shlex.quote(text)
    return "$'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _made_up(annotation: Any, name: str) -> Any:
    first = next(part for part in alternatives(annotation) if part is not types.NoneType)
    if listed := choices(first):
        return listed[0]
    if get_origin(first) is tuple:
        arguments = get_args(first)
        return [_made_up(one, name) for one in (arguments[:1] if arguments[-1] is Ellipsis else arguments)]
    return EXAMPLES.get(first, name)


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The name that is most like a mistaken one; several that are equally like it; none where nothing is like it.

    Names with dots must also be alike at their end: with a long beginning in common any two are alike.

    >>> nearest("probe.min_per_clas", ["probe.min_per_class", "probe.layers"]), nearest("seed", ["probe.seed", "steer.seed"])
    (['probe.min_per_class'], ['probe.seed', 'steer.seed'])
    """
    known = list(dict.fromkeys(known))
    if slipped := [one for one in known if _is_slip(name, one)]:
        return slipped[:3]

    def unlike(one: str) -> tuple[float, bool]:
        # Of two that are equally like it, the one of the same letters: they were only changed about.
        return -_alike(name, one), sorted(one) != sorted(name)

    found = sorted(get_close_matches(name, known, n=5, cutoff=0.6), key=unlike)
    if found and _alike(name, found[0]) >= 0.9:
        return [one for one in found if unlike(one) == unlike(found[0])][:3]
    if ends := [one for one in known if one.endswith(f".{name}")]:
        return ends[:3]
    for one in found:
        if _alike(name.rpartition(".")[2], one.rpartition(".")[2]) >= 0.5 and name.count(".") == one.count("."):
            return [one]
    return []


def _is_slip(name: str, meant: str) -> bool:
    """Whether a name is another with one letter left out, or two neighbours changed about."""
    if len(name) + 1 == len(meant):
        return any(name == meant[:i] + meant[i + 1 :] for i in range(len(meant)))
    if len(name) != len(meant) or name == meant:
        return False
    first = next(i for i, (a, b) in enumerate(zip(name, meant, strict=True)) if a != b)
    return name == meant[:first] + meant[first : first + 2][::-1] + meant[first + 2 :]


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
