"""What MkDocs calls while it builds the site: tables from the code, notebooks as pages, and no file from outside."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from documentation.models_page import model_tables
from documentation.notebooks import NotebookPage, pages, with_fragments
from documentation.recipe_page import job_pages, recipe_tables
from documentation.sources_page import sources_table

MADE = {
    "<!-- made by the build: recipe -->": recipe_tables,
    "<!-- made by the build: jobs -->": job_pages,
    "<!-- made by the build: models -->": model_tables,
    "<!-- made by the build: sources -->": sources_table,
}
"""Marks in pages, and what makes the text that takes their place."""
NOTEBOOKS = "Notebooks"
"""The section of the navigation that the notebooks end."""


TITLES = "page_titles"
"""Where `extra` keeps what the navigation calls each page."""
FOUND = "notebook_pages"
"""Where MkDocs' own `extra` keeps the notebooks of a build, by the path of their page."""


FILE_AS_TEXT = re.compile(r"\[([\w-]+\.md)\]\(\1")
"""A link to a page by the name of its file: [saes.md](saes.md#loss)."""


def _titles(nav: Any) -> Iterator[tuple[str, str]]:
    """Pages and their titles in the navigation."""
    for entry in nav:
        for title, inner in entry.items() if isinstance(entry, dict) else ():
            if isinstance(inner, str):
                yield inner, title
            else:
                yield from _titles(inner)


def on_config(config: Any) -> Any:
    """Put the notebooks that there are into the navigation."""
    root = Path(config.config_file_path).parent
    folders = (root / config.extra[name] for name in ("notebooks", "executed"))
    found = config.extra[FOUND] = {f"notebooks/{one.name}.md": one for one in pages(*folders)}
    for section in config.nav:
        if NOTEBOOKS in section:
            section[NOTEBOOKS] += [{one.title: path} for path, one in found.items()]
    config.extra[TITLES] = dict(_titles(config.nav))
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the notebooks' pages and images."""
    for path, one in config.extra[FOUND].items():
        files.append(File.generated(config, path, content=one.markdown))
        for name, content in one.files.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put what the code says into the places of the marks, and call pages by their titles where a code host has their files."""
    titles = config.extra[TITLES]
    markdown = FILE_AS_TEXT.sub(lambda found: f"[{titles.get(found[1], found[1])}]({found[1]}", markdown)
    for mark, make in MADE.items():
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Put outputs of notebooks that are HTML into the places of their marks."""
    one: NotebookPage | None = config.extra[FOUND].get(page.file.src_uri)
    return html if one is None else with_fragments(html, one.fragments)
