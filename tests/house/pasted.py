"""Commands as documents have them and as jobs print them: found in texts, and held against what is there."""

import ast
import importlib.util
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from click import ClickException

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ".venv/bin/python"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")
_BEGINS = re.compile(r"(\S*/)?(python3?|make|ray|pip|mlflow)\s")
PLACEHOLDERS = {"RECIPE": "recipes/demo.yaml"}
"""What stands in a sentence for a file that a command is only possible with."""


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: After the fence; empty where there is none.
        text: What is in it.
    """

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    """The blocks of code of a Markdown text."""
    return [Block(language, content) for language, content in _FENCE.findall(text)]


def commands(text: str) -> Iterator[str]:
    """The commands of a shell script, a line each: comments left out, lines that end in a backslash put together."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield shlex.join(words)


def named(text: str) -> Iterator[str]:
    """The commands that sentences of a Markdown text name, in backquotes."""
    for code in _CODE.findall(_COMMENT.sub("", _FENCE.sub("", text))):
        line = " ".join(code.split())
        if _BEGINS.match(line):
            yield line


def mistake(command: str, parse: Callable[[str, Sequence[str]], None]) -> str | None:
    """What is wrong with a command; None where it can be pasted into a new shell in the root of the repository.

    Args:
        command: One line.
        parse: Called with a job's script and its words; raises what is wrong with those.
    """
    program, *words = (PLACEHOLDERS.get(word, word) for word in shlex.split(command))
    if program == "make":
        return _of_make(words)
    if program == ".venv/bin/ray":
        return _of_ray(words, parse)
    if program != PYTHON:
        return f"{program} is not there in a new shell: name {PYTHON}, or what lies beside it"
    return _of_python(words, parse)


def _of_python(words: Sequence[str], parse: Callable[[str, Sequence[str]], None]) -> str | None:
    if not words:
        return None
    if words[0] == "-m":
        return _of_module(words[1], words[2:])
    if words[0] == "-c":
        return wrong_code(words[1])
    if not (ROOT / words[0]).is_file():
        return f"there is no {words[0]}"
    try:
        parse(words[0], words[1:])
    except Exception as error:
        return str(error)
    return None


def _of_make(words: Sequence[str]) -> str | None:
    text = (ROOT / "Makefile").read_text()
    targets, variables = re.findall(r"^([a-z-]+):", text, re.MULTILINE), re.findall(r"^([A-Z]+) \?=", text, re.MULTILINE)
    for word in words:
        name, is_variable, _ = word.partition("=")
        if name not in (variables if is_variable else targets):
            return f"make knows no {name}"
    return None


def _of_ray(words: Sequence[str], parse: Callable[[str, Sequence[str]], None]) -> str | None:
    if list(words[:1]) == ["job"] and list(words[1:2]) in (["logs"], ["stop"]):
        from ray.dashboard.modules.job.cli import job_cli_group

        try:
            job_cli_group.commands[words[1]].make_context(words[1], list(words[2:]))
        except ClickException as error:
            return error.format_message()
        return None
    if list(words[:2]) != ["job", "submit"]:
        return f"only `ray job submit`, `logs` and `stop` are known here, not {words[:2]}"
    if "--" not in words:
        return None
    end = words.index("--")
    files = [words[i + 1] for i in range(2, end) if words[i] in ("--runtime-env", "--working-dir")]
    gone = [file for file in files if not (ROOT / file).exists()]
    if gone:
        return f"there is no {gone[0]}"
    # On the cluster, whose image has one Python.
    program, *rest = words[end + 1 :]
    return f"{program} is not the cluster's python" if program != "python" else _of_python(rest, parse)


def _of_module(module: str, words: Sequence[str]) -> str | None:
    if module == "pip":
        return None
    found = importlib.util.find_spec(module)
    if found is not None and found.submodule_search_locations is not None:
        found = importlib.util.find_spec(f"{module}.__main__")
    if found is None or found.origin is None:
        return f"there is no {module} to run"
    text = Path(found.origin).read_text()
    unknown = [word for word in words if word.startswith("--") and f'"{word.partition("=")[0]}"' not in text]
    return f"{module} has no {unknown[0]}" if unknown else None


def wrong_code(code: str) -> str | None:
    """What is wrong with some Python: it is none, or what it imports from these packages is not there; None where all is well."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        return f"no Python: {error}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [(name.name, None) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [(node.module or "", name.name) for name in node.names]
        else:
            continue
        for module, name in wanted:
            try:
                if name is not None and not hasattr(importlib.import_module(module), name):
                    importlib.import_module(f"{module}.{name}")
                importlib.import_module(module)
            except ImportError as error:
                return str(error)
    return None
