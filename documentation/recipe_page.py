"""Reference pages made from the code: the fields of a recipe, and the options of every job."""

import ast
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from linrep.fields import Setting, settings, type_words, typed
from linrep.options import VALUES, own_options
from linrep.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
HEAD = ["| field | type | default | meaning |", "|---|---|---|---|"]
SECTION = "section"


def recipe_tables() -> str:
    """Every field of a recipe: a heading for each section of it, and a table for each kind of a part of a section."""
    lines = []
    every = list(settings(Recipe))
    for top in (one for one in every if "." not in one.path):
        lines += [f"## {top.path}", "", _sentence(top)]
        inside = [one for one in every if one.path.startswith(f"{top.path}.")] or [top]
        group: tuple[str, str] | None = None
        for one in inside:
            parent = one.path.rpartition(".")[0]
            if (parent, one.kind) != group:
                lines += [""]
                if one.kind:
                    lines += [f"With `{parent}.kind` {one.kind.replace(', ', ' or ')}:", ""]
                elif group is not None and parent not in ("", top.path):
                    lines += [f"In `{parent}`:", ""]
                elif group is not None:
                    lines += [f"More of `{top.path}`:", ""]
                lines += HEAD
                group = parent, one.kind
            lines.append(_row(one))
        lines.append("")
    return "\n".join(lines)


def job_pages() -> str:
    """Every job: what it does, its examples, and the options that belong to no section of a recipe."""
    return "\n".join(line for job in sorted((ROOT / "jobs").glob("*.py")) for line in _job(job))


def _job(job: Path) -> Iterator[str]:
    yield from [f"## {job.name}", ""]
    for paragraph in (ast.get_docstring(ast.parse(job.read_text())) or "").split("\n\n"):
        if paragraph.startswith("  "):
            yield from ["```bash", *(line[2:] for line in paragraph.splitlines()), "```", ""]
        else:
            yield from [" ".join(paragraph.split()), ""]
    yield from ["| option | meaning |", "|---|---|"]
    for name, (of, meaning) in own_options().items():
        if of in ("", job.stem):
            option = f"--{name} {VALUES.get(name, '')}".rstrip()
            yield f"| `{option}` | {_cell(meaning)} |"
    yield from ["| `--help [SECTION]` | Its help, or the fields of a section of the recipe. |", ""]


def _sentence(one: Setting) -> str:
    return _cell(one.field.description or "")


def _row(one: Setting) -> str:
    words, default = _cell(type_words(one.annotation)), ""
    if one.required:
        default = "required"
    elif not isinstance(one.default, BaseModel):
        default = f"`{typed(one.default)}`".replace("|", "\\|")
    return f"| `{one.path}` | {words} | {default} | {_sentence(one)} |"


def _cell(text: str) -> str:
    """A text as a cell of a table shows it: no line break, no column of its own, and no markup."""
    plain = " ".join(text.split())
    for sign, written in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("_", "\\_"), ("[", "\\["), ("`", "\\`")):
        plain = plain.replace(sign, written)
    return plain
