"""Figures and lines of the sharing results: curves over layers beside their nulls and the untrained model."""

from collections.abc import Iterator
from dataclasses import replace

import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels, shade
from linrep.explorer.sharing_words import TOKENS, VERDICT_WORDS, change_in_words, main_rows, main_trends, verdict_of
from linrep.sharing.config import POOLINGS
from linrep.stats.interval import in_brackets

GEOMETRY = (
    ("hub", "matched minus unmatched cosine"),
    ("hub_centred", "the same, each mean removed"),
    ("hub_whitened", "the same, each modality whitened"),
    ("cka_debiased", "linear CKA, debiased"),
    ("subspace_overlap", "leading subspaces: mean squared cosine"),
    ("neighbourhood_overlap", "share of common neighbours"),
    ("cosine_unmatched", "cosine of any image and any text"),
    ("gap_share", "share of variance between modalities"),
    ("modality_directions", "directions until a probe is at chance"),
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
    ("cross_modal_weight_rest", "the same, own direction removed"),
    ("reliability_modality_score", "reliability of modality scores"),
)


TITLES = {
    "geometry": "How alike images and texts lie, by layer",
    "concept": "How much of a class's direction images and texts share, by layer",
    "latent": "How many latents of SAEs images and texts share, by layer",
    "poolings": "What is shared depends on which tokens are compared, by layer",
}
OF_POOLINGS = (
    ("direction_cosine", "class", "cosine of class directions"),
    ("direction_cosine", None, "cosine of {} directions"),
    ("class_retrieval_text_to_image", "class", "text class finds its image class"),
    ("hub", None, "matched minus unmatched cosine"),
    ("hub_centred", None, "the same, each mean removed"),
    ("hub_whitened", None, "the same, each modality whitened"),
    ("gap_share", None, "share of variance between modalities"),
)
"""Measures that are drawn for every choice of tokens: name, attribute, label; of directions each attribute has a panel."""


def layer_figures(table: pa.Table, trends: pa.Table) -> dict[str, Figure]:
    """All figures of a sharing table by name.

    Args:
        table: Rows of the `SHARING` contract.
        trends: Rows of the `SHARING_TRENDS` contract.
    """
    whole, moved = pl.DataFrame(pl.from_arrow(table)).sort("layer"), main_trends(trends)
    frame, figures = main_rows(whole), {}
    pooled = whole.filter(pl.col("pooling").is_not_null())
    if pooled["pooling"].n_unique() > 1:
        parts = [_pooled_panel(own, label) for own, label in _of_poolings(pooled) if len(own.drop_nulls("value"))]
        figures["sharing_poolings"] = panels(f"{TITLES['poolings']}; 95% intervals, nulls and untrained model dashed", parts)
    for level, wanted in (("geometry", GEOMETRY), ("concept", CONCEPTS), ("latent", LATENTS)):
        own = frame.filter(pl.col("level") == level)
        parts = [_panel(name, label, own.filter(pl.col("metric") == name), moved) for name, label in wanted if _has(own, name)]
        if parts:
            figures[f"sharing_{level}"] = panels(f"{TITLES[level]}; 95% intervals, nulls dashed", parts)
    histogram = frame.filter(pl.col("metric").str.starts_with("modality_score_"))
    if len(histogram):
        figures["sharing_modality_scores"] = panels(
            "How many latents fire on text, on images and on both: modality scores", _histograms(histogram), 2, alike="y"
        )
    return figures


def _has(frame: pl.DataFrame, name: str) -> bool:
    return bool((frame["metric"] == name).any())


def _of_poolings(pooled: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, str]]:
    """The rows of each panel of poolings, with its label."""
    for metric, attribute, label in OF_POOLINGS:
        own = pooled.filter(pl.col("metric") == metric)
        if "{}" in label:
            for other in own.filter(pl.col("attribute") != "class")["attribute"].unique(maintain_order=True):
                yield own.filter(pl.col("attribute") == other), label.format(other)
        else:
            yield (own if attribute is None else own.filter(pl.col("attribute") == attribute)), label


def _pooled_panel(rows: pl.DataFrame, label: str) -> Panel:
    """A curve for each choice of tokens, with the untrained model's dashed beside it."""
    curves = []
    for i, pooling in enumerate(POOLINGS):
        for model in ("trained", "untrained"):
            own = rows.filter(pl.col("pooling") == pooling, pl.col("model") == model).drop_nulls("value")
            if len(own) and model == "trained":
                curves.append(replace(_curve(TOKENS[pooling], own), colour=i))
            elif len(own):
                curves.append(Curve(f"untrained, {pooling}", _x(own), _y(own, "value"), colour=i, control=True))
    return Panel(label, "layer", label, tuple(curves), x_whole=True)


