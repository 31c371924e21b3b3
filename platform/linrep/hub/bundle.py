"""What is to be sent: files by their path in the repository, and what a person must know before they go."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from linrep.places import Place
from linrep.recipe import RECIPES, load_yaml
from linrep.repository.address import Kind

CARD, RECIPE = "README.md", "recipe.yaml"
Content = Path | bytes
"""A file on a disk of this machine, or what is made here or lies in an object store."""
_HERE = re.compile(r"[/~]\S.*|[A-Za-z]:[\\/].*|(?!demo:|hf:)[A-Za-z][A-Za-z0-9+.-]*://.+")
_HUB_NAME = re.compile(r"(?:.*/)?models--([\w.-]+?)--([\w.-]+)(?:/.*)?|([A-Za-z0-9][\w.-]*/[\w.-]+)")
_COMMENT = "# Paths of the machine that it ran on are shortened to their last part.\n"


@dataclass(frozen=True)
class Bundle:
    """Files to send to one repository.

    Attributes:
        kind: Of the repository.
        what: What they are, in words: the commit's message.
        files: Their contents, by path in the repository.
        notes: What a person must know before they go.
        paths: Paths of this machine that they may name.
    """

    kind: Kind
    what: str
    files: Mapping[str, Content] = field(repr=False)
    notes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wishes:
    """What a person says about a repository.

    Attributes:
        license: As the hub names it; empty for none.
        base_model: The model's name on the hub; empty where its path says it.
        datasets: Names on the hub of what was harvested.
    """

    license: str = ""
    base_model: str = ""
    datasets: tuple[str, ...] = ()


def content_of(file: Place) -> Content:
    """A file of a workspace, wherever that lies."""
    return Path(file.path) if file.local else file.read_bytes()


def hub_name(path: str) -> str | None:
    """The name on the hub of a model at a path; None where the path says none.

    >>> hub_name("/x/hub/models--llava-hf--llava-v1.6/snapshots/0a"), hub_name("llava-hf/llava-v1.6"), hub_name("/data/llava")
    ('llava-hf/llava-v1.6', 'llava-hf/llava-v1.6', None)
    """
    found = _HUB_NAME.fullmatch(path)
    if found is None:
        return None
    return found[3] or f"{found[1]}/{found[2]}"


def shortened(text: str) -> str:
    """A path or an address as others may see it: its last part, if it is one of this machine.

    >>> shortened("/data/imagenet/train/"), shortened("s3://bucket/a/b"), shortened("demo://images"), shortened("data/train")
    ('train', 'b', 'demo://images', 'data/train')
    """
    if not _HERE.fullmatch(text):
        return text
    return re.split(r"[/\\]", text.partition("?")[0].rstrip("/\\"))[-1]


def without_paths(value: Any) -> Any:
    """Plain values with `shortened` texts, except where `hub_name` knows a model by its path."""
    if isinstance(value, str):
        return (hub_name(value) if "models--" in value else None) or shortened(value)
    if isinstance(value, dict):
        return {key: without_paths(one) for key, one in value.items()}
    return [without_paths(one) for one in value] if isinstance(value, list | tuple) else value


def paths_in(value: Any) -> Iterator[str]:
    """Texts among plain values that are paths of this machine."""
    if isinstance(value, str):
        if _HERE.fullmatch(value):
            yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from paths_in(one)


def recipe_of(workspace: Place, name: str) -> dict[str, Any] | None:
    """The recipe of this name that a workspace remembers; None where it remembers none, or several."""
    folder = workspace / RECIPES
    found = [load_yaml((folder / file).uri) for file in folder.names() if file.startswith(f"{name}-") and file.endswith(".yaml")]
    own = [one for one in found if one.get("name") == name]
    return own[0] if len(own) == 1 else None


def recipe_text(recipe: Mapping[str, Any]) -> bytes:
    """A recipe as it is sent."""
    return (_COMMENT + yaml.safe_dump(without_paths(dict(recipe)), sort_keys=False, allow_unicode=True)).encode()
