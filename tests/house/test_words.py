"""The glossary's words hold in what people read: docs, README, help and field descriptions."""

import re
from pathlib import Path

import pytest

from linrep.recipe import Recipe, _help

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BANNED = re.compile(r"\b(pictures?|photographs?|dictionar(y|ies)|tells?|told|telling|so many|sees? to it)\b", re.IGNORECASE)
# What the rule must let pass: prompts of the demo's model, whose vocabulary holds the word; a library and a field; an Arrow type.
ALLOWED = ("describe the picture", "dictionary_learning", "dictionary learning", "or dictionaries of these")


def banned(text: str) -> list[str]:
    """The lines of a text that hold a banned word outside of the allowed phrases."""
    for phrase in ALLOWED:
        text = text.replace(phrase, "")
    return [line.strip() for line in text.splitlines() if BANNED.search(line)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_docs_say_the_glossarys_words(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "glossary.md":  # its last column names what not to say
        text = "\n".join("|".join(line.split("|")[:-2]) if line.startswith("|") else line for line in text.splitlines())
    assert banned(text) == []


@pytest.mark.parametrize("section", ["", *Recipe.model_fields])
def test_help_says_the_glossarys_words(section: str) -> None:
    assert banned(_help("A job.", section)) == []


def test_a_banned_word_is_seen() -> None:
    assert banned("A picture.\nAn image.\nSay `describe the picture .`\nTwo Photographs.") == ["A picture.", "Two Photographs."]
