"""Explanations as a CSV that people edit: out of a finished run, and back into a new one that scores them anew."""

import csv
import io
from collections.abc import Collection

import polars as pl

from linrep.errors import RecipeError
from linrep.interpret.backends import Interpreter
from linrep.interpret.views import Latent
from linrep.places import Place

COLUMNS = ("layer", "dictionary", "latent", "explanation")
SCORES = ("detection_image", "detection_text", "fuzzing_image", "fuzzing_text")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes what begins so for a formula."""


def write_sheet(file: Place, explanations: pl.DataFrame, scores: pl.DataFrame) -> None:
    """Write the explanations, with their scores beside them to see where editing is worth it; only the first four columns count.

    Args:
        file: The CSV.
        explanations: Rows of the `EXPLANATIONS` contract.
        scores: Rows of the `SCORES` contract.
    """
    own = {
        (r["layer"], r["dictionary"], r["latent"], f"{r['task']}_{r['modality']}"): r["value"]
        for r in scores.filter(pl.col("control") == "own").iter_rows(named=True)
    }
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, "source", *SCORES])
    for row in explanations.iter_rows(named=True):
        key = (row["layer"], row["dictionary"], row["latent"])
        values = [own.get((*key, name)) for name in SCORES]
        writer.writerow(
            [*key, _safe(row["explanation"] or ""), row["source"], *("" if v is None else f"{v:.3f}" for v in values)]
        )
    file.write_bytes(out.getvalue().encode())


def read_sheet(file: Place) -> dict[Latent, str]:
    """Explanations by latent; rows without one are left out.

    Raises:
        RecipeError: The file is no such sheet, or a row is wrong; the line is named.
    """
    try:
        reader = csv.DictReader(io.StringIO(file.read_bytes().decode("utf-8-sig")), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(f"interpret.edited: cannot read {file}: {error}") from None
    if not rows or any(name not in rows[0][1] for name in COLUMNS):
        raise RecipeError(f"interpret.edited: {file} is no sheet: it should have the columns {', '.join(COLUMNS)}")
    found: dict[Latent, str] = {}
    for line, row in rows:
        try:
            latent = Latent(int(row["layer"]), str(row["dictionary"]), int(row["latent"]))
        except (TypeError, ValueError):
            raise RecipeError(f"interpret.edited: {file} line {line}: layer and latent should be numbers") from None
        if latent in found:
            raise RecipeError(f"interpret.edited: {file} line {line}: latent {latent.number} of {latent.dictionary} stands twice")
        text = _plain(" ".join((row["explanation"] or "").split()))
        if text:
            found[latent] = text
    return found


def check_sheet(file: Place, edited: dict[Latent, str], known: Collection[Latent], interpreter: Interpreter) -> None:
    """Refuse explanations of latents that are not asked about, and those that the backend cannot judge by.

    Raises:
        RecipeError: Names the latent and what is wrong.
    """
    there = set(known)
    for latent, text in edited.items():
        where = f"interpret.edited: {file}: latent {latent.number} of {latent.dictionary}, layer {latent.layer}"
        if latent not in there:
            raise RecipeError(f"{where}, is not among those of this recipe")
        why = interpreter.refuse(text)
        if why is not None:
            raise RecipeError(f"{where}: {why}")


def _safe(text: str) -> str:
    return f"'{text}" if text[:1] in FORMULA else text


def _plain(text: str) -> str:
    return text[1:] if text[:1] == "'" and text[1:2] in FORMULA else text
