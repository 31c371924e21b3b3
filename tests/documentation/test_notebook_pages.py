"""A notebook's page shows its cells, and its outputs where they are of these cells; nothing in it runs."""

import base64
import json
from pathlib import Path
from typing import Any

from documentation.notebooks import NOT_RUN, page, pages, with_fragments

PNG = b"\x89PNG not really"


def cell(kind: str, source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": kind, "source": source.splitlines(keepends=True), "metadata": {}, "outputs": list(outputs)}


def shown(**data: str) -> dict[str, Any]:
    return {
        "output_type": "display_data",
        "metadata": {},
        "data": {name.replace("_", "/"): value for name, value in data.items()},
    }


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": list(cells)}


def write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def test_outputs_are_shown_in_their_richest_form_that_runs_nothing() -> None:
    made = page(
        "one",
        notebook(
            cell("markdown", "# Look at activations\n\nWords."),
            cell("code", "x", {"output_type": "stream", "name": "stdout", "text": "said\n"}),
            cell("code", "y", shown(text_html="<b>bold</b>", text_plain="plain y")),
            cell("code", "z", shown(text_html="<img src=x onerror=alert(1)>", text_plain="plain z")),
            cell("code", "s", shown(text_html="<SCRIPT>alert(1)</SCRIPT>", text_plain="plain s")),
            cell("code", "i", shown(image_png=base64.b64encode(PNG).decode(), text_plain="<Figure>")),
            cell("code", "e", {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["\x1b[31mwrong\x1b[0m"]}),
        ),
        was_run=True,
    )
    assert made.title == "Look at activations"
    assert "```text\nsaid\n```" in made.markdown
    assert "```text\nwrong\n```" in made.markdown
    assert list(made.fragments.values()) == ['<div class="notebook-output"><b>bold</b></div>']
    assert "plain z" in made.markdown
    assert "plain s" in made.markdown
    assert "alert" not in made.markdown
    assert list(made.files.values()) == [PNG]
    (name,) = made.files
    assert f"![output]({name})" in made.markdown
    (mark,) = made.fragments
    assert with_fragments(f"<p>a</p><p>{mark}</p>", made.fragments) == '<p>a</p><div class="notebook-output"><b>bold</b></div>'


def test_a_block_of_code_holds_fences_of_its_own() -> None:
    made = page("one", notebook(cell("code", 'print("```")')), was_run=False)
    assert '````python\nprint("```")\n````' in made.markdown


def test_outputs_are_those_of_the_cells_or_none(tmp_path: Path) -> None:
    said = {"output_type": "stream", "name": "stdout", "text": "said"}
    write(tmp_path / "git" / "01_a.ipynb", notebook(cell("code", "a")))
    write(tmp_path / "git" / "02_b.ipynb", notebook(cell("code", "b")))
    write(tmp_path / "ran" / "01_a.ipynb", notebook(cell("code", "a", said)))
    write(tmp_path / "ran" / "02_b.ipynb", notebook(cell("code", "b, as it was", said)))
    same, changed = pages(tmp_path / "git", tmp_path / "ran")
    assert "said" in same.markdown
    assert NOT_RUN not in same.markdown
    assert "said" not in changed.markdown
    assert "as it was" not in changed.markdown
    assert NOT_RUN in changed.markdown


def test_a_folder_without_notebooks_gives_no_pages(tmp_path: Path) -> None:
    assert pages(tmp_path / "none", tmp_path) == []
