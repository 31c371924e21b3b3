"""The help of a command line: one screen for a job, and a page for each section of the recipe."""

import textwrap
from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from linrep.fields import Setting, settings, type_words, typed

WIDTH = 100
"""Columns of a line."""
FOOT = "A list is typed 1,2,3. null clears a field. --no-SECTION.FIELD switches a true-or-false field off."


def overview(job: str, description: str, options: Mapping[str, str], model: type[BaseModel]) -> str:
    """A job's help: what it does, its options, and the recipe's sections.

    Args:
        job: The script's file name.
        description: Its docstring; indented lines are commands and stay as they are.
        options: Meanings of its options, by how they are typed.
        model: The recipe.
    """
    sections = {name: field.description or "" for name, field in model.model_fields.items()}
    lines = [
        f"usage: jobs/{job} [--config RECIPE.yaml] [--workspace DIR] [--SECTION.FIELD VALUE ...]",
        "",
        *_filled(description),
        "Options:",
        *_columns(options),
        "",
        "Sections of the recipe (`--help probe` shows the fields of that section):",
        *_columns(sections),
    ]
    return "\n".join(lines)


def page(section: str, model: type[BaseModel]) -> str | None:
    """The fields of a section, or of a part of it such as sae.design: option, type, default, meaning. None where there is none.

    Args:
        section: Its name.
        model: The recipe.
    """
    every = list(settings(model))
    top = next((one for one in every if one.path == section), None)
    if top is None:
        return None
    inside = [one for one in every if one.path.startswith(f"{section}.")] or [top]
    lines, group = _wrapped(f"{section}: {top.field.description or ''}", "", ""), section
    for one in inside:
        parent = one.path.rpartition(".")[0]
        if (parent, one.kind) != group and one.kind:
            lines += ["", f"with --{parent}.kind {one.kind.replace(', ', ' or ')}:"]
        elif (parent, one.kind) != group or one.sections:
            lines.append("")
        # What a section holds follows it without a gap.
        group = (one.path if one.sections else parent, one.kind)
        lines += _entry(one)
    lines += ["", *_wrapped(FOOT, "", "")]
    return "\n".join(lines)


def _entry(one: Setting) -> list[str]:
    words = type_words(one.annotation)
    if one.required:
        words += "; required"
    elif not isinstance(one.default, BaseModel):
        words += f"; default {typed(one.default)}"
    return [*_wrapped(words, f"  --{one.path}  ", " " * 6), *_wrapped(one.field.description or "", " " * 6, " " * 6)]


def _columns(rows: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, rows)) + 4
    for name, meaning in rows.items():
        yield from _wrapped(meaning, f"  {name}".ljust(width), " " * width)


def _filled(description: str) -> Iterator[str]:
    """A docstring in lines of the width, each paragraph followed by a blank line."""
    for paragraph in description.strip().split("\n\n"):
        lines = paragraph.splitlines()
        yield from lines if lines[0].startswith(" ") else _wrapped(" ".join(lines), "", "")
        yield ""


def _wrapped(text: str, first: str, then: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )
