"""JSON records on disk: a frozen dataclass each, held against its types, its fields and its check when it is read.

`check` is a sum over all other fields but `status`, so that a record says what was written or says nothing.
"""

import functools
import json
import re
from dataclasses import asdict, fields
from typing import Any, TypeVar

import xxhash
from pydantic import TypeAdapter, ValidationError

from linrep.errors import StoreError
from linrep.places import Place

CHECK, STATUS, VERSION = "check", "status", "schema_version"
MANIFEST = "manifest.json"
CONTROL = "-control"
"""End of the name of an untrained control's recipe, see `linrep.cluster.control`."""
SUMMARY = "summary.txt"
"""What people read of an artefact."""
MEND_COMMIT = "delete it and run the job that made it again: it makes this part anew"
_NAME = re.compile(r"[^/\\\0]+(/[^/\\\0]+)*")

T = TypeVar("T")


def write_record(file: Place, record: Any) -> None:
    """Write, or replace, a record.

    Args:
        file: The file.
        record: A dataclass of plain values.
    """
    value = json.loads(json.dumps(asdict(record), allow_nan=False))
    file.write_json({**value, CHECK: _check(value)})


def find_record(file: Place, kind: type[T], repair: str) -> T | None:
    """The record in a file, None where there is no file; else as `read_record`."""
    try:
        data = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    return parse_record(data, file, kind, repair)


def parse_record(data: bytes, file: Place, kind: type[T], repair: str) -> T:
    """The record that the bytes of a file are; else as `read_record`."""
    return _record(_object(data, file, repair), file, kind, repair)


def read_record(file: Place, kind: type[T], repair: str) -> T:
    """The record in a file.

    Args:
        file: The file.
        kind: Its dataclass.
        repair: What to do about a damaged one, for the error: "delete it and ...".

    Raises:
        StoreError: There is none, it is of another schema version, or it is not what `write_record` wrote.
    """
    return _record(read_object(file, repair), file, kind, repair)


def _record(value: dict[str, Any], file: Place, kind: type[T], repair: str) -> T:
    known = {field.name: field for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    if VERSION in known and value.get(VERSION, known[VERSION].default) != known[VERSION].default:
        raise StoreError(
            f"{file} has schema version {value[VERSION]!r:.60}, this program reads {known[VERSION].default}: "
            "run the job that made it again"
        )
    checked, check = CHECK in value, value.pop(CHECK, None)
    try:
        record = _adapter(kind).validate_json(json.dumps(value), strict=True)
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{file} is damaged ({_reason(error)}): {repair}") from None
    other = _difference(value, json.loads(json.dumps(asdict(record))), "")  # pyright: ignore[reportArgumentType]
    if other is not None:
        raise StoreError(f"{file} is damaged ({other}): {repair}")
    if checked and check != _check(value):
        raise StoreError(f"{file} is damaged (it was changed after it was written: its check does not match): {repair}")
    return record


def read_object(file: Place, repair: str) -> dict[str, Any]:
    """The JSON object in a file, for those that no dataclass describes.

    Raises:
        StoreError: There is none.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{file} is missing: {repair}") from None
    return _object(data, file, repair)


def _object(data: bytes, file: Place, repair: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:  # a JSONDecodeError and a UnicodeDecodeError are ValueErrors
        raise StoreError(f"{file} is damaged (no JSON: {_line(error)}): {repair}") from None
    if not isinstance(value, dict):
        raise StoreError(f"{file} is damaged (it holds no object but a {type(value).__name__}): {repair}")
    return value


def field_of(value: dict[str, Any], name: str, kind: type[T], file: Place, repair: str) -> T:
    """A field of a JSON object.

    Raises:
        StoreError: It is missing, or of another type.
    """
    found = value.get(name)
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise StoreError(f"{file} is damaged (its field {name} is {found!r:.60}, not {kind.__name__}): {repair}")
    return found


def is_inside(path: str) -> bool:
    """Whether a relative path stays in its folder, wherever that is: no root, no drive, no way up."""
    return bool(_NAME.fullmatch(path)) and not any(part in (".", "..") for part in path.split("/")) and path[1:2] != ":"


def inside(folder: Place, path: str, file: Place, repair: str) -> Place:
    """A place in a folder by the path that a record names.

    Args:
        folder: The folder.
        path: What the record says.
        file: The record, for the error.
        repair: What to do about it.

    Raises:
        StoreError: The path leads out of the folder.
    """
    if not is_inside(path):
        raise StoreError(f"{file} is damaged (the path {path!r:.100} leads out of {folder}): {repair}")
    return folder / path


def repair_of_unit(here: Place, unit: str) -> str:
    """What to do about a damaged file of a unit of an artefact."""
    commit = here / "commits" / f"{unit}.json"
    return f"delete {commit} and {here / MANIFEST}, and run the job that made it again: it makes this part anew"


def repair_of_whole(here: Place) -> str:
    """What to do about a damaged table of a whole artefact."""
    return f"delete {here / MANIFEST} and run the job that made it again: it puts the table together from its parts"


def only_artefact(here: Place, folder: str, what: str) -> Place:
    """The artefact in a place, or the only one of its stage in a workspace; the place itself where there is none.

    Those of an untrained control are taken only where there are no others: who opens a workspace means the model.

    Args:
        here: An artefact or a workspace.
        folder: The stage's folder in a workspace.
        what: Artefacts of the stage, in words.

    Raises:
        StoreError: There are several to choose from.
    """
    if (here / MANIFEST).is_file():
        return here
    there = [name for name in (here / folder).names() if (here / folder / name).is_folder()]
    names = [name for name in there if not name.rpartition("-")[0].endswith(CONTROL)] or there
    if len(names) > 1:
        raise StoreError(f"{here} holds {len(names)} {what}, name one of them: {', '.join(names)}")
    return here / folder / names[0] if names else here


@functools.lru_cache(maxsize=64)
def _adapter(kind: type) -> Any:
    return TypeAdapter(kind)


def _check(value: dict[str, Any]) -> str:
    own = {name: content for name, content in value.items() if name not in (CHECK, STATUS)}
    return xxhash.xxh3_64_hexdigest(json.dumps(own, sort_keys=True, separators=(",", ":")).encode())


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return _line(error)
    first = error.errors(include_url=False, include_input=True)[0]
    where, message = ".".join(map(str, first["loc"])), _line(first["msg"])
    return (
        f"field {where}: {message}" if first["type"] == "missing" else f"field {where}: {message}, it is {first['input']!r:.60}"
    )


def _line(error: Exception | str) -> str:
    return " ".join(str(error).split())[:200]


def _difference(said: Any, kept: Any, where: str) -> str | None:
    """Where what a file says differs from what its type makes of it: fields too many, or left out."""
    if isinstance(said, dict) and isinstance(kept, dict):
        for name in said.keys() | kept.keys():
            own = f"{where}.{name}" if where else str(name)
            if name not in kept:
                return f"field {own} is unknown"
            if name not in said:
                return f"field {own} is missing"
            found = _difference(said[name], kept[name], own)
            if found is not None:
                return found
        return None
    if isinstance(said, list) and isinstance(kept, list) and len(said) == len(kept):
        return next(
            (d for i, (a, b) in enumerate(zip(said, kept, strict=True)) if (d := _difference(a, b, f"{where}.{i}"))), None
        )
    return None if said == kept else f"field {where} is {said!r:.60}"
