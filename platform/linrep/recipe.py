"""The whole experiment as one typed record, read from YAML and a command line that is the same for every job."""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

import yaml
from pydantic import Field, ValidationError, create_model
from pydantic_settings import CliSettingsSource, SettingsError

from linrep.config import Section, digest
from linrep.corpora.config import Corpora
from linrep.demo.config import DemoWorld
from linrep.errors import RecipeError
from linrep.features.config import FeaturesConfig
from linrep.fields import Setting, alternatives, nearest, settings
from linrep.harvest.config import HarvestConfig, Pool
from linrep.help_text import overview, page
from linrep.interpret.config import InterpretConfig
from linrep.mistakes import brought_by, mistakes, needs_value, unknown_option, unreadable
from linrep.options import VALUES, Options, asked_options, own_options
from linrep.probe.config import ProbeConfig
from linrep.regions.config import RegionsConfig
from linrep.sae.search import TuneConfig
from linrep.sae.study import SaeConfig
from linrep.sharing.config import SharingConfig
from linrep.steer.config import SteerConfig
from linrep.vlm.config import ModelConfig

RECIPES = "recipes"
"""Folder of a workspace: the recipes that were run there."""


class Recipe(Section):
    """One experiment: a section per stage."""

    name: str = Field(
        description="Begins the names of everything that is made.", pattern=r"^[a-z0-9][a-z0-9_-]*$", examples=["my-run"]
    )
    demo: DemoWorld | None = Field(default=None, description="The embedded world, where a path begins with demo://.")
    corpora: Corpora = Field(description="What to run through the model.")
    model: ModelConfig = Field(description="The vision-language LLM.")
    harvest: HarvestConfig = Field(default=HarvestConfig(), description="What to keep of the residual stream.")
    regions: RegionsConfig | None = Field(default=None, description="Boxes or masks of the images, as labels of single patches.")
    probe: ProbeConfig = Field(default=ProbeConfig(), description="Which probes to fit.")
    steer: SteerConfig = Field(default=SteerConfig(), description="Edits of the residual stream, and what is asked under them.")
    sae: SaeConfig = Field(default=SaeConfig(), description="Which SAEs to train.")
    tune: TuneConfig = Field(default=TuneConfig(), description="Which width and sparsity to search.")
    sharing: SharingConfig = Field(default=SharingConfig(), description="How to compare the modalities.")
    features: FeaturesConfig = Field(default=FeaturesConfig(), description="What to find out about latents of SAEs.")
    interpret: InterpretConfig = Field(default=InterpretConfig(), description="Which latents to explain, and how to score it.")
    pool: Pool = Field(default=Pool(), description="Where the work runs; no part of the digest.")


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        recipe: The experiment.
        workspace: Folder or URI of everything that is made.
        reindex: Whether to look at the corpora again.
        evaluate: An SAE to test, of those who train them.
        until: The last stage to run, of the job that runs them all.
        only: The one stage to run, likewise.
        dry_run: Whether only to say what would run, likewise.
        gpus: A table of GPUs, of the job that plans.
        image: The image to ask about, of the job that asks.
        text: What to ask, likewise.
        latents: Latents to clamp, as they were typed, likewise.
        edits: Classes to turn into each other, likewise.
        site: Where these edits act, likewise.
        serve: Port of the local page to serve, likewise; None for none.
        config: The recipe's file.
        overrides: The words of the command line that set fields of the recipe, as they were typed.
    """

    recipe: Recipe
    workspace: str
    reindex: bool = False
    evaluate: str | None = None
    until: str | None = None
    only: str | None = None
    dry_run: bool = False
    gpus: str | None = None
    image: str | None = None
    text: str | None = None
    latents: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    site: str = "image"
    serve: int | None = None
    config: str = ""
    overrides: tuple[str, ...] = ()


def parse(description: str, argv: list[str] | None = None) -> Request:
    """The request of a job's command line; ends the process after --help and --print-config.

    Args:
        description: What the help says first.
        argv: Arguments, those of the process if None.

    Raises:
        RecipeError: A file, field, type or value is wrong; the message names it.
    """
    words = sys.argv[1:] if argv is None else argv
    for word, after in zip(words, [*words[1:], ""], strict=False):
        if word in ("-h", "--help") or word.startswith("--help="):
            with contextlib.suppress(BrokenPipeError):  # it is read with head
                print(_help(description, word.partition("=")[2] or after))
            raise SystemExit(0)
    overrides = _command_line(words)
    for name, (job, _) in own_options().items():
        jobs = job.split()
        if argv is None and jobs and name in overrides and Path(sys.argv[0]).stem not in jobs:
            alone = " alone" if len(jobs) == 1 else ""
            raise RecipeError(f"--{name} is an option of {' and '.join(f'jobs/{one}.py' for one in jobs)}{alone}")
    # `null` stands for nothing everywhere else; here it is the name of a folder.
    config, workspace = overrides.pop("config", None), overrides.pop("workspace", "runs")
    print_config, reindex = overrides.pop("print-config", False), overrides.pop("reindex", False)
    evaluate, until, only = (overrides.pop(name, None) for name in ("evaluate", "until", "only"))
    dry_run = overrides.pop("dry-run", False)
    asking = asked_options(overrides)
    workspace = "null" if workspace is None else workspace
    if not workspace.strip():
        raise RecipeError("--workspace is empty: name a folder or a URI")
    if config is None:
        config = remembered(workspace)
        print(f"recipe: {config}, as {workspace} remembers it", file=sys.stderr)
    recipe = validate(load_yaml(config), config, overrides, words)
    if print_config:
        print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
        raise SystemExit(0)
    return Request(
        recipe, workspace, reindex, evaluate, until, only, dry_run, **asking, config=config, overrides=_field_words(words)
    )


def _field_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command line that set fields of the recipe: its other options are left out, with their values."""
    kept, own, keep = [], own_options(), True
    for word in words:
        if word.startswith("--"):
            keep = word.partition("=")[0][2:].removeprefix("no-") not in own
        if keep:
            kept.append(word)
    return tuple(kept)


