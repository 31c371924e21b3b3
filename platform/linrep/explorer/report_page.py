"""The report as one HTML file that needs no other: figures, images and style are in it, and nothing in it runs."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files

from linrep.explorer.claims import Report, Section, Thumbnail
from linrep.explorer.drawing import drawing
from linrep.explorer.escaped import LONGEST, SENTENCES, code_in_html, in_html
from linrep.explorer.report_text import PREFACE, UNFINISHED, alt

Read = Callable[[str], bytes | None]
"""Gives a file of the workspace by its path in it; None where it is not there."""
FIRST = 220
"""Characters of a finding in the list of claims."""


def report_page(report: Report, read: Read) -> str:
    """The report, in HTML. The same report and figures give the same text.

    Args:
        report: The report.
        read: Gives the files of the figures.
    """
    title = in_html(report.title)
    lines = [
        f"<header><h1><bdi>{title}</bdi></h1>",
        *(f'<p class="meta">{_text(sentence)}</p>' for sentence in report.setting),
        f'<p class="meta">{PREFACE}</p>',
        "</header>",
        '<nav aria-label="Claims"><ol>',
        *(_entry(number, section) for number, section in enumerate(report.sections, 1)),
        "</ol></nav>",
        "<main>",
    ]
    for number, section in enumerate(report.sections, 1):
        lines += _section(number, section, read)
    lines += [
        '<section class="claim" aria-labelledby="provenance"><h2 id="provenance">Where this comes from</h2>',
        *_table("The recipe and its data", ("what", "value"), report.facts),
        *_results("All results", report.results),
        "<h3>All of it again, and this report</h3>",
        _command(report.again),
        "</section>",
        "</main>",
    ]
    return _page(title, lines)


def unfinished_page(recipe: str, again: str) -> str:
    """What stands in the report's place while stages work.

    Args:
        recipe: Name of the recipe.
        again: The shell command that goes on.
    """
    title = in_html(recipe)
    lines = [f"<main><h1><bdi>{title}</bdi></h1>", f"<p>{UNFINISHED}</p>", _command(again), "</main>"]
    return _page(title, lines)


def _page(title: str, body: Sequence[str]) -> str:
    """A page whose policy allows its own style, by digest, and images that it carries; nothing else is run or fetched."""
    style = (files("linrep.explorer") / "report.css").read_text(encoding="utf-8")
    seal = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{seal}'; base-uri 'none'; form-action 'none'"
    head = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>{title}</title>",
        f"<style>{style}</style>",
        "</head>",
        "<body>",
    ]
    return "\n".join([*head, *body, "</body>", "</html>"]) + "\n"


def _command(text: str) -> str:
    return f'<pre tabindex="0"><code>{code_in_html(text)}</code></pre>'


def _text(text: str, longest: int = LONGEST) -> str:
    return f"<bdi>{in_html(text, longest)}</bdi>"


def _entry(number: int, section: Section) -> str:
    first = section.headline or section.missing
    if len(first) > FIRST:
        first = f"{first[:FIRST].rsplit(' ', 1)[0]} …"
    return f'<li><a href="#claim-{number}">{in_html(section.title)}</a><span>{_text(first)}</span></li>'


def _section(number: int, section: Section, read: Read) -> list[str]:
    lines = [
        f'<section class="claim" aria-labelledby="claim-{number}">',
        f'<h2 id="claim-{number}">{in_html(section.title)}</h2>',
    ]
    if section.missing:
        return [*lines, f"<p>{_text(section.missing)}</p>", "</section>"]
    lines += [f'<p class="headline">{_text(section.headline, SENTENCES)}</p>'] if section.headline else []
    if section.beside:
        lines += ['<ul class="beside">', *(f"<li>{_text(sentence, SENTENCES)}</li>" for sentence in section.beside), "</ul>"]
    lines += [f'<p><span class="stage">{in_html(stage)}</span> {_text(found, SENTENCES)}</p>' for stage, found in section.others]
    lines += _figure(section, read)
    if section.examples:
        lines += ["<h3>Examples</h3>", *([f"<p>{_text(section.note)}</p>"] if section.note else []), '<ul class="examples">']
        lines += [f"<li>{_text(one.text)}{_thumbnails(one.images)}</li>" for one in section.examples]
        lines.append("</ul>")
    lines += ["<h3>What this does not show</h3>", f"<p>{_text(section.limits)}</p>"]
    lines += ["<h3>How to make it again</h3>", _command("\n".join(section.commands))]
    return [*lines, *_results("Results of this claim", section.results), "</section>"]


def _figure(section: Section, read: Read) -> list[str]:
    if section.figure is None:
        return []
    shown = drawing(read(section.figure.removesuffix(".png") + ".svg"), read(section.figure))
    if shown is None:
        return [f"<p>The figure is in the workspace: {_text(section.figure)}</p>"]
    size = f'width="{shown.width}" height="{shown.height}"'
    return [
        "<figure>",
        f'<div class="wide" tabindex="0"><img src="{shown.address}" {size} alt="{in_html(alt(section), SENTENCES)}"></div>',
        f"<figcaption>{in_html(section.figure_of)}: {_text(section.figure)}</figcaption>",
        "</figure>",
    ]


def _thumbnails(images: Sequence[Thumbnail]) -> str:
    tags = [
        f'<img src="{one.drawn.address}" width="{one.drawn.width}" height="{one.drawn.height}" alt="{in_html(one.alt)}">'
        for one in images
    ]
    return f'<span class="thumbs">{"".join(tags)}</span>' if tags else ""


def _results(caption: str, results: Sequence[tuple[str, str, str]]) -> list[str]:
    return _table(caption, ("stage", "artefact and digest", "folder in the workspace"), results)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = [
        f'<tr><th scope="row">{_text(first)}</th>' + "".join(f"<td>{_text(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    ]
    caption = f"<caption>{caption}</caption>"
    return [
        f'<div class="table" tabindex="0"><table>{caption}<thead><tr>{cells}</tr></thead><tbody>',
        *body,
        "</tbody></table></div>",
    ]
