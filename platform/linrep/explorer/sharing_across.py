"""Figure and lines of sharing across layers: images at one layer beside texts at every other."""

from collections.abc import Iterator

import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.maps import Map, maps
from linrep.explorer.sharing_words import TOKENS

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
    frame = pl.DataFrame(pl.from_arrow(across)).sort(CELLS, maintain_order=True)
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
    frame = pl.DataFrame(pl.from_arrow(across)).sort(CELLS, maintain_order=True)
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
    found = best_layers(rows)
    if not any(best for _, best in found.values()):
        return "none above its null"
    said = [f"{i} {top} [{_runs(best)}]" if best else f"{i} none above its null" for i, (top, best) in found.items()]
    return f"{'; '.join(said)}. {_sides(found)}"


Best = dict[int, tuple[int | None, list[int]]]
"""By image layer the text layer of the largest value, and the text layers that cannot be separated from it."""


def best_layers(rows: pl.DataFrame) -> Best:
    """The best text layers of each image layer; none where even the largest value is not above its null."""
    found: Best = {}
    for (i,), own in rows.sort(CELLS).group_by(["image_layer"], maintain_order=True):
        cells = [row for row in own.drop_nulls("value").iter_rows(named=True) if row["best"] and above_null(row)]
        top = max(cells, key=lambda row: row["value"], default=None)
        found[int(i)] = (None if top is None else top["text_layer"], [row["text_layer"] for row in cells])  # pyright: ignore[reportArgumentType]
    return found


def _runs(layers: list[int]) -> str:
    """Layers as people list them: 1-3, 6."""
    ends = [k for k in layers if k - 1 not in layers], [k for k in layers if k + 1 not in layers]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(*ends, strict=True))


def _sides(found: Best) -> str:
    """At how many image layers the own layer is among the best, and where those are at the others."""
    there = {i: best for i, (_, best) in found.items() if best}
    own = sum(i in best for i, best in there.items())
    later, earlier = (
        sum(i not in best and (found[i][0] > i) == after for i, best in there.items())  # pyright: ignore[reportOptionalOperand]
        for after in (True, False)
    )
    said = f"The own layer is among the best at {own} of {len(there)} image layers"
    return said + (f", later ones at {later}" if later else "") + (f", earlier ones at {earlier}" if earlier else "") + "."


def across_headline(across: pa.Table) -> list[str]:
    """Where class directions of texts lie that agree best with those of images, in a sentence for each choice of tokens.

    Args:
        across: Rows of the `SHARING_ACROSS` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(across))
    sentences = []
    for pooling, words in TOKENS.items():
        own = frame.filter(
            pl.col("metric") == "direction_cosine",
            pl.col("model") == "trained",
            pl.col("pooling") == pooling,
            pl.col("attribute") == "class",
        )
        found = best_layers(own)
        if any(best for _, best in found.values()):
            listed = ", ".join(f"{top} for {i}" for i, (top, best) in found.items() if best)
            sentences.append(f"Across layers, class directions of {words} agree best at text layer {listed}. {_sides(found)}")
    return sentences
