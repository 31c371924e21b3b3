"""The tables of the results' page: numbers with their intervals and controls, and where on the page they go."""

import polars as pl
import pytest

from documentation import results, where
from linrep.errors import StoreError


def test_a_number_has_its_interval_and_its_control():
    row = {"value": 0.5, "low": 0.4, "high": 0.625, "control": 0.1, "top1": 0.25, "top1_low": None, "top1_high": None}
    assert results.shown(row, control="control") == "0.50 [0.40, 0.62] (0.10)"
    assert results.shown(row, "top1") == "0.25"
    assert results.shown(None) == results.shown({**row, "value": None}) == "–"


def test_one_row_or_none_never_one_of_several():
    frame = pl.DataFrame({"layer": [1, 2, 2], "sae": [None, "a", "a"], "value": [0.1, 0.2, 0.3]})
    found = results.one(frame, layer=1, sae=None)
    assert found is not None
    assert found["value"] == 0.1
    assert results.one(frame, layer=3) is None
    with pytest.raises(StoreError, match="2 rows"):
        results.one(frame, layer=2, sae="a")


def test_every_mark_of_the_page_has_its_table_and_nothing_else_is_touched(tmp_path, monkeypatch):
    page = tmp_path / "results.md"
    page.write_text(results.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(results, "TABLES", {name: lambda *_, name=name: f"| new {name} |" for name in results.TABLES})
    monkeypatch.setattr(where, "where_table", lambda *_: "| new where |")
    results.main("runs", page=page)
    text, before = page.read_text(encoding="utf-8"), results.PAGE.read_text(encoding="utf-8")
    marks = [line for line in before.splitlines() if line.startswith("<!-- results: ") and line != results.END]
    assert len(marks) == before.count(results.END) == len(results.TABLES) + 1
    for name in [*results.TABLES, "where"]:
        assert f"{results.MARK.format(name)}\n| new {name} |\n{results.END}\n" in text

    def prose(page: str) -> list[str]:
        return [line for line in page.splitlines() if not line.startswith("|")]

    assert prose(text) == prose(before)
