"""Figures, lines and words of the sharing results: curves over layers beside their nulls and the untrained model."""

import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels

GEOMETRY = (
    ("hub", "matched minus unmatched cosine"),
    ("hub_centred", "the same, each mean removed"),
    ("cka_debiased", "linear CKA, debiased"),
    ("subspace_overlap", "leading subspaces: mean squared cosine"),
    ("neighbourhood_overlap", "share of common neighbours"),
    ("cosine_unmatched", "cosine of any image and any text"),
    ("modality_probe", "probe of the modality: accuracy"),
    ("cluster_homogeneity", "homogeneity of clusters"),
    ("pair_retrieval_image_to_text", "own caption is the nearest"),
)
CONCEPTS = (
    ("direction_cosine", "cosine of class directions"),
    ("class_retrieval_image_to_text", "image class finds its text class"),
    ("class_retrieval_text_to_image", "text class finds its image class"),
    ("transfer_image_to_text_centred", "probe image to text, means aligned"),
    ("transfer_text_to_image_centred", "probe text to image, means aligned"),
    ("probe_image", "probe at home: images"),
)
LATENTS = (
    ("bimodal_mass", "mass on bimodal latents"),
    ("overlap_0.01", "latents that fire on both, rate above .01"),
    ("cofire", "fires on image and caption"),
    ("bridge_cosine", "sum of bridge scores, as a cosine"),
    ("cross_modal_weight", "cross-modal weight"),
    ("cross_modal_weight_centred", "the same, each mean removed"),
    ("reliability_modality_score", "reliability of modality scores"),
)
TENTH = 0.1
"""Changes over the layers of less than this share of the distance from the null are called flat."""
SLIGHT = 0.05
"""A measure that is no further above its null than this is not held against it."""


def layer_figures(table: pa.Table) -> dict[str, Figure]:
    """All figures of a sharing table by name.

    Args:
        table: Rows of the `SHARING` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(table)).sort("layer")
    figures = {}
    for level, wanted in (("geometry", GEOMETRY), ("concept", CONCEPTS), ("latent", LATENTS)):
        own = frame.filter(pl.col("level") == level)
        parts = [_panel(name, label, own.filter(pl.col("metric") == name)) for name, label in wanted if _has(own, name)]
        if parts:
            figures[f"sharing_{level}"] = panels(f"{level} level: 95% intervals, nulls dashed", parts)
    histogram = frame.filter(pl.col("metric").str.starts_with("modality_score_"))
    if len(histogram):
        figures["sharing_modality_scores"] = panels("modality scores of the latents", _histograms(histogram))
    return figures


def _has(frame: pl.DataFrame, name: str) -> bool:
    return bool((frame["metric"] == name).any())


def _panel(name: str, label: str, rows: pl.DataFrame) -> Panel:
    curves = []
    for (model, dictionary), own in rows.group_by(["model", "dictionary"], maintain_order=True):
        title = str(dictionary or model)
        title = f"{model}, {title}" if dictionary and model != "trained" else title
        curves.append(_curve(title, own))
        if own["null"].is_not_null().any() and model == "trained":
            curves.append(Curve(f"{title}, null", _x(own), _y(own, "null"), control=True))
    return Panel(name.replace("_", " "), "layer", label, tuple(curves), x_whole=True)


def _histograms(rows: pl.DataFrame) -> list[Panel]:
    parts = []
    for (layer, model, dictionary), own in rows.group_by(["layer", "model", "dictionary"], maintain_order=True):
        middle = tuple(sum(float(end) for end in name.split("_")[-2:]) / 2 for name in own["metric"])
        curve = Curve(str(dictionary), middle, _y(own, "value"), _y(own, "low"), _y(own, "high"))
        parts.append(Panel(f"layer {layer}, {model}", "0 text only, 1 image only", "share of latents", (curve,)))
    return parts


def _curve(label: str, rows: pl.DataFrame) -> Curve:
    return Curve(label, _x(rows), _y(rows, "value"), _y(rows, "low"), _y(rows, "high"))


def _x(rows: pl.DataFrame) -> tuple[float, ...]:
    return tuple(map(float, rows["layer"]))


def _y(rows: pl.DataFrame, name: str) -> tuple[float, ...]:
    return tuple(float("nan") if v is None else float(v) for v in rows[name])


def summary_lines(table: pa.Table) -> list[str]:
    """The main numbers in aligned lines: first, best and last layer of each measure, its null, and how well halves agree.

    Args:
        table: Rows of the `SHARING` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(table)).sort("layer")
    lines = [f"  {'measure':34} {'first layer':>24} {'last layer':>24} {'null':>7} {'untrained, last':>16} {'halves r':>9}"]
    for name, _ in (*GEOMETRY, *CONCEPTS):
        own = frame.filter((pl.col("metric") == name) & (pl.col("model") == "trained"))
        if not len(own):
            continue
        control = frame.filter((pl.col("metric") == name) & (pl.col("model") == "untrained"))
        first, last = own.row(0, named=True), own.row(-1, named=True)
        null = "" if last["null"] is None else f"{last['null']:.3f}"
        other = "" if not len(control) or control["value"][-1] is None else f"{control['value'][-1]:.3f}"
        lines.append(f"  {name:34} {_shown(first):>24} {_shown(last):>24} {null:>7} {other:>16} {_reliability(own):>9}")
    told = pl.col("metric").is_in([name for name, _ in LATENTS]) | pl.col("metric").str.starts_with("turned_by_")
    for row in frame.filter(told).iter_rows(named=True):
        null = "" if row["null"] is None else f"{row['null']:.3f}"
        whose = f"{row['model']:9} {row['dictionary'] or '':22}"
        lines.append(f"  layer {row['layer']:2} {whose} {row['metric']:26} {_shown(row)} {null}")
    return lines


