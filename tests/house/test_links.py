"""Links between the documents lead somewhere, on a code host as well as on the site; every page is in the site's navigation."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)>\s]+)>?\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts and the site make it."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(line) for line in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)}


def wrong_links(page: Path, text: str) -> Iterator[str]:
    """Links of a page that lead to no file, or to no heading."""
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        if not target.exists():
            yield f"{link}: there is no {path}"
        elif anchor and anchor not in anchors(target):
            yield f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_of_a_document_lead_somewhere(page: Path) -> None:
    assert list(wrong_links(page, page.read_text(encoding="utf-8"))) == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    page = ROOT / "docs" / "index.md"
    text = "[a](gone.md) [b](glossary.md#what-is-found) [c](glossary.md#nothing) `[d](gone.md)` ![e](images/none.png) [f](https://a.b)"
    assert [link.partition(":")[0] for link in wrong_links(page, text)] == ["gone.md", "glossary.md#nothing", "images/none.png"]


def test_every_page_stands_in_the_navigation_once() -> None:
    def listed(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from listed(inner)

    found = sorted(listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert found == sorted(page.name for page in PAGES if page.parent == ROOT / "docs")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
