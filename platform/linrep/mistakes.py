"""Mistakes in a recipe or on a command line, each in one line: what is wrong, what is nearest, and a right example."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from linrep.fields import Setting, choices, either, is_mapping, nearest, quoted, sections_in, settings, type_words

Path = tuple[str | int, ...]
MISSING = "missing"

NOT_OF_TYPE = re.compile(r"(_type|_parsing|_from_float|literal_error|too_long|missing)$")
"""pydantic's errors that say no more than that a value is not of the field's type."""


def unknown_option(rest: Sequence[str], words: Sequence[str], model: type[BaseModel], options: Sequence[str]) -> str:
    """What to say of words that no option takes.

    Args:
        rest: These words.
        words: The whole command line.
        model: The recipe.
        options: Names of the options that belong to no section.
    """
    fields = {one.path: one for one in settings(model)}
    word, _, value = rest[0].partition("=")
    if not word.startswith("-") or re.fullmatch(r"-[\d.]+(e-?\d+)?", word):  # also a negative number after a flag
        return f"{rest[0]}: a value without an option{_stray(rest[0], words, fields)}"
    no, name = ("no-", word[5:]) if word.startswith("--no-") else ("", word.lstrip("-"))
    found = nearest(name, [*fields, *options])
    if not found:
        section = name.partition(".")[0]
        page = f"`--help {section}` lists those of this section" if section in model.model_fields else "`--help` lists them"
        return f"{word}: there is no such option; {page}"
    value = value or next((one for one in rest[1:2] if not one.startswith("-")), "")
    return f"{word}: there is no such option; did you mean {either(_example(one, fields.get(one), value, no) for one in found)}?"


def _stray(value: str, words: Sequence[str], fields: Mapping[str, Setting]) -> str:
    """Why a value may stand alone: it is the recipe, a flag stands before it, or the second item of a list."""
    if value.endswith((".yaml", ".yml")):
        return f"; did you mean --config {value}?"
    flags = {f"--{no}{one.path}" for one in fields.values() if one.annotation is bool for no in ("", "no-")}
    for i, (word, after) in enumerate(itertools.pairwise(words), start=1):
        if after != value or (word.startswith("--") and "=" not in word and word not in flags):
            continue  # it belongs to the option before it
        at = max((k for k in range(i) if words[k].startswith("--")), default=None)
        field = fields.get(words[at][2:].removeprefix("no-")) if at is not None else None
        if field and field.annotation is bool:
            return f"; --{field.path} takes none, --no-{field.path} switches it off"
        if field and at is not None and "list of" in type_words(field.annotation):
            several = ",".join(itertools.takewhile(lambda word: not word.startswith("-"), words[at + 1 :]))
            return f"; did you mean --{field.path} {quoted(several)}?"
    return ""


def _example(name: str, field: Setting | None, value: str, no: str) -> str:
    """An option with a value: the one that was typed where it may be one, else one that is right."""
    if field is None or field.sections:
        return f"--{name} {quoted(value) if value else ''}".rstrip()
    if field.annotation is bool:
        return f"--{no}{name}"
    return f"--{name} {quoted(value)}" if value and field.takes(value) else field.usage


def needs_value(message: str, model: type[BaseModel]) -> str:
    """What to say of an option that argparse refuses: `argument --probe.seed: expected one argument`."""
    found = re.match(r"argument (?:--no-\S+/|)--(\S+?)(?:/\S+|): (.*)", message)
    if found is None:
        return f"command line: {message}"
    field = next((one for one in settings(model) if one.path == found[1]), None)
    said = "needs a value" if found[2] == "expected one argument" else found[2]
    return f"--{found[1]}: {said}{_for_example(field)}"


def unreadable(message: str, words: Sequence[str], model: type[BaseModel]) -> str:
    """What to say of a value that begins like JSON and is none.

    Args:
        message: As pydantic has it, which names the section alone.
        words: The command line.
        model: The recipe.
    """
    fields = {f"--{one.path}": one for one in settings(model)}
    pairs = (
        (option, value if equals else after)
        for word, after in itertools.pairwise([*words, ""])
        for option, equals, value in [word.partition("=")]
    )
    given = [(fields[option], value) for option, value in pairs if option in fields]
    wrong = [(field, value) for field, value in given if not _is_json(value)]
    for field, value in wrong:
        if value.startswith(("{", "[")):
            return f"--{field.path}: {value} begins like JSON and is none{_for_example(field)}"
    for field, value in wrong:
        if field.sections:
            return f"--{field.path}: {value} is no JSON; `--help {field.path}` shows the fields"
    for field, value in given:
        if is_mapping(field.annotation) and not value.startswith("{"):
            return f"--{field.path}: must be {type_words(field.annotation, articles=True)}, got {value!r}{_for_example(field)}"
    return f"command line: {message}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _for_example(field: Setting | None) -> str:
    return f"; for example {field.usage}" if field and not field.sections else ""


@dataclass(frozen=True)
class Mistake:
    """What is wrong with one field.

    Attributes:
        path: The field's place in the recipe, without the names of kinds.
        said: What is wrong.
        word: The value that was probably meant, where the field lists its values.
        name: The field that was probably meant.
        kind: The kind that must be chosen to have the field.
    """

    path: Path
    said: str
    word: str = ""
    name: str = ""
    kind: str = ""

    def in_file(self, file: str) -> str:
        """The line that names a recipe's file and the field."""
        meant = self.name or self.word
        place = f"{_dotted(self.path)}: " if self.path else ""
        return f"{file}: {place}{self.said}" + (f"; did you mean {meant}?" if meant else "")

    def on_command_line(self, options: Sequence[str], model: type[BaseModel]) -> str:
        """The line that names the options that brought it, as they were typed, with a right example where there is one.

        Args:
            options: Their names.
            model: The recipe.
        """
        fields = {one.path: one for one in settings(model)}
        dotted, first = _dotted(self.path), options[0]
        # The option says where it is; what it holds, and what it lacks, is named beside it.
        rest = "" if any(f"{name}.".startswith(f"{dotted}.") for name in options) else f"{dotted.removeprefix(f'{first}.')}: "
        line = f"{', '.join(f'--{name}' for name in options)}: {rest}{self.said}"
        if self.word and dotted in fields:
            return f"{line}; did you mean --{dotted} {quoted(self.word)}?"
        if self.word or self.name:
            line += f"; did you mean {self.word or self.name.removeprefix(f'{first}.')}?"
        if self.kind:
            return f"{line}; for example --{dotted.rpartition('.')[0]}.kind {self.kind}"
        return line + _for_example(fields.get(dotted, fields.get(first)))