def _panel(name: str, label: str, rows: pl.DataFrame, moved: pl.DataFrame) -> Panel:
    curves = []
    for (model, sae), own in rows.group_by(["model", "sae"], maintain_order=True):
        title = str(sae or model)
        title = f"{model}, {title}" if sae and model != "trained" else title
        curves.append(_curve(title, own))
        if own["null"].is_not_null().any() and model == "trained":
            curves.append(Curve(f"{title}, null" if sae else "null", _x(own), _y(own, "null"), control=True))
    trend, title = verdict_of(moved, name), name.replace("_", " ")
    if trend is not None:
        title += f" {VERDICT_WORDS[trend['verdict']]}, layer {trend['base']} to {trend['last']}: {trend['change']:+.2f}"
    return Panel(title, "layer", label, tuple(curves), x_whole=True)


def _histograms(rows: pl.DataFrame) -> list[Panel]:
    """A panel for each model and SAE, a curve for each layer."""
    layers, parts = sorted(rows["layer"].unique()), []
    for (model, sae), part in rows.group_by(["model", "sae"], maintain_order=True):
        curves = []
        for (layer,), own in part.group_by(["layer"], maintain_order=True):
            middle = tuple(sum(float(end) for end in name.split("_")[-2:]) / 2 for name in own["metric"])
            colour = shade(layers.index(layer), len(layers))
            curves.append(Curve(f"layer {layer}", middle, _y(own, "value"), colour=colour))
        parts.append(Panel(f"{model}: {sae}", "0 text only, 1 image only", "share of latents", tuple(curves)))
    return parts


def _curve(label: str, rows: pl.DataFrame) -> Curve:
    return Curve(label, _x(rows), _y(rows, "value"), _y(rows, "low"), _y(rows, "high"))


def _x(rows: pl.DataFrame) -> tuple[float, ...]:
    return tuple(map(float, rows["layer"]))


def _y(rows: pl.DataFrame, name: str) -> tuple[float, ...]:
    return tuple(float("nan") if v is None else float(v) for v in rows[name])


def summary_lines(table: pa.Table, trends: pa.Table) -> list[str]:
    """The main numbers in aligned lines: base and last layer of each measure, its trend, its null, and how well halves agree.

    Args:
        table: Rows of the `SHARING` contract.
        trends: Rows of the `SHARING_TRENDS` contract.
    """
    whole, moved = pl.DataFrame(pl.from_arrow(table)).sort("layer"), main_trends(trends)
    frame = main_rows(whole)
    lines = [f"  {'measure':31} {'first layer':>22} {'last layer':>22} {'null':>6} {'untrained, last':>16} {'halves r':>9}"]
    for name, _ in (*GEOMETRY, *CONCEPTS):
        own = frame.filter((pl.col("metric") == name) & (pl.col("model") == "trained"))
        if not len(own):
            continue
        control = frame.filter((pl.col("metric") == name) & (pl.col("model") == "untrained"))
        first, last = own.row(0, named=True), own.row(-1, named=True)
        null = "" if last["null"] is None else f"{last['null']:.3f}"
        other = "" if not len(control) or control["value"][-1] is None else f"{control['value'][-1]:.3f}"
        lines.append(f"  {name:31} {_shown(first):>22} {_shown(last):>22} {null:>6} {other:>16} {_reliability(own):>9}")
    lines.append("  trends, the same pairs left out at every layer:")
    for row in moved.filter(
        pl.col("model") == "trained", pl.col("metric").is_in([n for n, _ in (*GEOMETRY, *CONCEPTS)])
    ).to_dicts():
        of = " ".join(filter(None, (row["pooling"], "" if row["attribute"] is None else row["attribute"])))
        lines.append(f"  {row['metric']:31} {of:14} {change_in_words(row)}")
    listed = pl.col("metric").is_in([name for name, _ in LATENTS]) | pl.col("metric").str.starts_with("turned_by_")
    for row in whole.filter(listed).iter_rows(named=True):
        null = "" if row["null"] is None else f"{row['null']:.3f}"
        whose = f"{row['model']:9} {row['sae'] or '':22}"
        lines.append(f"  layer {row['layer']:2} {whose} {row['metric']:26} {_shown(row)} {null}")
    notes: dict[str, list[str]] = {}
    for row in whole.filter(pl.col("note").is_not_null()).iter_rows(named=True):
        of = [row["model"], row["sae"], None if row["pooling"] == "mean" else row["pooling"], row["attribute"]]
        whose = ", ".join(one for one in of if one is not None and one != "class")
        notes.setdefault(f"{row['metric']}, {{}}, {whose}: {row['note']}", []).append(str(row["layer"]))
    lines += [f"  note: {note.replace('{}', 'layer ' + ', '.join(layers), 1)}" for note, layers in notes.items()]
    return lines


def _shown(row: dict) -> str:
    if row["value"] is None:
        return "undefined"
    return f"{row['value']:.3f}{in_brackets(row['low'], row['high'], '{:.3f}'.format, otherwise='')}"


def _reliability(rows: pl.DataFrame) -> str:
    """Correlation over layers of the values from both halves of the pairs."""
    r = rows.drop_nulls(["half_one", "half_two"]).select(pl.corr("half_one", "half_two")).item() if len(rows) > 2 else None
    return "" if r is None or r != r else f"{r:.3f}"
