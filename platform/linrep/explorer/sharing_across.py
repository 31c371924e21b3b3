"""Figure and lines of sharing across layers: images at one layer beside texts at every other."""

from collections.abc import Iterator

import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.maps import Map, maps
from linrep.explorer.sharing_words import TOKENS
from linrep.stats.interval import in_brackets

MEAN_MAPS = (
    ("class_retrieval_text_to_image", "class", "text class finds its image class"),
    ("transfer_text_to_image_centred", "class", "probe of texts on images"),
    ("transfer_image_to_text_centred", "class", "probe of images on texts"),
    ("cka_debiased", None, "linear CKA, debiased"),
)
"""Maps that are drawn of means alone, behind those of directions: metric, attribute, label."""
CELLS = ("image_layer", "text_layer")


def across_figure(across: pa.Table) -> Figure | None:
    """Maps of the measures by image layer and text layer; None where no two layers were compared.

    Args:
        across: Rows of the `SHARING_ACROSS` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(across)).sort(CELLS)
    parts = [_map(own, label) for own, label in _wanted(frame) if len(own.drop_nulls("value"))]
    title = (
        "Images at one layer beside texts at every other; the line marks equal layers, dots the text layers that are best for "
        "an image layer, white the null"
    )
    return maps(title, parts) if parts else None


def _wanted(frame: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, str]]:
    """Rows of each map with its label: directions of classes for every choice of tokens, then of means whatever else there is."""
    trained = frame.filter(pl.col("model") == "trained")
    cosines = pl.col("metric") == "direction_cosine"
    for pooling, words in TOKENS.items():
        yield trained.filter(cosines, pl.col("pooling") == pooling, pl.col("attribute") == "class"), f"class directions, {words}"
    of_means = trained.filter(pl.col("pooling") == "mean")
    for other in of_means.filter(cosines, pl.col("attribute") != "class")["attribute"].unique(maintain_order=True):
        yield of_means.filter(cosines, pl.col("attribute") == other), f"{other} directions, {TOKENS['mean']}"
    for metric, attribute, label in MEAN_MAPS:
        which = pl.col("attribute").is_null() if attribute is None else pl.col("attribute") == attribute
        yield of_means.filter(pl.col("metric") == metric, which), f"{label}, {TOKENS['mean']}"
    untrained = pl.col("model") == "untrained"
    yield (
        frame.filter(untrained, cosines, pl.col("pooling") == "mean", pl.col("attribute") == "class"),
        f"untrained model: class directions, {TOKENS['mean']}",
    )


def _map(rows: pl.DataFrame, label: str) -> Map:
    layers = tuple(rows["image_layer"].unique().sort())
    by_cell = {(row["image_layer"], row["text_layer"]): row for row in rows.iter_rows(named=True)}
    cells = [[by_cell[i, j] for j in layers] for i in layers]
    null = rows["null"].drop_nulls()
    return Map(
        f"{label}; null {null.mean():.2f}",
        "text layer",
        "image layer",
        layers,
        tuple(tuple(float("nan") if c["value"] is None else c["value"] for c in row) for row in cells),
        tuple(tuple(bool(c["best"]) and above_null(c) for c in row) for row in cells),
        float(null.mean()),  # pyright: ignore[reportArgumentType]
    )


def above_null(row: dict) -> bool:
    """Whether a value's interval lies above its null."""
    return row["low"] is not None and row["null"] is not None and row["low"] > row["null"]


def across_lines(across: pa.Table) -> list[str]:
    """Where the best text layer lies for each image layer, in a line for each choice of tokens and attribute.

    Args:
        across: Rows of the `SHARING_ACROSS` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(across)).sort(CELLS)
    cosines = frame.filter(pl.col("metric") == "direction_cosine")
    lines = []
    for (model, pooling, attribute), own in cosines.group_by(["model", "pooling", "attribute"], maintain_order=True):
        if len(own.drop_nulls("value")):
            whose = "" if model == "trained" else f"{model} model: "
            lines.append(f"  {whose}{attribute} directions, {TOKENS[str(pooling)]}: {best_words(own)}")
    return ["  across layers, the text layer whose directions agree best with each image layer's:", *lines] if lines else []


def best_words(rows: pl.DataFrame) -> str:
    """The best text layer of each image layer with the layers that cannot be separated from it, and where they lie.

    Args:
        rows: Rows of the `SHARING_ACROSS` contract of one curve.
    """
    said, sides = [], {"on": [], "above": [], "below": []}
    for (i,), own in rows.sort(CELLS).group_by(["image_layer"], maintain_order=True):
        valued = own.drop_nulls("value")
        top = valued.sort("value", descending=True, maintain_order=True).row(0, named=True) if len(valued) else None
        if top is None or not above_null(top):
            said.append(f"{i} none above its null")
            continue
        best = valued.filter(pl.col("best"))["text_layer"].to_list()
        said.append(f"{i} {top['text_layer']}{in_brackets(min(best), max(best), str)}")
        sides["on" if i in best else "above" if min(best) > i else "below" if max(best) < i else "above"].append(i)
    where = [f"{len(layers)} {SIDES[side]}" for side, layers in sides.items() if layers]
    return f"{'; '.join(said)}. " + (f"Of image layers {', '.join(where)}." if where else "No image layer has one.")


SIDES = {
    "on": "have their own layer among the best",
    "above": "have the best later",
    "below": "have the best earlier",
}
