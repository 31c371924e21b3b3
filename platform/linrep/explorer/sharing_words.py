"""Plain words on the sharing results: what the curves show, and where they disagree with the claim."""

from typing import Any

import polars as pl
import pyarrow as pa

from linrep.stats.interval import in_brackets

SLIGHT = 0.05
"""A measure that is no further above its null than this is not held against it."""


CURVES = {
    "hub_centred": "the centred hub score",
    "hub_whitened": "the whitened hub score",
    "cka_debiased": "CKA",
    "subspace_overlap": "the overlap of leading subspaces",
    "neighbourhood_overlap": "the share of common neighbours",
    "direction_cosine": "the cosine of class directions",
    "transfer_image_to_text_centred": "transfer of probes from image to text",
    "transfer_text_to_image_centred": "transfer of probes from text to image",
}
"""Measures that would grow with depth where the modalities converge."""


TOKENS = {
    "mean": "means of all tokens",
    "object": "patches of the object and its word",
    "last": "the last token under one question",
}
"""The poolings in words."""
VERDICTS = ("rises", "falls", "flat", "undecided")


def main_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows, or trends, of means of all tokens, and of classes where they are about an attribute."""
    return frame.filter(pl.col("pooling").fill_null("mean") == "mean", pl.col("attribute").fill_null("class") == "class")


def main_trends(trends: pa.Table) -> pl.DataFrame:
    """The trends that words are about: those from the first layer above 0.

    Args:
        trends: Rows of the `SHARING_TRENDS` contract.
    """
    return pl.DataFrame(pl.from_arrow(trends)).filter(pl.col("main"))


def verdict_of(trends: pl.DataFrame, metric: str, model: str = "trained", sae: str | None = None) -> dict[str, Any] | None:
    """The trend of a measure of means and classes; None where it has none.

    Args:
        trends: As `main_trends` gives them.
        metric: The measure.
        model: The model.
        sae: The SAE, for latents.
    """
    whose = pl.col("sae").is_null() if sae is None else pl.col("sae") == sae
    found = main_rows(trends).filter(pl.col("metric") == metric, pl.col("model") == model, whose)
    return found.row(0, named=True) if len(found) else None


def change_in_words(trend: dict[str, Any]) -> str:
    """A trend in a line: one word, both ends, the change with its interval, and how it compares with the untrained model's."""
    interval = in_brackets(trend["low"], trend["high"], "{:+.2f}".format, otherwise="")
    said = (
        f"{VERDICT_WORDS[trend['verdict']]} from layer {trend['base']} to {trend['last']}: {trend['base_value']:.2f} to "
        f"{trend['last_value']:.2f}, {trend['change']:+.2f}{interval}"
    )
    if trend["over_untrained"] is not None:
        over = in_brackets(trend["over_untrained_low"], trend["over_untrained_high"], "{:+.2f}".format, otherwise="")
        said += f"; beyond the untrained model {trend['over_untrained']:+.2f}{over}"
    return said


VERDICT_WORDS = {"rises": "rises", "falls": "falls", "flat": "is flat", "undecided": "is undecided"}


