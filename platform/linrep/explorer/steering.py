"""What a steering job found in sentences, with the answers that show it."""

from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from linrep.stats.interval import in_brackets

Row = dict[str, Any]
CELL = ("site", "layer", "direction", "strength")
WORDS = {
    "success": "of the answers turned to the target with every other attribute kept",
    "turned": "of the answers turned to the target",
    "p_target": "probability of the target",
}
"""What edits are chosen by, the first that was measured, in words."""
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
    """The addition with most successes by one half of the source classes; None without halves.

    Where nothing but the class was asked it is the one that turns most answers, and without verdicts the one under which the
    target is likeliest. Of equals the weakest is taken.

    Args:
        effects: Rows of the `EFFECTS` contract.
    """
    frame = _adds(effects).filter(~pl.col("control"))
    for measure in WORDS:
        scored = frame.filter(pl.col("measure") == measure).drop_nulls(["half_one", "half_two"])
        if len(scored):
            return scored.sort("half_one", -pl.col("strength"), descending=True, maintain_order=True).row(0, named=True)
    return None


def steer_headline(effects: pa.Table, verdicts: pa.Table) -> list[str]:
    """The edit with most successes, beside the random direction at the same place.

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
    parts = [f"{_half(best)} {WORDS[best['measure']]}"]
    over, turned, damage = (cell.get(name) for name in (f"{best['measure']}_over_random", "turned", "damage"))
    if over is not None and over["half_two"] is not None:
        parts.append(f"{_half(over)} above a random direction there")
    if turned is not None and turned["half_two"] is not None and best["measure"] != "turned":
        parts.append(f"{turned['half_two']:.2f} turned in all")
    if damage is not None and damage["half_two"] is not None:
        parts.append(f"damage {damage['half_two']:.2f} nats a token")
    random = _adds(effects).filter(
        pl.col("direction") == "random", *(pl.col(name) == best[name] for name in ("site", "layer", "strength", "measure"))
    )
    if len(random):
        parts.append(f"a random direction there {_half(random.row(0, named=True))}")
    sentences = [f"Best trade: {where}: {', '.join(parts)} (chosen on one half of the source classes, reported on the other)."]
    examples = steer_examples(verdicts, best, 1)
    return sentences + [f"For example {line}." for line in examples] + interchange_sentence(effects)


def interchange_sentence(effects: pa.Table) -> list[str]:
    """What the last token's stream of a text turns, layer by layer, beside another image's; nothing without interchanges.

    Args:
        effects: Rows of the `EFFECTS` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(effects)).filter((pl.col("edit") == "interchange") & (pl.col("measure") == "turned"))
    rows = {
        donor: dict(frame.filter(pl.col("direction") == donor).sort("layer").select(["layer", "value"]).iter_rows())
        for donor in ("text", "image", "same_class")
    }
    layers = [layer for layer in rows["text"] if layer in rows["image"]]
    if not layers:
        return []
    text, image = (", ".join(f"{rows[donor][layer]:.2f}" for layer in layers) for donor in ("text", "image"))
    same = max(rows["same_class"].values(), default=0.0)
    return [
        f"The last token's stream, taken from a text, turns {text} of the answers at layer{'s' if layers[1:] else ''} "
        f"{', '.join(map(str, layers))}; "
        f"taken from another image {image}; from one of the image's own class at most {same:.2f}."
    ]


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
