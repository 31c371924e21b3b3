"""What steering from a class and to it does, by pair: at the edit with the best trade, beside the random direction there."""

from typing import Any

import numpy as np
import polars as pl

from linrep.explorer.site.results import Results
from linrep.explorer.steering import CELL, best_cell
from linrep.steer.effects import in_second_half
from linrep.steer.intervals import estimate

WHO = ["source", "target", "sample_id"]
RANDOM = "random"
DIGITS = 4


def steering_by_class(results: Results) -> dict[str, list[dict[str, Any]]]:
    """By class: of each judge's verdicts the edit that is shown, and what it does in each pair from the class or to it."""
    found: dict[str, list[dict[str, Any]]] = {}
    runs = {one.digest: one for one in results.artefacts["steer"]}
    for judged in results.artefacts["judge"]:
        steering = runs.get(judged.parents["steer"])
        best = best_cell(judged.table("effects")) if steering else None
        if steering is None or best is None:
            continue
        pairs = of_pairs(steering.frame("cells"), judged.frame("verdicts"), best)
        edit = {name: best[name] for name in CELL}
        for name in dict.fromkeys(name for pair in pairs for name in (pair["source"], pair["target"])):
            own = [pair for pair in pairs if name in (pair["source"], pair["target"])]
            said = {"name": steering.name, "key": results.key(steering), "judge": judged.manifest.name}
            found.setdefault(name, []).append(said | {"edit": edit, "pairs": own})
    return found


def of_pairs(cells: pl.DataFrame, verdicts: pl.DataFrame, cell: dict[str, Any]) -> list[dict[str, Any]]:
    """What an addition does in each pair of classes.

    Args:
        cells: Rows of the `CELLS` contract.
        verdicts: Rows of the `VERDICTS` contract.
        cell: Site, layer, direction and strength of the addition.

    Returns:
        By pair: `chosen`, whether its source is of the half that edits are chosen by (None where there is one source alone);
        for the edit `edit` and for the random direction `random` the probability `p` of the target in the forced choice and the
        share `turned` of the answers about the class, each as [mean, low, high, samples]; `before`, that probability without an
        edit; and an answer `plain` and after it `text`, of a sample that was turned where there is one.
    """
    classes = {name: i for i, name in enumerate(sorted({*cells["source"], *cells["target"]}))}
    samples = {name: i for i, name in enumerate(sorted(set(cells["sample_id"])))}
    sources = np.unique([classes[name] for name in cells["source"]])
    second = in_second_half(sources, np.zeros(len(sources), np.int64)).to_list()
    chosen = {int(own): None if len(sources) == 1 else not half for own, half in zip(sources, second, strict=True)}
    about = verdicts.filter((pl.col("about") == "class") & pl.col("score").is_not_null())
    named = about.filter((pl.col("edit") == "none") & (pl.col("score") == -1)).select([*WHO, "question"])
    about = about.join(named, on=[*WHO, "question"], how="semi", maintain_order="left")

    def mean(rows: pl.DataFrame, value: pl.Expr, share: bool) -> list[float | None] | None:
        known = rows.with_columns(value=value.cast(pl.Float64)).drop_nulls("value")
        numbered = [np.array([of[name] for name in known[column]], np.int64)
                    for column, of in (("source", classes), ("target", classes), ("sample_id", samples))]  # fmt: skip
        one = estimate(numbered[0], numbered[1], numbered[2], known["value"].to_numpy(), "share" if share else "bounded")
        numbers = [None if v != v else round(v, DIGITS) for v in (one.value, one.low, one.high)]
        return [*numbers, one.n] if one.n else None

    found = []
    for (source, target), own in cells.group_by(["source", "target"], maintain_order=True):
        of_pair = (pl.col("source") == source) & (pl.col("target") == target)
        answers = about.filter(of_pair)
        pair: dict[str, Any] = {"source": source, "target": target, "chosen": chosen[classes[str(source)]]}
        pair["before"] = mean(own.filter(pl.col("edit") == "none"), pl.col("p_target"), share=False)
        for name, direction in (("edit", cell["direction"]), ("random", RANDOM)):
            here = _at(cell | {"direction": direction})
            pair[name] = {
                "p": mean(own.filter(here), pl.col("p_target"), share=False),
                "turned": mean(answers.filter(here), pl.col("score") == 1, share=True),
            }
        shown = answers.filter(_at(cell)).drop_nulls(["plain", "text"]).sort("score", descending=True, maintain_order=True)
        pair |= {name: shown[name][0] if len(shown) else None for name in ("plain", "text")}
        found.append(pair)
    return found


def _at(cell: dict[str, Any]) -> pl.Expr:
    return (pl.col("edit") == "add") & pl.all_horizontal(pl.col(name) == cell[name] for name in CELL)
