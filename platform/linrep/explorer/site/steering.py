"""Steering on the site: every answer before and after an edit, what judges say of it, and what it comes to over all pairs.

Answers stand in one shard for each pair, image, site and question, so that a page loads what it shows, however many runs
there are. Effects stand in one for each judge, site and measure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from linrep.artefact import Artefact
from linrep.explorer.dose import lens_curves
from linrep.explorer.figures import Curve
from linrep.explorer.site.pictures import Pictures
from linrep.explorer.site.results import Results, headline
from linrep.explorer.site.shards import Site, numbers, words
from linrep.explorer.steering import CELL, best_cell
from linrep.steer.artefact import SteerAbout
from linrep.steer.config import CONTROLS

CHARACTERS = (40, 400)
"""Least and most characters of an answer that are shown; the table of answers has all."""
ROOM = 250_000
"""Characters that the answers of a shard share, so that no page is large."""
NONE = 255
"""Stands for no direction, no strength, no verdict."""
WHO = ["source", "target", "sample_id"]
WHICH = ["site", "layer", "edit", "direction", "strength"]
UNITS = {True: "of each token's own norm", False: "of the pair's mean difference"}


def write_steering(site: Site, results: Results, pictures: Mapping[str, Pictures]) -> None:
    """Write the shards of all steering results.

    Args:
        site: The site.
        results: The workspace's results.
        pictures: By digest of the harvest; a result whose harvest is gone does without.
    """
    for runs in results.artefacts["steer"]:
        judged = results.inner(runs, "judge")
        _write_runs(site, results.key(runs), runs, judged, pictures.get(runs.parents["harvest"]))


def _write_runs(
    site: Site, key: str, runs: Artefact[SteerAbout], judged: Sequence[Artefact[Any]], pictures: Pictures | None
) -> None:
    cells, answers, lens = (runs.frame(name) for name in ("cells", "answers", "lens"))
    verdicts = [one.frame("verdicts") for one in judged]
    known = _known(runs, cells)
    pairs = _samples(runs, cells)
    of_cells, of_answers, *of_verdicts = (_by_run(table) for table in (cells, answers, *verdicts))
    for i, (source, target, samples) in enumerate(pairs):
        seen = {} if pictures is None else pictures.draw(samples)
        site.shard(
            f"{key}/pair-{i}",
            {"samples": [{"name": s, "picture": _shown(seen.get(s)), "lens": _lens_of(lens, s)} for s in samples]},
        )
        for j, sample in enumerate(samples):
            who = (source, target, sample)
            own = of_cells[who]
            asked = of_answers.get(who, answers.clear())
            said = [table.get(who, empty.clear()) for table, empty in zip(of_verdicts, verdicts, strict=True)]
            for q in range(len(known["questions"])):
                mine = pl.col("question") == q
                rows = _joined(own, asked.filter(mine), [table.filter(mine) for table in said])
                for where in known["sites"]:
                    site.shard(f"{key}/{i}/{j}/{where}-{q}", answer_shard(rows, where, known, len(judged)))
    judges = [
        _write_judge(site, f"{key}/judge-{n}", one, verdicts[n], known, pairs) for n, one in enumerate(judged)
    ]  # fmt: skip
    curves = lens_curves(runs.table("lens")) if len(lens) else ()
    site.shard(
        key,
        {
            **known,
            "pairs": [{"source": source, "target": target, "samples": len(samples)} for source, target, samples in pairs],
            "judges": judges,
            "lens": [curve_of(one) for one in curves],
            "classes": int(lens["n_classes"][0]) if len(lens) else None,
            "counts": runs.about.counts,
            "damage_texts": runs.about.damage_texts,
        },
    )


def _known(runs: Artefact[SteerAbout], cells: pl.DataFrame) -> dict[str, Any]:
    """What the runs vary in, in the order of the recipe."""
    config = runs.manifest.config
    ask = config["ask"]
    added = cells.filter(pl.col("edit") == "add")
    directions = [*config["directions"], *cells["direction"].drop_nulls().unique(maintain_order=True)]
    return {
        "sites": cells["site"].drop_nulls().unique(maintain_order=True).to_list(),
        "layers": sorted(cells["layer"].drop_nulls().unique().to_list()),
        "strengths": sorted(added["strength"].drop_nulls().unique().to_list()),
        "unit": UNITS[bool(config["dose"]["relative"])],
        "directions": [{"name": name, "control": name in CONTROLS} for name in dict.fromkeys(directions)],
        "edits": cells["edit"].unique(maintain_order=True).to_list(),
        "questions": ask["questions"],
        "choice": ask["choice"],
    }


def _samples(runs: Artefact[SteerAbout], cells: pl.DataFrame) -> list[tuple[str, str, list[str]]]:
    """Source, target and samples of each pair that has runs."""
    each = cells.group_by(["source", "target"], maintain_order=True).agg(pl.col("sample_id").unique(maintain_order=True))
    by_pair = {(source, target): samples for source, target, samples in each.iter_rows()}
    planned = [(source, target) for source, target in runs.about.pairs]
    return [(*pair, by_pair[pair]) for pair in planned if pair in by_pair]


def _by_run(table: pl.DataFrame) -> dict[Any, pl.DataFrame]:
    return dict(table.group_by(WHO, maintain_order=True))


def _joined(cells: pl.DataFrame, answers: pl.DataFrame, verdicts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The cells of a sample with the answers to a question, and the verdicts of judge n in columns that end in _n."""
    rows = cells.select(*WHICH, "p_target", "n_high_norm", "error")
    rows = _beside(rows, answers.select(*WHICH, "text", why="error"))
    for n, table in enumerate(verdicts):
        named = {f"{name}_{n}": name for name in ("score", "coherence", "kept", "error")}
        rows = _beside(rows, table.select(*WHICH, **{new: pl.col(old) for new, old in named.items()}))
    return rows.with_columns(error=pl.coalesce("error", "why")).drop("why")


