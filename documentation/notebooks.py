"""Notebooks as pages: what came out is shown where it was run before; nothing is run while the site is built.

In git notebooks have no outputs. `make notebooks` runs them over a workspace and keeps copies with outputs in `build/notebooks`.
The site shows a copy as long as its cells are those of the notebook in git. Else it shows the cells alone, and says so.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS, EXECUTED = ROOT / "notebooks", ROOT / "build" / "notebooks"
IMAGES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}
LONGEST = 4000
"""Characters of a text output that a page shows."""
NOT_RUN = (
    "Shown without outputs. `make notebooks` makes them, from a workspace with the demo's results; `make docs` then shows them."
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ACTIVE = re.compile(r"<\s*(script|iframe|object|embed|link|base|meta)\b|\bon\w+\s*=|javascript:", re.IGNORECASE)


@dataclass(frozen=True)
class NotebookPage:
    """A notebook as a page of the site.

    Attributes:
        name: Of the notebook, without its ending.
        title: Its first heading, else its name.
        markdown: The page. Where an output is HTML it holds a mark from `fragments`.
        fragments: HTML of outputs, by the mark that stands for them.
        files: Images, by their path relative to the page's folder.
    """

    name: str
    title: str
    markdown: str
    fragments: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def pages(folder: Path = NOTEBOOKS, executed: Path = EXECUTED) -> list[NotebookPage]:
    """The notebooks of a folder in the order of their names; none where there is no folder.

    Args:
        folder: As they are in git.
        executed: Where copies with outputs lie.
    """
    found = []
    for file in sorted(folder.glob("*.ipynb")):
        plain = json.loads(file.read_text(encoding="utf-8"))
        copy = executed / file.name
        ran = json.loads(copy.read_text(encoding="utf-8")) if copy.is_file() else None
        is_same = ran is not None and cells_digest(ran) == cells_digest(plain)
        found.append(page(file.stem, ran if ran is not None and is_same else plain, is_same))
    return found


def cells_digest(notebook: Mapping[str, Any]) -> str:
    """Names the cells of a notebook, whatever their outputs."""
    cells = [[cell["cell_type"], _joined(cell["source"])] for cell in notebook["cells"]]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def page(name: str, notebook: Mapping[str, Any], was_run: bool) -> NotebookPage:
    """One notebook as a page.

    Args:
        name: Of its file, without the ending.
        notebook: Its content, nbformat 4.
        was_run: Whether its outputs are those of its cells.
    """
    lines: list[str] = []
    fragments: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for number, cell in enumerate(notebook["cells"]):
        source = _joined(cell["source"]).strip("\n")
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
        elif cell["cell_type"] == "code" and source:
            lines += [*_fenced(source, "python"), ""]
            for nth, output in enumerate(cell.get("outputs", []) if was_run else []):
                lines += [*_output(output, f"{name}/{number:02d}-{nth}", fragments, files), ""]
    title = next((line[2:].strip() for line in "\n".join(lines).splitlines() if line.startswith("# ")), name)
    if not any(line.startswith("# ") for line in lines):
        lines = [f"# {title}", "", *lines]
    about = [f"The notebook is `notebooks/{name}.ipynb`.", "", *([] if was_run else [NOT_RUN, ""])]
    return NotebookPage(name, title, "\n".join([*lines, "---", "", *about]), fragments, files)


def _output(output: Mapping[str, Any], key: str, fragments: dict[str, str], files: dict[str, bytes]) -> Iterator[str]:
    kind = output["output_type"]
    if kind == "error":
        yield from _fenced(_COLOURS.sub("", "\n".join(output["traceback"])), "text")
    elif kind == "stream":
        if output.get("name") == "stdout":
            yield from _fenced(_shortened(_joined(output["text"])), "text")
    else:
        yield from _shown(output["data"], key, fragments, files)


def _shown(data: Mapping[str, Any], key: str, fragments: dict[str, str], files: dict[str, bytes]) -> Iterator[str]:
    """The richest form of an output that a page may hold: HTML that runs nothing, an image, or its text."""
    markup = _joined(data.get("text/html", ""))
    if markup and not _ACTIVE.search(markup):
        mark = f"output-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        fragments[mark] = f'<div class="notebook-output">{markup}</div>'
        yield mark
        return
    for mime, ending in IMAGES.items():
        if mime in data:
            content = _joined(data[mime])
            files[f"{key}.{ending}"] = content.encode() if ending == "svg" else base64.b64decode(content)
            yield f"![output]({key}.{ending})"
            return
    if "text/markdown" in data:
        yield _joined(data["text/markdown"])
    elif "text/plain" in data:
        yield from _fenced(_shortened(_joined(data["text/plain"])), "text")


def _joined(text: str | Sequence[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def _fenced(text: str, language: str) -> list[str]:
    """A block of code whose fence is longer than any in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return [f"{fence}{language}", text.rstrip("\n"), fence]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + f"\n... {len(text) - LONGEST:,} more characters"


def with_fragments(markup: str, fragments: Mapping[str, str]) -> str:
    """A finished page with the HTML of its outputs in the places of their marks."""
    for mark, fragment in fragments.items():
        markup = markup.replace(f"<p>{html.escape(mark)}</p>", fragment)
    return markup