def remember(recipe: Recipe, workspace: str, begun: bool = False) -> None:
    """Keep a recipe in its workspace, overrides included, in the place of an earlier one of the same harvest.

    One with a key in an address is not kept: it would lie there for everybody to read.

    Args:
        recipe: The recipe of a job that has ended.
        workspace: Where everything lies.
        begun: Only where a harvest was begun there, of a job that was stopped.
    """
    from linrep.places import place, redacted

    if begun and not (place(workspace) / "harvests").names():
        return
    if any("://" in text and redacted(text) != text for text in _texts(recipe.model_dump(mode="json"))):
        return
    key = digest(recipe.demo and recipe.demo.model_dump(mode="json"), recipe.corpora, recipe.model, recipe.harvest)
    file = place(workspace) / RECIPES / f"{recipe.name}-{key}.yaml"
    # Only what the recipe says: a section that it does not have is a stage that it does not ask for.
    content = yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True).encode()
    if not file.is_file() or file.read_bytes() != content:
        file.write_bytes(content)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def remembered(workspace: str) -> str:
    """The file of the one recipe that a workspace remembers.

    Raises:
        RecipeError: It remembers none, or several.
    """
    from linrep.places import place

    folder = place(workspace) / RECIPES
    names = [name for name in folder.names() if name.endswith(".yaml")]
    if not names:
        raise RecipeError(
            f"--config is missing, and {workspace} remembers no recipe yet: name one, for example --config recipes/demo.yaml"
        )
    if len(names) > 1:
        files = "".join(f"\n  --config {shlex.quote(str(folder / name))}" for name in names)
        raise RecipeError(f"--config is missing, and {workspace} remembers {len(names)} recipes: name one{files}")
    return str(folder / names[0])


def load_yaml(path: str) -> dict[str, Any]:
    """A recipe file's content.

    Args:
        path: Of a file on this machine, or the address of one in an object store.

    Raises:
        RecipeError: The file is missing, is not YAML, or does not hold sections.
    """
    try:
        if "://" in path:
            from linrep.places import place

            text = place(path).read_bytes().decode()
        else:
            text = Path(path).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds no sections: a recipe is a mapping, see recipes/demo.yaml")
    return content