def sharing_headline(table: pa.Table, trends: pa.Table) -> list[str]:
    """Whether sharing grows with depth, in sentences, for each choice of tokens: every curve is counted, none is chosen.

    Args:
        table: Rows of the `SHARING` contract.
        trends: Rows of the `SHARING_TRENDS` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(table)).sort("layer")
    own = frame.filter(pl.col("sae").is_null(), pl.col("model") == "trained", pl.col("metric").is_in(list(CURVES)))
    valued = own.drop_nulls("value")
    if not len(valued):
        return ["No measure of sharing has a value: summary.txt says why."]
    if valued["layer"].n_unique() == 1:
        shown = "; ".join(
            f"{CURVES[r['metric']]} {r['value']:.2f} (null {_null(r)})" for r in main_rows(valued).iter_rows(named=True)
        )
        return [f"Only layer {valued['layer'][0]} was compared, so nothing is said of depth: {shown}."]
    moved = main_trends(trends).filter(
        pl.col("model") == "trained", pl.col("metric").is_in(list(CURVES)), pl.col("sae").is_null()
    )
    sentences, rising, counted = [], [], []
    for pooling, words in TOKENS.items():
        rows = moved.filter(pl.col("pooling").fill_null("mean") == pooling).to_dicts()
        if not rows:
            continue
        parts = []
        for name in VERDICTS:
            some = [row for row in rows if row["verdict"] == name]
            if some:
                listed = ", ".join(f"{_curve_words(row)} {row['base_value']:.2f} to {row['last_value']:.2f}" for row in some)
                parts.append(f"{len(some)} {name if len(some) == 1 else PLURAL[name]} ({listed})")
        base = min(row["base"] for row in rows)
        sentences.append(f"Of {words}, from layer {base} to {max(row['last'] for row in rows)}: {'; '.join(parts)}.")
        mine = [row for row in rows if row["verdict"] == "rises"]
        counted.append(f"of {words} {len(mine)} of {len(rows)} measures rise")
        rising += mine
    beside = [row for row in rising if row["over_untrained_verdict"] is not None]
    if beside:
        beyond = [row for row in beside if row["over_untrained_verdict"] == "rises"]
        sentences.append(
            f"Of the {len(beside)} that rise and that the untrained model has too, {len(beyond)} rise by more than there."
        )
    verdicts = {row["verdict"] for row in moved.to_dicts()}
    if verdicts == {"rises"}:
        first = "Sharing rises with depth."
    elif "rises" in verdicts:
        first = f"Whether sharing rises with depth depends on what is compared: {', '.join(counted)}."
    elif "undecided" in verdicts:
        first = "No measure of sharing is seen to rise with depth, and some are undecided."
    else:
        first = "Sharing does not rise with depth."
    return [first, *sentences]


PLURAL = {"rises": "rise", "falls": "fall", "flat": "are flat", "undecided": "are undecided"}


def _curve_words(row: dict[str, Any]) -> str:
    words = CURVES[row["metric"]]
    return words if row["attribute"] in (None, "class") else words.replace("class", row["attribute"])


def _null(row: dict) -> str:
    return "?" if row["null"] is None else f"{row['null']:.2f}"


def plain_words(table: pa.Table, trends: pa.Table) -> str:
    """A paragraph on what the curves show, and where they disagree with the claim that modalities are disjoint and converge.

    Args:
        table: Rows of the `SHARING` contract.
        trends: Rows of the `SHARING_TRENDS` contract.
    """
    frame, moved = pl.DataFrame(pl.from_arrow(table)).sort("layer"), main_trends(trends)
    steered = frame.filter((pl.col("model") == "trained") & pl.col("sae").is_null())
    own = main_rows(steered)
    said, against = [], []
    for name, words in {"gap_share": "the share of the variance between the modalities", **CURVES}.items():
        trend, ends = verdict_of(moved, name), ends_of(own, name)
        if trend is None or ends is None:
            continue
        first, last = ends
        said.append(f"{words} {change_in_words(trend)}")
        if name == "gap_share":
            continue
        if trend["verdict"] == "falls":
            against.append(f"{words} falls with depth")
        elif trend["verdict"] == "flat":
            against.append(f"{words} does not rise")
        if first["null"] is not None and first["low"] is not None and first["low"] > first["null"] + SLIGHT:
            against.append(
                f"{words} is above its null in layer {first['layer']} already ({first['value']:.2f} against {first['null']:.2f})"
            )
    text = "What the curves of means of all tokens show: " + "; ".join(said) + "."
    text += " The claim is: quite disjoint, and increasingly shared in deeper layers. "
    text += ("Against it: " + "; ".join(against) + ".") if against else "No curve is against it."
    text += _pooled_words(moved) + _steered_words(steered) + _latent_words(frame, moved)
    undefined = own.filter(pl.col("value").is_null() & pl.col("note").is_not_null())
    for (metric, note), rows in undefined.group_by(["metric", "note"], maintain_order=True):
        layers = ", ".join(map(str, rows["layer"]))
        text += f" {str(metric).replace('_', ' ').capitalize()} has no value in layer {layers}: {note}."
    plain = main_rows(frame).filter((pl.col("model") == "untrained") & pl.col("sae").is_null())
    control = plain.drop_nulls(["value", "low"])
    if len(control):
        names = ("hub_centred", "cka_debiased", "neighbourhood_overlap", "direction_cosine", "transfer_image_to_text_centred")
        last = control.filter((pl.col("layer") == control["layer"].max()) & pl.col("metric").is_in(names))
        beyond = [r["metric"] for r in last.iter_rows(named=True) if r["null"] is not None and r["low"] > r["null"] + SLIGHT]
        text += (
            f" In the untrained model's last layer {', '.join(beyond)} are above their nulls too: that much is not learned."
            if beyond
            else f" In the untrained model's last layer none of {', '.join(names)} is more than {SLIGHT} above its null."
        )
    return text


def _pooled_words(moved: pl.DataFrame) -> str:
    """What directions of classes and other attributes do over the layers, for each choice of tokens."""
    rows = moved.filter(pl.col("metric") == "direction_cosine", pl.col("model") == "trained").to_dicts()
    said = []
    for pooling, words in TOKENS.items():
        some = [row for row in rows if row["pooling"] == pooling and not (pooling == "mean" and row["attribute"] == "class")]
        if some:
            said.append(f"of {words}: " + "; ".join(f"{row['attribute']} {change_in_words(row)}" for row in some))
    return f" Cosines of directions, {'. Cosines of directions, '.join(said)}." if said else ""


def _steered_words(own: pl.DataFrame) -> str:
    """What directions found in texts do to answers about images, beside those found in images."""
    turned = own.filter(pl.col("metric").str.starts_with("turned_by_")).drop_nulls("value")
    of_texts = turned.filter(pl.col("metric").str.starts_with("turned_by_text_"))
    if not len(of_texts):
        return ""
    best = _reported(of_texts)
    if best is None:
        return ""
    twins = of_texts.select("layer", pl.col("metric").str.replace("turned_by_text_", "turned_by_", literal=True))
    of_images = _reported(turned.join(twins, ["layer", "metric"], "semi"))
    beside = "" if of_images is None else f", those found in images {of_images['half_two']:.2f}"
    null = best["null"]
    beside += "" if null is None else f", a random one there {null:.2f}"
    return (
        f" Directions found in texts turn {best['half_two']:.2f} of the answers about images{beside}, at the layer, site and "
        "strength that is best on the other half of the source classes."
    )


def _reported(rows: pl.DataFrame) -> dict | None:
    """The row that is best on one half, which is to be reported from the other; None without halves."""
    halves = rows.drop_nulls(["half_one", "half_two"])
    return halves.sort("half_one", descending=True, maintain_order=True).row(0, named=True) if len(halves) else None


def _latent_words(frame: pl.DataFrame, moved: pl.DataFrame) -> str:
    """What latents show, of each SAE of each model, beside its control of random directions."""
    text, rows = "", frame.filter(pl.col("sae").is_not_null() & ~pl.col("sae").str.ends_with("/random"))
    for (model, sae), own in rows.group_by(["model", "sae"], maintain_order=True):
        random = frame.filter((pl.col("model") == model) & (pl.col("sae") == f"{sae}/random"))
        said = []
        for name, words in (
            ("bimodal_mass", "the share of activation on bimodal latents"),
            ("overlap_0.01", "the share of latents that fire on both modalities"),
            ("cofire", "firing on an image and on its caption"),
            ("bridge_cosine", "the cosine of what both write"),
            ("cross_modal_weight_rest", "the likeness of a latent's strongest tokens beside its own direction"),
        ):
            ends, control = ends_of(own, name), ends_of(random, name)
            trend = verdict_of(moved, name, str(model), str(sae))
            if ends is None or trend is None:
                continue
            first, last = ends
            beside = "" if control is None else f", of random directions {control[1]['value']:.2f}"
            null = "" if last["null"] is None else f", null {last['null']:.2f}"
            ends_said = f"{first['value']:.2f} in layer {first['layer']}, {last['value']:.2f} in layer {last['layer']}"
            said.append(f"{words} {VERDICT_WORDS[trend['verdict']]} ({ends_said}{null}{beside})")
        if said:
            text += f" Of the {model} model's latents in {sae}: " + "; ".join(said) + "."
    return text


def ends_of(frame: pl.DataFrame, name: str) -> tuple[dict, dict] | None:
    """The rows of a measure at the first and the last layer at which it has a value; None where it has none.

    Args:
        frame: Rows of one model, by layer.
        name: The measure.
    """
    rows = frame.filter((pl.col("metric") == name) & pl.col("value").is_not_null())
    return (rows.row(0, named=True), rows.row(-1, named=True)) if len(rows) else None