def mistakes(error: ValidationError, values: dict[str, Any], model: type[BaseModel]) -> list[Mistake]:
    """What is wrong with a recipe, one entry a field.

    Args:
        error: As pydantic has it.
        values: What was validated.
        model: The recipe.
    """
    grouped: dict[Path, list[Mapping[str, Any]]] = {}
    for one in error.errors(include_url=False):
        grouped.setdefault(_place(one, values), []).append(one)
    found = [_mistake(path, errors, values, model) for path, errors in grouped.items()]
    # A field whose name is mistaken is not missing as well.
    meant = {one.name for one in found}
    return [one for one in found if one.said != MISSING or _dotted(one.path) not in meant]


def brought_by(mistake: Mistake, overrides: dict[str, Any], options: Sequence[str], in_file_alone: bool) -> list[str]:
    """The options that brought a mistake; none where the recipe's file did.

    Args:
        mistake: What is wrong.
        overrides: What the options say, as nested values.
        options: Their names, as they were typed.
        in_file_alone: Whether the file has the same mistake without them.
    """
    at: Any = overrides
    for part in mistake.path:
        if isinstance(at, dict) and part not in at:
            at = None
            break
        at = at[part] if isinstance(at, dict) else at
    given = [name for name in options if f"{_dotted(mistake.path)}.".startswith(f"{name}.")]
    if given and (at is not None or _dotted(mistake.path) in given):
        return [max(given, key=len)]
    if in_file_alone:
        return []
    section = _dotted(mistake.path if at is not None else mistake.path[:-1])
    return [name for name in options if f"{name}.".startswith(f"{section}.")]


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def _place(error: Mapping[str, Any], values: Any) -> Path:
    """The path of an error, without the kinds and types that pydantic names on the way."""
    path: list[str | int] = []
    for i, part in enumerate(error["loc"]):
        if (isinstance(values, dict) and part in values) or (isinstance(values, list | tuple) and isinstance(part, int)):
            path.append(part)
            values = values[part] if isinstance(values, dict) or part < len(values) else None  # type: ignore[operator]
        elif error["type"] == "missing" and i == len(error["loc"]) - 1:
            path.append(part)
    if error["type"].startswith("union_tag"):
        path.append("kind")
    elif path and isinstance(path[-1], int) and not isinstance(values, dict):
        path.pop()  # an element is named by its value
    return tuple(path)


