"""The reference of recipes and jobs holds every field and every option of the code."""

import re
from pathlib import Path

from documentation.recipe_page import job_pages, recipe_tables
from linrep.fields import settings
from linrep.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]


def rows(text: str) -> list[list[str]]:
    """The cells of the rows of all tables; a column of a cell's own is written with a backslash."""
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]


def test_every_field_of_a_recipe_has_a_row_of_four_cells() -> None:
    found = rows(recipe_tables())
    assert {len(row) for row in found} == {4}
    named = [row[0].strip(" `") for row in found]
    assert sorted(named) == sorted(one.path for one in settings(Recipe) if "." in one.path or one.path == "name")
    assert all(row[3].strip() for row in found)


def test_a_row_says_type_default_and_meaning() -> None:
    (row,) = [row for row in rows(recipe_tables()) if row[0] == " `probe.min_per_class` "]
    assert row[1:3] == [" integer ", " `5` "]
    assert row[3] == " Training samples that every class must have. "


def test_every_job_has_its_options_and_its_examples() -> None:
    text = job_pages()
    jobs = sorted(path.name for path in (ROOT / "jobs").glob("*.py"))
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == jobs
    parts = dict(zip(jobs, re.split(r"^## .+$", text, flags=re.MULTILINE)[1:], strict=True))
    assert all("`--workspace DIR`" in part and f"jobs/{job}" in part for job, part in parts.items())
    assert [job for job, part in parts.items() if "`--until STAGE`" in part] == ["reproduce.py"]
