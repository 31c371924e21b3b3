"""Concept level: whether directions found in texts change what the model says of images, as a steering job measured it."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from linrep.sharing.intervals import Measure

FROM_TEXT = "text_"
"""Begins the directions that were found in texts; the name of the same kind found in images follows."""
TURNED = "turned_by_"
"""Begins the measures' names."""
RANDOM = "random"
"""The control: a random direction of the same norm."""


def steered(effects: pa.Table) -> dict[int, tuple[Measure, ...]]:
    """Share of the answers turned to the target by each kind of direction found in texts, and by its like from images; by layer.

    One measure for each site and strength that the table has, none chosen among them. Its null is what the random direction does
    there at the same strength, with that one's interval.

    Args:
        effects: Of schema `schemas.steering.EFFECTS`.
    """
    rows = [row for row in effects.to_pylist() if row["edit"] == "add" and row["measure"] == "turned"]
    found: dict[int, tuple[Measure, ...]] = {}
    for cell in dict.fromkeys((row["layer"], row["site"], row["strength"]) for row in rows):
        here = {row["direction"]: row for row in rows if (row["layer"], row["site"], row["strength"]) == cell}
        found[cell[0]] = (*found.get(cell[0], ()), *_of_cell(here))
    return {layer: measures for layer, measures in found.items() if measures}


def _of_cell(here: dict[str, dict[str, Any]]) -> Iterator[Measure]:
    chance = here.get(RANDOM, {"value": None, "low": None, "high": None})
    for name in [name for name, row in here.items() if name.startswith(FROM_TEXT) and not row["control"]]:
        for direction in (name, name.removeprefix(FROM_TEXT)):
            if direction not in here:
                continue
            row = here[direction]
            low, high = (float("nan") if row[end] is None else row[end] for end in ("low", "high"))
            metric = f"{TURNED}{direction}_at_{row['site']}_{row['strength']:g}"
            null = chance["value"]
            halves = None if None in (row["half_one"], row["half_two"]) else (row["half_one"], row["half_two"])
            yield Measure(metric, row["value"], low, high, null, row["n"], halves, chance["low"], chance["high"])