def merge(recipe: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The recipe with overrides laid over it, section by section.

    A section whose `kind` an override changes is replaced, so that the old kind's fields do not linger.

    >>> merge({"a": {"kind": "x", "n": 1}}, {"a": {"kind": "y"}})
    {'a': {'kind': 'y'}}
    """
    merged = dict(recipe)
    for key, value in overrides.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            replaced = "kind" in value and "kind" in old and value["kind"] != old["kind"]
            merged[key] = value if replaced else merge(old, value)
        else:
            merged[key] = value
    return merged


def validate(content: dict[str, Any], where: str, overrides: dict[str, Any] | None = None, words: Sequence[str] = ()) -> Recipe:
    """The recipe that a file and a command line make.

    Args:
        content: Of the file.
        where: The file, for messages.
        overrides: What the command line says, as nested values.
        words: The command line.

    Raises:
        RecipeError: One line for each field that is wrong. It names the file or the option that brought the mistake.
    """
    values = merge(content, overrides or {})
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        found = mistakes(error, values, Recipe)
    alone = found
    if overrides:
        try:
            Recipe.model_validate(content)
            alone = []
        except ValidationError as error:
            alone = mistakes(error, content, Recipe)
    options = _options(words)
    lines = []
    for one in found:
        typed = brought_by(one, overrides or {}, options, one in alone)
        lines.append(one.on_command_line(typed, Recipe) if typed else one.in_file(where))
    raise RecipeError("\n".join(lines))


def _options(words: Sequence[str]) -> list[str]:
    """Names of the options on a command line, without dashes and without the `no-` of what is switched off."""
    names = (word.partition("=")[0][2:] for word in words if word.startswith("--"))
    return list(dict.fromkeys(name.removeprefix("no-") for name in names))


def _help(description: str, section: str) -> str:
    """A job's help, or that of a section.

    Raises:
        RecipeError: There is no such section.
    """
    job = Path(sys.argv[0]).name
    if not section:
        own = {name: meaning for name, (of, meaning) in own_options().items() if not of or job.removesuffix(".py") in of.split()}
        shown = {f"--{name} {VALUES.get(name, '')}".rstrip(): meaning for name, meaning in own.items()}
        return overview(job, description, {**shown, "--help [SECTION]": "This page, or the fields of a section."}, Recipe)
    shown = page(section.removeprefix("--"), Recipe)
    if shown is None:
        found = nearest(section, [one.path for one in settings(Recipe)])
        hint = f"did you mean --help {found[0]}?" if found else f"there are {', '.join(Recipe.model_fields)}"
        raise RecipeError(f"--help {section}: there is no such section; {hint}")
    return shown


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            raise RecipeError(unknown_option(rest, args, Recipe, list(own_options())))
        return known, rest

    def error(self, message: str) -> NoReturn:
        raise RecipeError(needs_value(message, Recipe))


@lru_cache(maxsize=1)
def _reader() -> CliSettingsSource[Any]:
    """Reads a command line by the fields of a recipe; it takes much longer to make than a command line to read."""
    sections = {name: (field.annotation, field) for name, field in Recipe.model_fields.items()}
    arguments = create_model("Arguments", __base__=Options, **sections)  # type: ignore[call-overload]
    return CliSettingsSource(arguments, root_parser=_Parser(add_help=False, allow_abbrev=False))


def _command_line(words: Sequence[str]) -> dict[str, Any]:
    """Overrides as nested values, not validated yet: validation comes after the merge with the recipe."""
    try:
        found = _nulls(_reader()(args=list(words))())
    except SettingsError as error:  # a value that begins like JSON and is none
        raise RecipeError(unreadable(" ".join(str(error).split()), words, Recipe)) from None
    for one in settings(Recipe):
        _unlisted(found, one)
    return found


def _unlisted(overrides: dict[str, Any], setting: Setting) -> None:
    """Make `all` of a list that holds it alone: as such it arrives for a field that is a list or a word."""
    *sections, name = setting.path.split(".")
    for section in sections:
        overrides = overrides.get(section) or {}
        if not isinstance(overrides, dict):
            return
    value = overrides.get(name)
    words = [word for part in alternatives(setting.annotation) if get_origin(part) is Literal for word in get_args(part)]
    if isinstance(value, list) and len(value) == 1 and value[0] in words:
        overrides[name] = value[0]


def _nulls(values: Any) -> Any:
    """`null` given for a list arrives as a list of None: no list here may hold None, so it means the whole field."""
    if isinstance(values, dict):
        return {key: _nulls(value) for key, value in values.items()}
    return None if values == [None] else values
