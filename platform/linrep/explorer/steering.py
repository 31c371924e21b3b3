"""What a steering job found in sentences, with the answers that show it."""

from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from linrep.stats.interval import in_brackets

Row = dict[str, Any]
CELL = ("site", "layer", "direction", "strength")
SITES = {"image": "image tokens", "patches": "image patches", "last": "the last token", "everywhere": "all tokens"}


@dataclass(frozen=True)
class TurnedAnswer:
    """An answer before and after an edit.

    Attributes:
        before: The unedited model's.
        after: The edited model's.
        source: Class of the image.
        target: Class that the edit leads to.
        sample: Name of the image.
    """

    before: str
    after: str
    source: str
    target: str
    sample: str

    def __str__(self) -> str:
        return f'"{self.before}" became "{self.after}" ({self.source} to {self.target}, {self.sample})'


def best_cell(effects: pa.Table) -> Row | None:
    """The addition that turns most answers and keeps the rest of them, by one half of the source classes; None without halves.

    Args:
        effects: Rows of the `EFFECTS` contract.
    """
    frame = _adds(effects).filter(~pl.col("control"))
    turned = frame.filter(pl.col("measure") == "turned").drop_nulls(["half_one", "half_two"])
    if not len(turned):
        turned = frame.filter(pl.col("measure") == "p_target").drop_nulls(["half_one", "half_two"])
    kept = frame.filter(pl.col("measure") == "turned_kept_all").select(*CELL, kept_one="half_one")
    scored = turned.join(kept, on=CELL, how="left").with_columns(
        score=pl.col("half_one") * pl.col("kept_one").fill_null(1.0), weak=-pl.col("strength")
    )
    ranked = scored.sort(["score", "weak"], descending=True, nulls_last=True, maintain_order=True)
    return ranked.row(0, named=True) if len(ranked) else None


def steer_headline(effects: pa.Table, verdicts: pa.Table) -> list[str]:
    """The edit with the best trade between answers turned and what is kept, beside the random direction at the same place.

    It is chosen on one half of the source classes; every number is from the other half.

    Args:
        effects: Rows of the `EFFECTS` contract.
        verdicts: Rows of the `VERDICTS` contract.
    """
    best = best_cell(effects)
    if best is None:
        return [
            "No edit could be chosen on one half of the source classes and reported on the other: summary.txt has all numbers."
        ]
    cell = {row["measure"]: row for row in _adds(effects).filter(_is(best)).iter_rows(named=True)}
    direction = best["direction"].replace("_", " ")
    where = f"{SITES.get(best['site'], best['site'])}, layer {best['layer']}, {direction} x{best['strength']:g}"
    what = "of the answers turned to the target" if best["measure"] == "turned" else "probability of the target"
    parts = [f"{_half(best)} {what}"]
    kept, damage = cell.get("turned_kept_all"), cell.get("damage")
    if kept is not None and kept["half_two"] is not None:
        parts.append(f"{kept['half_two']:.2f} of these keep every other attribute")
    if damage is not None and damage["half_two"] is not None:
        parts.append(f"damage {damage['half_two']:.2f} nats a token")
    random = _adds(effects).filter(
        pl.col("direction") == "random", *(pl.col(name) == best[name] for name in ("site", "layer", "strength", "measure"))
    )
    if len(random):
        parts.append(f"a random direction there {_half(random.row(0, named=True))}")
    sentences = [f"Best trade: {where}: {', '.join(parts)} (chosen on one half of the source classes, reported on the other)."]
    examples = steer_examples(verdicts, best, 1)
    return sentences + [f"For example {line}." for line in examples]


def steer_examples(verdicts: pa.Table, cell: Row, n: int = 5) -> list[TurnedAnswer]:
    """Answers before and after an edit, of different source classes.

    Args:
        verdicts: Rows of the `VERDICTS` contract.
        cell: Site, layer, direction and strength of the edit.
        n: How many, at most.
    """
    frame = pl.DataFrame(pl.from_arrow(verdicts))
    rows = frame.filter(_is(cell), pl.col("edit") == "add", pl.col("about") == "class").drop_nulls(["plain", "text"])
    rows = rows.filter(pl.col("score") == 1) if (rows["score"] == 1).any() else rows
    each = rows.unique("source", keep="first", maintain_order=True).head(n)
    return [
        TurnedAnswer(row["plain"].strip(), row["text"].strip(), row["source"], row["target"], row["sample_id"])
        for row in each.iter_rows(named=True)
    ]


def _adds(effects: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(effects)).filter(pl.col("edit") == "add")


def _is(cell: Row) -> pl.Expr:
    return pl.all_horizontal(pl.col(name) == cell[name] for name in CELL)


def _half(row: Row) -> str:
    low, high, value = row["half_two_low"], row["half_two_high"], row["half_two"]
    return "?" if value is None else f"{value:.2f}{in_brackets(low, high, '{:.2f}'.format)}"
