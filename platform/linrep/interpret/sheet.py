"""Explanations as a CSV that people edit: out of a finished run, and back into a new one that scores them anew."""

import re
from collections.abc import Collection
from typing import NamedTuple

import polars as pl

from linrep.errors import RecipeError
from linrep.interpret.backends import Interpreter
from linrep.interpret.views import Latent
from linrep.places import Place
from linrep.sheets import read_csv, write_csv

COLUMNS = ("layer", "sae", "latent", "explanation")
SCORES = ("detection_image", "detection_text", "fuzzing_image", "fuzzing_text")
_WHOLE = re.compile(r"(\d{1,9})(?:[.,]0+)?")


def write_sheet(file: Place, explanations: pl.DataFrame, scores: pl.DataFrame) -> None:
    """Write the explanations, with their scores beside them to see where editing is worth it; only the first four columns count.

    Args:
        file: The CSV.
        explanations: Rows of the `EXPLANATIONS` contract.
        scores: Rows of the `SCORES` contract.
    """
    own = {
        (r["layer"], r["sae"], r["latent"], f"{r['task']}_{r['modality']}"): r["value"]
        for r in scores.filter(pl.col("control") == "own").iter_rows(named=True)
    }
    rows = []
    for row in explanations.iter_rows(named=True):
        key = (row["layer"], row["sae"], row["latent"])
        values = [own.get((*key, name)) for name in SCORES]
        rows.append([*key, row["explanation"] or "", row["source"], *(None if v is None else round(v, 3) for v in values)])
    write_csv(file, [*COLUMNS, "source", *SCORES], rows)


class Edited(NamedTuple):
    """A sheet as it came back.

    Attributes:
        texts: Explanations by latent.
        refused: A line for each row that cannot be read.
    """

    texts: dict[Latent, str]
    refused: list[str]


def read_edited(file: Place) -> Edited:
    """Explanations by latent; rows without one are left out, and a damaged row is refused by its line and costs no other.

    Raises:
        RecipeError: The file is no such sheet, or no row of it can be read.
    """
    try:
        table = read_csv(file, COLUMNS)
    except RecipeError as error:
        raise RecipeError(f"interpret.edited: {error}") from None
    refused = list(table.damaged)
    found: dict[Latent, tuple[int, str]] = {}
    contested: set[Latent] = set()
    for row in table.rows:
        numbers = [_WHOLE.fullmatch(row.cells[name].strip()) for name in ("layer", "latent")]
        if numbers[0] is None or numbers[1] is None:
            refused.append(f"line {row.line}: layer and latent should be numbers")
            continue
        latent = Latent(int(numbers[0][1]), row.cells["sae"].strip(), int(numbers[1][1]))
        text = " ".join(row.cells["explanation"].split())
        if latent in found and found[latent][1] != text:
            twice = f"latent {latent.number} of {latent.sae} stands twice, and not alike, see line {found[latent][0]}"
            refused.append(f"line {row.line}: {twice}")
            contested.add(latent)
        found.setdefault(latent, (row.line, text))
    texts = {latent: text for latent, (_, text) in found.items() if latent not in contested}
    if refused and not texts:
        raise RecipeError(f"interpret.edited: {file} {refused[0]}" + (f"; and {len(refused) - 1} more" if refused[1:] else ""))
    return Edited({latent: text for latent, text in texts.items() if text}, refused)


def read_sheet(file: Place) -> dict[Latent, str]:
    """The explanations of `read_edited`, which also says what is refused.

    Raises:
        RecipeError: As there.
    """
    return read_edited(file).texts


def check_sheet(file: Place, edited: dict[Latent, str], known: Collection[Latent], interpreter: Interpreter) -> None:
    """Refuse explanations of latents that are not asked about, and those that the backend cannot judge by.

    Raises:
        RecipeError: Names the latent and what is wrong.
    """
    there = set(known)
    for latent, text in edited.items():
        where = f"interpret.edited: {file}: latent {latent.number} of {latent.sae}, layer {latent.layer}"
        if latent not in there:
            raise RecipeError(f"{where}, is not among those of this recipe")
        why = interpreter.refuse(text)
        if why is not None:
            raise RecipeError(f"{where}: {why}")