def _shown(row: dict) -> str:
    if row["value"] is None:
        return "undefined"
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _reliability(rows: pl.DataFrame) -> str:
    """Correlation over layers of the values from both halves of the pairs."""
    r = rows.drop_nulls(["half_one", "half_two"]).select(pl.corr("half_one", "half_two")).item() if len(rows) > 2 else None
    return "" if r is None or r != r else f"{r:.3f}"


def plain_words(table: pa.Table) -> str:
    """A paragraph on what the curves show, and where they disagree with the claim that modalities are disjoint and converge.

    Args:
        table: Rows of the `SHARING` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(table)).sort("layer")
    own = frame.filter((pl.col("model") == "trained") & pl.col("dictionary").is_null())
    said, against = [], []
    probe, clusters = _ends(own, "modality_probe"), _ends(own, "cluster_homogeneity")
    if probe:
        apart = probe[1]["value"] > 0.95
        said.append(
            f"A linear probe tells image from text with accuracy {probe[0]['value']:.2f} in layer {probe[0]['layer']} and "
            f"{probe[1]['value']:.2f} in layer {probe[1]['layer']} (control {probe[1]['null']:.2f})"
            + (": the modalities stay apart to the last layer" if apart else "")
        )
    if clusters:
        said.append(f"homogeneity of clusters by modality goes from {clusters[0]['value']:.2f} to {clusters[1]['value']:.2f}")
    for name, words in (
        ("hub", "the hub score"),
        ("cka_debiased", "CKA"),
        ("subspace_overlap", "the overlap of leading subspaces"),
        ("neighbourhood_overlap", "the share of common neighbours"),
        ("direction_cosine", "the cosine of class directions"),
        ("transfer_image_to_text_centred", "transfer of probes from image to text"),
        ("transfer_text_to_image_centred", "transfer of probes from text to image"),
    ):
        ends = _ends(own, name)
        if ends is None:
            continue
        first, last = ends
        said.append(f"{words} {_course(first, last)} ({first['value']:.2f} to {last['value']:.2f})")
        values = own.filter(pl.col("metric") == name).drop_nulls("value")
        peak = values.sort("value", descending=True).row(0, named=True)
        if _course(first, last) == "falls":
            against.append(f"{words} falls with depth")
        elif last["layer"] > peak["layer"] > first["layer"] and _course(peak, last) == "falls":
            against.append(
                f"{words} is highest in layer {peak['layer']} ({peak['value']:.2f}) and falls to {last['value']:.2f} after it"
            )
        elif _course(first, last) == "stays flat":
            against.append(f"{words} does not grow")
        if first["null"] is not None and first["low"] is not None and first["low"] > first["null"] + SLIGHT:
            against.append(
                f"{words} is above its null in layer {first['layer']} already ({first['value']:.2f} against {first['null']:.2f})"
            )
    text = "What the curves show: " + "; ".join(said) + "."
    text += " The claim is: quite disjoint, and increasingly shared in deeper layers. "
    text += ("Against it: " + "; ".join(against) + ".") if against else "No curve is against it."
    text += _latent_words(frame)
    plain = frame.filter((pl.col("model") == "untrained") & pl.col("dictionary").is_null())
    control = plain.drop_nulls(["value", "low"])
    if len(control):
        names = ("hub", "cka_debiased", "neighbourhood_overlap", "direction_cosine", "transfer_image_to_text_centred")
        last = control.filter((pl.col("layer") == control["layer"].max()) & pl.col("metric").is_in(names))
        beyond = [r["metric"] for r in last.iter_rows(named=True) if r["null"] is not None and r["low"] > r["null"] + SLIGHT]
        text += (
            f" In the untrained model's last layer {', '.join(beyond)} are above their nulls too: that much is not learned."
            if beyond
            else f" In the untrained model's last layer none of {', '.join(names)} is more than {SLIGHT} above its null."
        )
    return text


def _latent_words(frame: pl.DataFrame) -> str:
    """What latents show, of each dictionary of each model, beside its control of random directions."""
    text, rows = "", frame.filter(pl.col("dictionary").is_not_null() & ~pl.col("dictionary").str.ends_with("/random"))
    for (model, dictionary), own in rows.group_by(["model", "dictionary"], maintain_order=True):
        random = frame.filter((pl.col("model") == model) & (pl.col("dictionary") == f"{dictionary}/random"))
        said = []
        for name, words in (
            ("bimodal_mass", "the share of activation on bimodal latents"),
            ("overlap_0.01", "the share of latents that fire on both modalities"),
            ("cofire", "firing on a photograph and on its caption"),
            ("bridge_cosine", "the cosine of what both write"),
        ):
            ends, control = _ends(own, name), _ends(random, name)
            if ends is None:
                continue
            first, last = ends
            beside = "" if control is None else f", of random directions {control[1]['value']:.2f}"
            null = "" if last["null"] is None else f", null {last['null']:.2f}"
            said.append(
                f"{words} {_course(first, last)} ({first['value']:.2f} in layer {first['layer']}, {last['value']:.2f} in layer "
                f"{last['layer']}{null}{beside})"
            )
        if said:
            text += f" Of the {model} model's latents in {dictionary}: " + "; ".join(said) + "."
    return text


def _ends(frame: pl.DataFrame, name: str) -> tuple[dict, dict] | None:
    rows = frame.filter((pl.col("metric") == name) & pl.col("value").is_not_null())
    return (rows.row(0, named=True), rows.row(-1, named=True)) if len(rows) else None


def _course(first: dict, last: dict) -> str:
    """Flat where the change is small beside the distance from the null, or where each end lies in the other's interval."""
    change = last["value"] - first["value"]
    ends = (first["low"], first["high"], last["low"], last["high"])
    overlaps = (
        None not in ends and first["low"] <= last["value"] <= first["high"] and last["low"] <= first["value"] <= last["high"]
    )
    distance = max(abs(row["value"] - (row["null"] or 0.0)) for row in (first, last))
    if abs(change) <= TENTH * distance or overlaps:
        return "stays flat"
    return "grows" if change > 0 else "falls"
