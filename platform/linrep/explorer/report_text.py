"""The report in Markdown: figures are linked by their paths in the workspace, where it lies."""

from collections.abc import Sequence
from urllib.parse import quote

from linrep.explorer.claims import Report, Section
from linrep.explorer.escaped import SENTENCES, as_alt, fenced, in_markdown

PREFACE = "Numbers in brackets are 95% intervals."
UNFINISHED = "Not finished. Where nothing runs any more, this goes on:"


def report_text(report: Report) -> str:
    """The report, in Markdown."""
    lines = [f"# {in_markdown(report.title)}", "", *map(in_markdown, report.setting), "", PREFACE, ""]
    for section in report.sections:
        lines += _section(section)
    lines += ["## Where this comes from", "", *_table(("what", "value"), report.facts), ""]
    lines += [*_table(("stage", "artefact and digest", "folder in the workspace"), report.results), ""]
    lines += ["All of it again, and this report:", "", *fenced(report.again), ""]
    return "\n".join(lines)


def unfinished_text(recipe: str, again: str) -> str:
    """What stands in the report's place while stages work.

    Args:
        recipe: Name of the recipe.
        again: The shell command that goes on.
    """
    return "\n".join([f"# {in_markdown(recipe)}", "", UNFINISHED, "", *fenced(again), ""])


def _section(section: Section) -> list[str]:
    lines = [f"## {section.title}", ""]
    if section.missing:
        return [*lines, in_markdown(section.missing), ""]
    lines += [f"**{in_markdown(section.headline, SENTENCES)}**", ""] if section.headline else []
    lines += [*(f"- {in_markdown(sentence, SENTENCES)}" for sentence in section.beside), ""] if section.beside else []
    for stage, found in section.others:
        lines += [f"*{in_markdown(stage)}*: {in_markdown(found, SENTENCES)}", ""]
    if section.figure:
        lines += [f"![{as_alt(alt(section), SENTENCES)}]({quote(section.figure)})", ""]
    lines += [in_markdown(section.note), ""] if section.note else []
    lines += [*(f"- {in_markdown(example.text)}" for example in section.examples), ""] if section.examples else []
    lines += [f"What this does not show: {in_markdown(section.limits)}", "", *fenced("\n".join(section.commands)), ""]
    return [*lines, *_table(("stage", "artefact and digest", "folder in the workspace"), section.results), ""]


def alt(section: Section) -> str:
    """What a section's figure shows, for those who do not see it."""
    return f"Figure of {section.figure_of}. {section.headline or section.title}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(map(in_markdown, row))} |" for row in rows),
    ]
