"""The documentation builds without a warning, and its pages hold only links that lead somewhere and nothing from outside."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from tests.pages import browse, needs_chromium

ROOT = Path(__file__).resolve().parents[2]


class _Page(HTMLParser):
    """Anchors and addresses of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        self.ids |= {value for name in ("id", "name") if (value := of.get(name))}
        if tag == "a" and of.get("href"):
            self.links.append(str(of["href"]))
        elif tag == "link" and of.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(str(of.get("href")))
        elif tag != "a":
            self.loaded += [str(value) for name in ("src", "srcset", "data", "poster") if (value := of.get(name))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site with a notebook of which a copy with outputs lies beside it."""
    here = tmp_path_factory.mktemp("site")
    said = {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<table id='shown'></table>"}}
    for folder, outputs in (("git", []), ("ran", [said])):
        cells = [{"cell_type": "code", "source": "1 + 1", "metadata": {}, "outputs": outputs}]
        (here / folder).mkdir()
        (here / folder / "01_sum.ipynb").write_text(json.dumps({"cells": cells}))
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(here / "out"))
    config.extra |= {"notebooks": str(here / "git"), "executed": str(here / "ran")}
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    return here / "out"


@pytest.mark.slow
def test_pages_load_nothing_from_outside(site):
    pages = {file: _Page(file) for file in site.rglob("*.html")}
    assert len(pages) > 30
    outside = re.compile(r"^(https?:)?//")
    assert {file.name: found for file, page in pages.items() if (found := list(filter(outside.match, page.loaded)))} == {}
    styles = {file.name: re.findall(r"(?:@import|url\()\s*['\"]?https?:[^)]*", file.read_text()) for file in site.rglob("*.css")}
    assert {name: found for name, found in styles.items() if found} == {}


@pytest.mark.slow
def test_links_of_the_built_pages_lead_somewhere(site):
    pages = {file.resolve(): _Page(file) for file in site.rglob("*.html")}
    wrong = []
    for file, page in pages.items():
        for link in page.links:
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link) or file.name == "404.html":
                continue
            target = (file.parent / unquote(path)).resolve() if path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (anchor and target in pages and unquote(anchor) not in pages[target].ids):
                wrong.append(f"{file.relative_to(site)}: {link}")
    assert wrong == []


@pytest.mark.slow
def test_what_is_made_by_the_build_is_there(site):
    made = [(site / f"{name}.html").read_text() for name in ("recipe", "jobs", "models", "corpora")]
    assert "made by the build" not in "".join(made)
    assert "documents: files" in made[-1]
    assert "probe.min_per_class" in (site / "recipe.html").read_text()
    assert ">numbers.md<" not in (site / "results.html").read_text()  # a page is called by its title
    assert 'id="linrep.vlm.hooks.record"' in (site / "api-model.html").read_text()
    notebook = (site / "notebooks" / "01_sum.html").read_text()
    assert "<div class=\"notebook-output\"><table id='shown'></table></div>" in notebook
    assert "notebooks/01_sum.html" in (site / "index.html").read_text()


@pytest.mark.slow
@needs_chromium
def test_the_search_finds_pages_from_disk(site, tmp_path):
    seen = browse(f"{(site / 'index.html').as_uri()}?q=unembedding", tmp_path, "--dump-dom")
    found = re.findall(r'<a href="([^"?#]+)[^>]*md-search-result__link', seen)
    assert {"steering.html", "results.html"} <= {link.rpartition("/")[2] for link in found}