def _mistake(path: Path, errors: list[Mapping[str, Any]], values: dict[str, Any], model: type[BaseModel]) -> Mistake:
    first = errors[0]
    given, context = first.get("input"), first.get("ctx", {})
    field = next((one for one in settings(model) if one.path == _dotted(path)), None)
    words = choices(field.annotation) if field else []
    if first["type"] == "extra_forbidden":
        return _no_such_field(path, values, model)
    if first["type"] == "value_error":
        return Mistake(path, first["msg"].removeprefix("Value error, "))
    if first["type"] == "missing" and first["loc"][-1] == path[-1]:
        return Mistake(path, MISSING)
    # Of sections in lists pydantic alone knows what is allowed.
    words = words or re.findall(r"'([^']*)'", context.get("expected_tags") or context.get("expected", ""))
    if first["type"] == "union_tag_not_found":
        return Mistake(path, f"missing: {either(words)}")
    given = context.get("tag", given)
    if field and first["type"].startswith(("model_", "dict_")):
        said = f"must hold fields, `--help {field.path}` shows them"
    elif first["type"].startswith(("union_tag", "literal_error")) and len(errors) == 1:
        said = f"must be {either(words)}"
    elif field and not field.sections and all(NOT_OF_TYPE.search(one["type"]) for one in errors):
        said = f"must be {type_words(field.annotation, articles=True)}"
    else:
        said = first["msg"].replace("Input should", "must", 1)
        said = said[:1].lower() + said[1:]
    shown = f", got {given!r}" if isinstance(given, str | int | float | list) and len(repr(given)) < 60 else ""
    meant = nearest(given, words) if isinstance(given, str) else []
    return Mistake(path, said + shown, meant[0] if meant else "")


def _no_such_field(path: Path, values: Any, model: type[BaseModel]) -> Mistake:
    """What to say of a field that its section does not have."""
    name, parent = str(path[-1]), _dotted(path[:-1])
    if not parent:
        return Mistake(path, "there is no such section", name=next(iter(nearest(name, model.model_fields)), ""))
    siblings = list(_sections_at(path[:-1], model))
    for part in path[:-1]:
        values = values[part]
    kinds = [kind for one in siblings if name in one.model_fields for kind in choices(one.model_fields["kind"].annotation)]
    if kinds:
        return Mistake(path, f"only kind {either(kinds)} has this field, and the kind is {values.get('kind')}", kind=kinds[0])
    near = nearest(name, [one for section in siblings for one in section.model_fields])
    found = [f"{parent}.{one}" for one in near] or nearest(name, (one.path for one in settings(model)))
    return Mistake(path, "there is no such field", name=either(found))


def _sections_at(path: Path, model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The sections that may stand at a place of the recipe, those of lists and under names too."""
    names = [part for part in path if isinstance(part, str)]
    if not names:
        yield model
        return
    for section in _sections_at(tuple(names[:-1]), model):
        if names[-1] in section.model_fields:
            yield from sections_in(section.model_fields[names[-1]].annotation)
    for section in _sections_at(tuple(names[:-2]), model) if len(names) > 1 else ():
        field = section.model_fields.get(names[-2])
        if field is not None and is_mapping(field.annotation):
            yield from sections_in(field.annotation)
