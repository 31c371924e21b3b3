"""From runs and verdicts to effects: every measure with its interval, controls beside it, and efficacies at equal damage."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Int64

from linrep.steer.cells import NO_DIRECTION
from linrep.steer.config import CONTROLS, INTERCHANGE, SAME_CLASS, TOKENS, SteerConfig
from linrep.steer.intervals import Estimate, Kind, Pair, at_matched_damage, estimate
from linrep.steer.judges.verdict import Answer, Judge
from linrep.steer.names import spoken
from linrep.store.tables import table_of
from schemas.steering import EFFECTS, MATCHED, VERDICTS

WHICH = ["site", "layer", "edit", "direction", "strength"]
WHO = ["source", "target", "sample_id"]

MEASURES = {
    "p_target": "probability of the target in the forced choice",
    "p_target_gain": "the same, minus that of the unedited run",
    "turned": "share of the answers about the class that name the target and not the source (score 1), "
    "of images whose unedited answer names the source",
    "success": "share of the images whose answer names the target and not the source while every other attribute is answered as "
    "without the edit, of images whose unedited answer names the source",
    "left": "share of those answers that no longer name the source (score above -1), coherent or not",
    "score": "mean score on the paper's scale, over all images",
    "coherence": "mean coherence of the answers about the class",
    "kept_<attribute>": "share of the answers about another attribute that are as without the edit (selectivity)",
    "kept_all": "share of the images that keep every other attribute, turned or not",
    "turned_kept_<attribute>": "the same, of those images whose answer about the class was turned",
    "turned_kept_all": "share of the images with a turned answer that keep every other attribute",
    "damage": "rise of the held-out texts' negative log-likelihood, nats a token",
    "<measure>_over_random": "the measure minus that of the random direction in the same cell, paired sample by sample; of a "
    "knock-out minus that of its control, of an interchange minus that with another image of the source class",
    "<measure>_over_image": "of an interchange with a text: minus that with another image of the target class, paired "
    "sample by sample",
    "<measure>_over_covariance": "of an erasure: minus that of random directions with the tokens' covariance, as many, paired "
    "sample by sample",
    "answered": "share of the runs that gave an answer (a run that fails costs its cell)",
}
"""What the names in the table of effects mean."""


IS_RANDOM = pl.col("direction").is_in(["random", SAME_CLASS, *TOKENS]).fill_null(False)  # a knock-out itself has no direction
IS_COVARIANCE = pl.col("direction") == "covariance"  # of erasures alone
IS_IMAGE = (pl.col("edit") == INTERCHANGE) & (pl.col("direction") == "image")


def judge_answers(answers: pa.Table, cells: pa.Table, config: SteerConfig, judge: Judge) -> pa.Table:
    """The answers with what a judge says of them, a table of schema `VERDICTS`.

    Args:
        answers: Of schema `ANSWERS`.
        cells: Of schema `CELLS`, for judges that use the forced choice.
        config: The plan, for the questions' words.
        judge: Any judge.
    """
    frame = frame_of(answers)
    plain = frame.filter(pl.col("edit") == "none").select([*WHO, "question", pl.col("text").alias("plain")])
    chosen = frame_of(cells).select([*WHO, *WHICH, "p_target"])
    joined = frame.join(plain, on=[*WHO, "question"], how="left", maintain_order="left")
    joined = joined.join(chosen, on=[*WHO, *WHICH], how="left", nulls_equal=True, maintain_order="left")
    rows = joined.to_dicts()
    usable = [i for i, row in enumerate(rows) if row["error"] is None and row["plain"] is not None]
    asked = [
        Answer(
            text=rows[i]["text"],
            plain=rows[i]["plain"],
            source=spoken(rows[i]["source"]),
            target=spoken(rows[i]["target"]),
            question=config.ask.questions[rows[i]["question"]].prompt.replace("<image>", "").strip(),
            about=rows[i]["about"],
            p_target=rows[i]["p_target"],
        )
        for i in usable
    ]
    for row in rows:
        row.pop("p_target")
        row["error"] = row["error"] or (None if row["plain"] is not None else "no answer without an edit to compare with")
    for i, verdict in zip(usable, judge(asked), strict=True):
        rows[i] |= {"score": verdict.score, "coherence": verdict.coherence, "kept": verdict.kept, "error": verdict.error}
    return table_of(rows, VERDICTS)


def effects(cells: pa.Table, verdicts: pa.Table, damage: pa.Table, config: SteerConfig) -> pa.Table:
    """Every measure of every edit, of schema `EFFECTS`; what the measures mean is in `MEASURES`."""
    rows = measured(frame_of(cells), frame_of(verdicts), frame_of(damage))
    out: list[dict[str, object]] = []
    classes = pl.Enum(sorted({*rows["source"], *rows["target"]}))
    rows = rows.with_columns(
        pl.col("source").cast(classes).to_physical().cast(pl.Int64),
        pl.col("target").cast(classes).to_physical().cast(pl.Int64),
        pl.col("sample_id").rank("dense").cast(pl.Int64).alias("sample"),
    )
    rows = rows.with_columns(in_second_half(rows["source"].to_numpy(), rows["sample"].to_numpy()))
    rows = pl.concat(
        [rows, _over(rows, "random", IS_RANDOM), _over(rows, "image", IS_IMAGE), _over(rows, "covariance", IS_COVARIANCE)]
    )
    for (measure, *which), group in rows.group_by(["measure", *WHICH], maintain_order=True):
        whole, *halves = (
            estimate(*(own[name].to_numpy() for name in ("source", "target", "sample", "value")), kind=_kind(str(measure)))
            for own in (group, group.filter(~pl.col("second")), group.filter(pl.col("second")))
        )
        if whole.n:
            out.append(_row(dict(zip(WHICH, which, strict=True)), str(measure), whole, halves))
    return table_of(out, EFFECTS)


def in_second_half(source: Int64[np.ndarray, " r"], sample: Int64[np.ndarray, " r"]) -> pl.Series:
    """Which rows are of the half that reports what was chosen on the other: every second source with all of its images.

    So no pair and no image is in both. Of a single source, every second image.
    """
    of = source if len(np.unique(source)) > 1 else sample
    return pl.Series("second", np.unique(of, return_inverse=True)[1] % 2 == 1)


def measured(cells: pl.DataFrame, verdicts: pl.DataFrame, damage: pl.DataFrame) -> pl.DataFrame:
    """One row for each measure of each run: who, which, measure, value."""
    out: list[pl.DataFrame] = []

    def take(frame: pl.DataFrame, measure: str, value: pl.Expr) -> None:
        out.append(
            frame.with_columns(pl.lit(measure).alias("measure"), value.cast(pl.Float64).alias("value"))
            .filter(pl.col("value").is_not_null())
            .select([*WHO, *WHICH, "measure", "value"])
        )

    take(cells, "p_target", pl.col("p_target"))
    before = cells.filter(pl.col("edit") == "none").select([*WHO, pl.col("p_target").alias("before")])
    take(
        cells.join(before, on=WHO, maintain_order="left").filter(pl.col("edit") != "none"),
        "p_target_gain",
        pl.col("p_target") - pl.col("before"),
    )
    # A cell without a direction was never run.
    tried = cells.filter(~pl.col("error").fill_null("").str.starts_with(NO_DIRECTION))
    take(tried, "answered", pl.col("error").is_null())

    of_class = verdicts.filter(pl.col("score").is_not_null())
    take(of_class, "score", pl.col("score"))
    take(verdicts.filter(pl.col("about") == "class"), "coherence", pl.col("coherence"))
    named = of_class.filter((pl.col("edit") == "none") & (pl.col("score") == -1)).select([*WHO, "question"])
    named = of_class.join(named, on=[*WHO, "question"], how="semi", maintain_order="left")
    take(named, "turned", pl.col("score") == 1)
    take(named, "left", pl.col("score") > -1)

    others = verdicts.filter(pl.col("kept").is_not_null() & (pl.col("edit") != "none"))
    turned = named.filter((pl.col("score") == 1) & (pl.col("edit") != "none")).select([*WHO, *WHICH]).unique(maintain_order=True)
    of_turned = others.join(turned, on=[*WHO, *WHICH], how="semi", nulls_equal=True, maintain_order="left")
    for attribute in others["about"].unique(maintain_order=True):
        take(others.filter(pl.col("about") == attribute), f"kept_{attribute}", pl.col("kept"))
        take(of_turned.filter(pl.col("about") == attribute), f"turned_kept_{attribute}", pl.col("kept"))
    if len(others):
        take(_every(others), "kept_all", pl.col("kept"))
        take(_success(named, _every(others)), "success", pl.col("success"))
    if len(of_turned):
        take(_every(of_turned), "turned_kept_all", pl.col("kept"))

    before = damage.filter(pl.col("edit") == "none").select([*WHO, pl.col("nll").alias("before")])
    take(
        damage.join(before, on=WHO, maintain_order="left").filter(pl.col("edit") != "none"),
        "damage",
        pl.col("nll") - pl.col("before"),
    )
    return pl.concat(out)


def _every(others: pl.DataFrame) -> pl.DataFrame:
    """Whether an image keeps every other attribute, one row a run; null where one has no verdict and no other one changed."""
    kept = pl.when(pl.col("kept").all() & (pl.len() < pl.col("asked").first())).then(None).otherwise(pl.col("kept").all())
    n = others["question"].n_unique()
    return others.with_columns(asked=n).group_by([*WHO, *WHICH], maintain_order=True).agg(kept.alias("kept"))


def _success(named: pl.DataFrame, every: pl.DataFrame) -> pl.DataFrame:
    """Whether an image's answer was turned and the rest kept, of those named rightly without the edit.

    An answer that was not turned is no success whatever became of the rest; one that was, of which the rest is not known, is left
    out.
    """
    edited = named.filter(pl.col("edit") != "none")
    both = edited.join(every.rename({"kept": "every"}), on=[*WHO, *WHICH], how="left", nulls_equal=True, maintain_order="left")
    return both.with_columns(success=pl.when(pl.col("score") == 1).then(pl.col("every")).otherwise(False))


def _over(rows: pl.DataFrame, name: str, is_control: pl.Expr) -> pl.DataFrame:
    """What a direction or donor does more than another one in the same cell, sample by sample."""
    measures = ["p_target", "turned", "success", "left", "damage"]
    paired = rows.filter(pl.col("measure").is_in(measures) & (pl.col("edit") != "none"))
    key = ["measure", "source", "target", "sample", "site", "layer", "edit", "strength"]
    control = paired.filter(is_control).group_by(key, maintain_order=True).agg(pl.col("value").mean().alias("control"))
    both = paired.filter(~is_control).join(control, on=key, nulls_equal=True, maintain_order="left", how="inner")
    return both.with_columns(
        (pl.col("measure") + f"_over_{name}").alias("measure"), (pl.col("value") - pl.col("control")).alias("value")
    ).select(rows.columns)


def _kind(measure: str) -> Kind:
    """What the values of a measure are."""
    if measure.startswith(("turned", "success", "left", "kept_", "answered")):
        return "difference" if "_over_" in measure else "share"
    return "bounded" if measure in ("p_target", "coherence") else "any"


def _row(which: dict[str, object], measure: str, found: Estimate, halves: Sequence[Estimate]) -> dict[str, object]:
    one, two = halves
    return {
        **which,
        "control": which["direction"] in CONTROLS,
        "measure": measure,
        "value": found.value,
        "low": _or_none(found.low),
        "high": _or_none(found.high),
        "half_one": _or_none(one.value),
        "half_two": _or_none(two.value),
        "half_two_low": _or_none(two.low),
        "half_two_high": _or_none(two.high),
        "n_pairs": found.n_pairs,
        "n": found.n,
    }


def matched(cells: pa.Table, damage: pa.Table, config: SteerConfig) -> pa.Table:
    """Forced-choice efficacy of every direction at equal damage, of schema `MATCHED`; empty where no damage was measured."""
    frame, harm = frame_of(cells), frame_of(damage)
    if not len(harm):
        return MATCHED.empty_table()
    pairs = harm.select(["source", "target"]).unique(maintain_order=True).rows()
    plain_nll = harm.filter(pl.col("edit") == "none").select([*WHO, pl.col("nll").alias("before")])
    rise = (pl.col("nll") - pl.col("before")).cast(pl.Float64)
    harm = harm.join(plain_nll, on=WHO, maintain_order="left").with_columns(rise.alias("rise"))
    unharmed = harm.filter(pl.col("edit") == "none").with_columns(pl.lit(0.0).alias("rise"))
    unedited = frame.filter(pl.col("edit") == "none")
    strengths = [0.0, *(float(np.float32(s)) for s in config.dose.strengths)]
    out: list[dict[str, object]] = []
    adds = frame.filter(pl.col("edit") == "add")
    for (site, layer, direction), group in adds.group_by(["site", "layer", "direction"], maintain_order=True):
        here = harm.filter((pl.col("site") == site) & (pl.col("layer") == layer) & (pl.col("direction") == direction))
        good = _curves(pl.concat([unedited, group]), "p_target", strengths)
        bad = _curves(pl.concat([unharmed, here]), "rise", strengths)
        whole = [pair for pair in pairs if pair in good and pair in bad]
        if not whole:
            continue
        found = at_matched_damage(
            np.array(strengths), {pair: good[pair] for pair in whole}, {pair: bad[pair] for pair in whole}, config.damage.matched
        )
        out.append(
            {
                "site": site,
                "layer": layer,
                "direction": direction,
                "control": direction in CONTROLS,
                "damage": config.damage.matched,
                "reached": found.reached,
                "strength": found.strength,
                "efficacy": found.efficacy,
                "low": _or_none(found.low),
                "high": _or_none(found.high),
                "n_pairs": found.n_pairs,
            }
        )
    return table_of(out, MATCHED)


def _curves(frame: pl.DataFrame, column: str, strengths: Sequence[float]) -> dict[Pair, dict[str, list[float]]]:
    """For each pair every sample that gave a value at every strength; the unedited run is at strength 0."""
    points = frame.filter(pl.col(column).is_finite()).select([*WHO, pl.col("strength").fill_null(0.0), pl.col(column)])
    found: dict[Pair, dict[str, list[float]]] = {}
    for (source, target, sample), rows in points.group_by(WHO, maintain_order=True):
        at = dict(rows.select(["strength", column]).iter_rows())
        if all(s in at for s in strengths):
            found.setdefault((str(source), str(target)), {})[str(sample)] = [at[s] for s in strengths]
    return found


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def frame_of(table: pa.Table) -> pl.DataFrame:
    """A table of a steering job as `measured` takes it."""
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found
