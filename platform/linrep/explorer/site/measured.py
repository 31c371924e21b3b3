"""Every result as rows of numbers that can be laid beside another's: a quantity, a layer, a value, its interval and its control.

An interval stands here only where it is one of 95%: quartiles and ranges of nulls are left out, so that a page may subtract.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from linrep.artefact import Artefact
from linrep.explorer.features import GOOD, RANDOM
from linrep.explorer.features import numbers as feature_numbers
from linrep.explorer.interpret import mean_score
from linrep.stats.wilson import wilson

ROW = {
    "curve": pl.String,
    "layer": pl.Int32,
    "at": pl.Float64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "control": pl.Float64,
}
"""Name of the quantity, layer, strength where there is one, value, both ends of its 95% interval, its control or null."""
STEERED = (
    "success", "turned", "left", "p_target", "coherence", "kept_all", "turned_kept_all", "damage", "success_over_random",
    "turned_over_random",
)  # fmt: skip
RESTS_ON = ("ce", "ce_spliced", *(f"{loss}_{by}" for loss in ("ce", "kl") for by in ("resample", "mean", "zero")))
"""Measures of SAEs that others are made of, beside the counts."""
WITH_INTERVAL = ("kl_spliced", "ce_recovered", "kl_recovered")
"""Measures whose ends are those of a 95% interval."""


def rows_of(stage: str, one: Artefact[Any]) -> pl.DataFrame:
    """The numbers of a result, in the columns of `ROW`; empty for a stage without any.

    Args:
        stage: Its stage; of edited runs the verdicts of a judge, stage `judge`, of SAEs an evaluation, stage `evaluate`.
        one: The result.
    """
    match stage:
        case "probe":
            return _of_probes(one.frame("probes"))
        case "judge":
            return _of_effects(one.frame("effects"))
        case "evaluate":
            return of_quality(one.frame("quality"))
        case "tune":
            return _of_front(one.frame("front"))
        case "features":
            return of_features(one.frame())
        case "interpret":
            return of_scores(one.frame("scores"))
        case "sharing":
            return _of_sharing(one.frame("sharing"))
    return pl.DataFrame(schema=ROW)


def _rows(table: pl.DataFrame, curve: pl.Expr, **other: pl.Expr) -> pl.DataFrame:
    wanted = {name: pl.col(name) if name in table.columns else pl.lit(None) for name in ROW} | {"curve": curve} | other
    return table.select(**{name: wanted[name].cast(kind) for name, kind in ROW.items()})


def _of_probes(table: pl.DataFrame) -> pl.DataFrame:
    whole = table.filter(pl.col("n_per_class").is_null(), pl.col("k").is_null())
    transfer = pl.when(pl.col("fitted_on") != pl.col("tested_on")).then(
        pl.format(
            ", fitted on {}{}", "fitted_on", pl.when("centred").then(pl.lit(", means aligned")).otherwise(pl.lit(""))
        )
    ).otherwise(pl.lit(""))  # fmt: skip
    curve = pl.concat_str(pl.format("top-1 of {} in {}: {}, {}", "attribute", "tested_on", "kind", "view"), transfer)
    control = pl.coalesce("control_task", "shuffled")
    return _rows(whole, curve, value=pl.col("top1"), low=pl.col("top1_low"), high=pl.col("top1_high"), control=control)


def _of_effects(table: pl.DataFrame) -> pl.DataFrame:
    own = table.filter(pl.col("measure").is_in(STEERED), pl.col("layer").is_not_null())
    direction = pl.when(pl.col("direction").is_null()).then(pl.lit("")).otherwise(pl.format(", {}", "direction"))
    curve = pl.concat_str(pl.format("{} at {}: {}", "measure", "site", "edit"), direction)
    return _rows(own, curve, at=pl.col("strength"), control=pl.lit(None))


def of_quality(table: pl.DataFrame, named: bool = True) -> pl.DataFrame:
    """Rows of the `QUALITY` contract.

    Args:
        table: The rows.
        named: Whether a quantity is called after its SAE.
    """
    own = table.filter(~(pl.col("measure").str.starts_with("n_") | pl.col("measure").is_in(RESTS_ON)))
    has = pl.col("measure").is_in(WITH_INTERVAL)
    name = "{}, {}: {}" if named else "{}, {}"
    curve = pl.format(name, "measure", "modality", *(["sae"] if named else []))
    ends = {end: pl.when(has).then(pl.col(end)) for end in ("low", "high")}
    return _rows(own, curve, **ends)


def _of_front(table: pl.DataFrame) -> pl.DataFrame:
    curve = pl.format("FVU, {}: {}", "modality", pl.col("candidate").str.replace(r"^layer\d+-", ""))
    return _rows(table, curve, value=pl.col("fvu"), low=pl.col("fvu_low"), high=pl.col("fvu_high"))


def _of_sharing(table: pl.DataFrame) -> pl.DataFrame:
    sae = pl.when(pl.col("sae").is_null()).then(pl.lit("")).otherwise(pl.format(", {}", "sae"))
    model = pl.when(pl.col("model") == "trained").then(pl.lit("")).otherwise(pl.format(" ({})", "model"))
    return _rows(table, pl.concat_str(pl.format("{}: {}", "level", "metric"), sae, model), control=pl.col("null"))


def of_features(table: pl.DataFrame, named: bool = True) -> pl.DataFrame:
    """Rows of the `FEATURES` contract, beside the random directions of each SAE.

    Args:
        table: The rows.
        named: Whether a quantity is called after its SAE.
    """
    found = {(layer, sae): _numbers(own) for (layer, sae), own in table.group_by(["layer", "sae"], maintain_order=True)}
    rows = []
    for (layer, sae), own in found.items():
        if str(sae).endswith(RANDOM):
            continue
        control = found.get((layer, f"{sae}{RANDOM}"), {})
        for name, (value, low, high) in own.items():
            beside = control.get(name, (None, None, None))[0]
            curve = f"features: {name}"
            rows.append(_row(f"{curve}: {sae}" if named else curve, layer, value, low, high, beside))
    return pl.DataFrame(rows, schema=ROW)


def _numbers(own: pl.DataFrame) -> Mapping[str, tuple[float | None, float | None, float | None]]:
    """The main numbers of an SAE's latents; the share of good ones has Wilson's interval over those that are scored."""
    found: dict[str, tuple[float | None, float | None, float | None]] = {
        name.replace("_", " "): (value, None, None) for name, value in feature_numbers(own).items() if name != "good_f1"
    }
    scored = own["f1"].drop_nulls()
    if len(scored):
        share = float((scored > GOOD).mean())  # pyright: ignore[reportArgumentType]
        found[f"latents with F1 above {GOOD}, of those that are scored"] = (share, *wilson(share, len(scored)))
    return found


def of_scores(table: pl.DataFrame, named: bool = True) -> pl.DataFrame:
    """Rows of the `SCORES` contract as means over latents, beside the random directions' own explanations.

    Args:
        table: The rows.
        named: Whether a quantity is called after its SAE.
    """
    known = table.drop_nulls("value").with_columns(pl.col("sae").str.strip_suffix(RANDOM).alias("of"))
    rows = []
    keys = ["layer", "of", "task", "modality", "control"]
    for (layer, sae, task, modality, control), own in known.group_by(keys, maintain_order=True):
        trained, random = own.filter(pl.col("sae") == sae), own.filter(pl.col("sae") != sae)
        if not len(trained):
            continue
        mean, beside = mean_score(trained), mean_score(random).value if len(random) else None
        name = f"explanations: {task} in {modality}" + {"own": "", "shuffled": ", another latent's explanation"}.get(
            str(control), f", {control}"
        )
        rows.append(_row(f"{name}: {sae}" if named else name, layer, mean.value, mean.low, mean.high, beside))
    return pl.DataFrame(rows, schema=ROW)


def _row(curve: str, layer: Any, value: Any, low: Any, high: Any, control: Any) -> Mapping[str, Any]:
    return {"curve": curve, "layer": layer, "at": None, "value": value, "low": low, "high": high, "control": control}


def together(tables: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Several results' rows as one table."""
    return pl.concat([pl.DataFrame(schema=ROW), *tables])