def _beside(rows: pl.DataFrame, more: pl.DataFrame) -> pl.DataFrame:
    return rows.join(more, on=WHICH, how="left", nulls_equal=True, maintain_order="left")


def answer_shard(rows: pl.DataFrame, where: str, known: Mapping[str, Any], n_judges: int) -> dict[str, Any]:
    """The answers of a sample to a question under the edits at a site, a column each thing; and the unedited one.

    Args:
        rows: As `_joined` gives them.
        where: The site.
        known: What the runs vary in: columns hold numbers in these lists.
        n_judges: Judges whose verdicts stand in the rows.
    """
    plain = rows.filter(pl.col("edit") == "none").to_dicts()
    own = rows.filter(pl.col("site") == where)
    directions = [one["name"] for one in known["directions"]]
    most = min(max(ROOM // max(1, len(own)), CHARACTERS[0]), CHARACTERS[1])
    return {
        "n": len(own),
        "layer": numbers(own["layer"].cast(pl.Int16).to_numpy()),
        "edit": numbers(_places(own["edit"], known["edits"])),
        "direction": numbers(_places(own["direction"], directions)),
        "strength": numbers(_places(own["strength"], known["strengths"])),
        "p_target": _reals(own["p_target"]),
        "left_alone": numbers(own["n_high_norm"].fill_null(0).cast(pl.Int32).to_numpy()),
        "text": words([_short(text, most) for text in own["text"]]),
        "error": words(own["error"].to_list()),
        "judged": [
            {
                "score": _reals(own[f"score_{n}"]),
                "coherence": _reals(own[f"coherence_{n}"]),
                "kept": numbers(_flags(own[f"kept_{n}"])),
                "error": words(own[f"error_{n}"].to_list()),
            }
            for n in range(n_judges)
        ],
        "plain": None
        if not plain
        else {
            "text": _short(plain[0]["text"], CHARACTERS[1]),
            "p_target": plain[0]["p_target"],
            "error": plain[0]["error"],
            "judged": [{name: plain[0][f"{name}_{n}"] for name in ("score", "coherence")} for n in range(n_judges)],
        },
    }


def _short(text: str | None, most: int) -> str | None:
    return text if text is None or len(text) <= most else text[:most] + "…"


def _places(values: pl.Series, known: Sequence[Any]) -> np.ndarray:
    place = {value: i for i, value in enumerate(known)}
    return np.array([place.get(value, NONE) for value in values], np.uint8)


def _flags(values: pl.Series) -> np.ndarray:
    return np.array([NONE if value is None else int(value) for value in values], np.uint8)


def _reals(values: pl.Series) -> dict[str, str]:
    return numbers(values.cast(pl.Float32).fill_null(float("nan")).to_numpy())


def _shown(picture: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What shows an image; where its patches lie is of no use here."""
    return None if picture is None else {key: picture[key] for key in ("file", "name", "label", "width", "height")}


def _lens_of(lens: pl.DataFrame, sample: str) -> list[dict[str, Any]]:
    own = lens.filter(pl.col("sample_id") == sample).sort("layer")
    return own.select("layer", "p_class", "p_others", "top_class", "n_high_norm", "error").to_dicts()


def _write_judge(
    site: Site,
    key: str,
    one: Artefact[Any],
    verdicts: pl.DataFrame,
    known: Mapping[str, Any],
    pairs: Sequence[tuple[str, str, list[str]]],
) -> dict[str, Any]:
    """Write what the runs come to by a judge, and give the judge's row."""
    effects = one.frame("effects")
    measures = effects["measure"].unique(maintain_order=True).to_list()
    for where in known["sites"]:
        own = effects.filter(pl.col("site") == where)
        for m, measure in enumerate(measures):
            plain = effects.filter((pl.col("edit") == "none") & (pl.col("measure") == measure))
            site.shard(f"{key}/{where}-{m}", effect_shard(own.filter(pl.col("measure") == measure), plain, known))
    matched = one.frame("matched")
    site.shard(f"{key}/matched", {where: matched.filter(pl.col("site") == where).to_dicts() for where in known["sites"]})
    best = best_cell(one.table("effects"))
    return {
        "name": one.name,
        "kind": one.manifest.config.get("kind"),
        "headline": headline(one.place),
        "measures": measures,
        "extra": one.about.extra,
        "best": best,
        "example": example(verdicts, best, pairs),
    }


def effect_shard(rows: pl.DataFrame, plain: pl.DataFrame, known: Mapping[str, Any]) -> dict[str, Any]:
    """A measure at a site, a column each thing; and its value without an edit, where it has one.

    Args:
        rows: Rows of the `EFFECTS` contract, of one site and measure.
        plain: The rows of that measure without an edit.
        known: What the runs vary in: columns hold numbers in these lists.
    """
    directions = [one["name"] for one in known["directions"]]
    return {
        "n": len(rows),
        "layer": numbers(rows["layer"].cast(pl.Int16).to_numpy()),
        "edit": numbers(_places(rows["edit"], known["edits"])),
        "direction": numbers(_places(rows["direction"], directions)),
        "strength": numbers(_places(rows["strength"], known["strengths"])),
        **{name: _reals(rows[name]) for name in ("value", "low", "high")},
        "samples": numbers(rows["n"].cast(pl.Int32).to_numpy()),
        "plain": next(iter(plain.select("value", "low", "high").to_dicts()), None),
    }


def example(
    verdicts: pl.DataFrame, cell: Mapping[str, Any] | None, pairs: Sequence[tuple[str, str, list[str]]]
) -> tuple[int, int] | None:
    """Number of the pair, and of the sample in it, that an edit turned; the first of its samples where it turned none."""
    if cell is None:
        return None
    is_cell = pl.all_horizontal(pl.col(name) == cell[name] for name in CELL)
    rows = verdicts.filter(is_cell, pl.col("edit") == "add", pl.col("about") == "class").drop_nulls(["plain", "text"])
    ranked = rows.sort("score", descending=True, nulls_last=True, maintain_order=True).select(WHO).rows()
    places = {(source, target, s): (i, j) for i, (source, target, own) in enumerate(pairs) for j, s in enumerate(own)}
    return next((places[who] for who in ranked if who in places), None)


def curve_of(curve: Curve) -> dict[str, Any]:
    """A curve as the pages draw it."""
    return {
        "label": curve.label,
        "x": list(curve.x),
        "y": list(curve.y),
        "low": None if curve.low is None else list(curve.low),
        "high": None if curve.high is None else list(curve.high),
        "control": curve.control,
    }
