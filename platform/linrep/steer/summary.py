"""A steering job in a page of text: the strongest effect of every direction at every layer, with its control beside it."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from linrep.stats.interval import in_brackets
from linrep.steer.artefact import Steering
from linrep.steer.config import DONORS, INTERCHANGE
from linrep.steer.judges.readable import Readable

Row = dict[str, Any]


def summary(
    steering: Steering,
    cells: pa.Table,
    effects: pa.Table,
    matched: pa.Table,
    extra: dict[str, Any],
    read: Readable | None = None,
) -> list[str]:
    """What came out, for reading.

    Args:
        steering: The edited runs.
        cells: Of schema `CELLS`.
        effects: Of schema `EFFECTS`.
        matched: Of schema `MATCHED`.
        extra: What else the judge says.
        read: How the judge reads the unedited answers; it decides the measure of the tables.
    """
    rows = effects.to_pylist()
    measure, why = measure_of(rows, read)
    about, counts = steering.about, steering.about.counts
    lines = [
        f"Steering {steering.name}",
        f"  pairs    {len(about.pairs)}: {', '.join(' to '.join(pair) for pair in about.pairs[:6])}"
        + (" ..." if len(about.pairs) > 6 else ""),
        f"  runs     {counts['n_done']:,} done, {counts['n_failed']:,} failed; {counts['n_tokens']:,} tokens",
        f"  damage   {about.damage_texts}",
        f"  measure  {why}",
        *(f"  judge    {line}" for line in ([] if read is None else read.lines())),
        *(f"  note     {note}" for note in steering.manifest.notes),
        *_sinks(cells),
    ]
    for site in dict.fromkeys(row["site"] for row in rows if row["site"] is not None):
        lines += ["", *_site(site, [row for row in rows if row["site"] == site], measure)]
    exchanged = [row for row in rows if row["edit"] == INTERCHANGE]
    if exchanged:
        lines += ["", *_exchanged(exchanged)]
    erased = [row for row in rows if row["edit"] == "erase"]
    if erased:
        lines += ["", *_erased(erased)]
    others = [row for row in rows if row["edit"] not in ("none", "add", "erase", INTERCHANGE)]
    if others:
        lines += ["", *_others(others)]
    if len(matched):
        lines += ["", *_matched(matched.to_pylist())]
    for name, value in extra.items():
        lines += ["", f"{name}: {', '.join(f'{k} {v}' for k, v in value.items())}"]
    return lines


def _sinks(cells: pa.Table) -> list[str]:
    """How many positions the edits left alone for their norm, by site."""
    runs = cells.filter(pc.field("layer").is_valid() & pc.field("n_high_norm").is_valid())
    by_site = runs.group_by("site", use_threads=False).aggregate([("n_high_norm", "sum"), ("n_high_norm", "count")]).to_pylist()
    return [
        f"  sinks    edits at {row['site']} left {row['n_high_norm_sum']:,} positions of high norm alone in "
        f"{row['n_high_norm_count']:,} runs"
        for row in by_site
        if row["n_high_norm_sum"]
    ]


def measure_of(rows: Sequence[Row], read: Readable | None) -> tuple[str, str]:
    """The measure by which the tables choose and are headed, the same for all sites, and why that one."""
    if read is not None and read.judge == "forced":
        return "p_target", "probability of the target in the forced choice, as the judge is forced"
    if any(row["measure"] == "success" for row in rows):
        return (
            "success",
            "share of answers turned to the target with every other attribute kept, of images whose unedited answer names the "
            "source",
        )
    if any(row["measure"] == "turned" for row in rows):
        return "turned", "share of answers turned to the target, of images whose unedited answer names the source"
    reason = (
        "there are no verdicts" if read is None or not read.judged else f"none of {read.n:,} unedited answers names its class"
    )
    return (
        "p_target",
        f"CHANGED to the probability of the target in the forced choice: {reason}, so no share of answers turned exists",
    )


CHOSEN_BY = {
    "success": "share of answers turned to the target with every other attribute kept",
    "turned": "share of answers turned to the target",
    "p_target": "probability of the target",
}
"""What cells are chosen by, the first that was measured, in words."""


def _site(site: str, rows: Sequence[Row], measure: str) -> list[str]:
    """For each layer and direction its best dose by the measure.

    The dose is chosen on one half of the source classes, and everything in its line is from the other half: the best of several
    doses is good by luck where it was chosen.
    """
    adds = [row for row in rows if row["edit"] == "add"]
    if not adds:
        return [f"Adding directions at {site}: there is no result: the class means of each pair coincide, or every run failed"]
    lines = [
        f"Adding directions at {site}: strength chosen on one half of the source classes, numbers from the other half "
        + f"({CHOSEN_BY[measure]}, 95% interval; over random: minus the random direction in the same cell; "
        "kept: share of all images that keep every other attribute; * marks controls)",
        f"  {'layer':>5}  {'direction':16} {'strength':>8}  {measure:^20}  {'over random':^22}"
        f"  {'turned':>6} {'p(target)':>9} {'coherent':>8} {'kept':>6} {'damage':>7}",
    ]
    for layer in sorted({row["layer"] for row in adds}):
        here = [row for row in adds if row["layer"] == layer]
        for direction in dict.fromkeys(row["direction"] for row in here):
            doses = [row for row in here if row["direction"] == direction and row["measure"] == measure]
            if not doses:
                continue
            # Without a half to choose on, the largest strength: no choice at all.
            best = max(doses, key=lambda row: (row["half_one"] is not None, row["half_one"] or 0.0, row["strength"]))
            rows_of = [row for row in here if (row["direction"], row["strength"]) == (direction, best["strength"])]
            cell = {row["measure"]: row["half_two"] for row in rows_of}
            over = next((_with_interval(_second(row)) for row in rows_of if row["measure"] == f"{measure}_over_random"), "")
            star = "*" if best["control"] else " "
            lines.append(
                f"  {layer:>5} {star}{direction:16} {best['strength']:>8g}  {_with_interval(_second(best)):^20}  {over:^22}"
                f"  {_number(cell.get('turned')):>6} {_number(cell.get('p_target')):>9} {_number(cell.get('coherence')):>8}"
                f" {_number(cell.get('kept_all')):>6} {_number(cell.get('damage')):>7}"
            )
    return lines


def _second(row: Row) -> Row:
    """The same cell from the half on which nothing was chosen."""
    return {"value": row["half_two"], "low": row["half_two_low"], "high": row["half_two_high"]}


def _others(rows: Sequence[Row]) -> list[str]:
    lines = [
        "Other edits (* marks their controls)",
        f"  {'site':10} {'layer':>5}  {'edit':7} {'control':16} {'p(target)':>9} {'left':>6} {'turned':>7} {'coherent':>8}"
        f" {'damage':>7}",
    ]
    which = ("site", "layer", "edit", "direction")
    for key in dict.fromkeys(tuple(row[name] for name in which) for row in rows):
        here = [row for row in rows if tuple(row[name] for name in which) == key]
        cell = {row["measure"]: row["value"] for row in here}
        site, layer, edit, direction = key
        star = "*" if here[0]["control"] else " "
        lines.append(
            f"  {site:10} {layer:>5} {star}{edit:7} {direction or '':16} {_number(cell.get('p_target')):>9} "
            f"{_number(cell.get('left')):>6} {_number(cell.get('turned')):>7} {_number(cell.get('coherence')):>8} "
            f"{_number(cell.get('damage')):>7}"
        )
    return lines


def _exchanged(rows: Sequence[Row]) -> list[str]:
    """By layer what each donor turns, and texts beside other images."""
    lines = [
        "Interchange: the last token's stream taken from another run, share of answers turned to the donor's class (95% "
        "interval; text - image: paired by image; * the control, another image of the source class)",
        f"  {'layer':>5}" + "".join(f"  {name:^20}" for name in ("image", "text", "text_centred", "*same_class", "text - image")),
    ]
    for layer in sorted({row["layer"] for row in rows}):
        found = {(row["direction"], row["measure"]): row for row in rows if row["layer"] == layer}
        cells = [found.get((donor, "turned")) for donor in DONORS] + [found.get(("text", "turned_over_image"))]
        lines.append(f"  {layer:>5}" + "".join(f"  {'-' if row is None else _with_interval(row):^20}" for row in cells))
    return lines


def _erased(rows: Sequence[Row]) -> list[str]:
    """By subspace what an erasure leaves, and what it takes beyond random directions as loud as the data."""
    lines = [
        "Erasure: share of images whose answer no longer names their class, of those named without (95% interval; over "
        "covariance: minus random directions with the tokens' covariance, paired; all = as many as classes span; * controls)",
        f"  {'site':10} {'layer':>5}  {'subspace':16} {'rank':>4}  {'left':^20}  {'over covariance':^22}"
        f" {'kept':>6} {'damage':>7}",
    ]
    which = ("site", "layer", "direction", "strength")
    for key in dict.fromkeys(tuple(row[name] for name in which) for row in rows):
        cell = {row["measure"]: row for row in rows if tuple(row[name] for name in which) == key}
        if "left" in cell:
            site, layer, subspace, rank = key
            over = cell.get("left_over_covariance")
            kept, damage = (cell.get(name, {}).get("value") for name in ("kept_all", "damage"))
            star = "*" if cell["left"]["control"] else " "
            lines.append(
                f"  {site:10} {layer:>5} {star}{subspace:16} {'all' if rank is None else round(rank):>4}  "
                f"{_with_interval(cell['left']):^20}  {'' if over is None else _with_interval(over):^22} "
                f"{_number(kept):>6} {_number(damage):>7}"
            )
    return lines


def _matched(rows: Sequence[Row]) -> list[str]:
    level = rows[0]["damage"]
    lines = [f"Probability of the target at a damage of {level:g} nats a token (or less, where no strength reaches it: <)"]
    lines.append(f"  {'site':10} {'layer':>5}  {'direction':14} {'strength':>8}  p(target)")
    for row in rows:
        star = "*" if row["control"] else " "
        mark = " " if row["reached"] else "<"
        value = _with_interval({**row, "value": row["efficacy"]})
        lines.append(f"  {row['site']:10} {row['layer']:>5} {star}{row['direction']:14} {mark}{row['strength']:>7.3g}  {value}")
    return lines


def _with_interval(row: Row) -> str:
    return _number(row["value"]) + in_brackets(row["low"], row["high"], _number, otherwise="")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
