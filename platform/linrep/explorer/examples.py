"""What shows a finding: a few rows of its tables in words, and the images that they are of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from linrep.explorer.claims import Example, Thumbnail
from linrep.explorer.drawing import Drawing
from linrep.explorer.sharing_words import main_rows
from linrep.explorer.steering import best_cell, steer_examples
from linrep.stats.interval import in_brackets

MOST = 5
"""Examples of a claim."""
SHOWN_IMAGES = 4
"""Images of a latent."""
HEAT = "Their strongest images are bright where the latent fires and dim where it is silent."


class Patch(NamedTuple):
    """A patch of an image on which a latent fires: tile, row and column as in the store, and how strongly."""

    tile: int
    row: int
    col: int
    activation: float


Draw = Callable[[str, Sequence[Patch]], Drawing | None]
"""Gives a sample's image in small, bright where the patches say if there are some; None where it cannot be had."""
TopOf = Callable[[str, int, int], pa.Table]
"""Gives examples of a latent, by its SAE's name, the layer and its number; see `schemas.features.FEATURE_EXAMPLES`."""


def no_images(sample: str, patches: Sequence[Patch]) -> None:
    """Draws nothing."""


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


Shown = tuple[str, list[Example]]
"""What all the examples are, and the examples."""


def of_probes(probes: pa.Table, classes: pa.Table) -> Shown:
    """The classes that are read worst, by the probe that is best on validation samples."""
    best = _frame(probes).filter(pl.col("attribute") == "class", pl.col("tested_on") == "image", pl.col("k").is_null())
    best = best.filter(pl.col("fitted_on") == "image", pl.col("n_per_class").is_null()).sort(
        "validation", descending=True, nulls_last=True
    )
    if not len(best):
        return "", []
    row = best.row(0, named=True)
    which = [pl.col(name) == row[name] for name in ("attribute", "view", "layer", "kind", "tested_on")]
    own = _frame(classes).filter(*which).drop_nulls("accuracy").unique("class_name", keep="first", maintain_order=True)
    note = f"The classes that are read worst, by {row['kind']} probes of {row['view']} rows at layer {row['layer']}; chosen and "
    return note + "reported on the same rows.", [
        Example(
            f"{r['class_name']}: {r['accuracy']:.2f}{in_brackets(r['accuracy_low'], r['accuracy_high'], '{:.2f}'.format)} of "
            f"{r['n_test']} test rows"
        )
        for r in own.sort("accuracy", maintain_order=True).head(MOST).iter_rows(named=True)
    ]


def of_steering(effects: pa.Table, verdicts: pa.Table, draw: Draw) -> Shown:
    """Answers before and after the edit with the best trade, with the images asked about."""
    best = best_cell(effects)
    turned = [] if best is None else steer_examples(verdicts, best, MOST)
    shown = [Example(str(one), _images([(one.sample, (), f"{one.source}, {one.sample}")], draw)) for one in turned]
    return "Answers before and after the edit, about images that no direction was made from.", shown


def of_features(labels: pa.Table, top_of: TopOf, draw: Draw) -> Shown:
    """Latents that separate a value best: chosen by F1 on one half of the samples, with the F1 on the other half."""
    own = _frame(labels).filter(~pl.col("sae").str.ends_with("/random"))
    best = own.sort("f1_chosen", descending=True).unique(["attribute", "value"], keep="first", maintain_order=True).head(MOST)
    note = (
        "Latents that separate a value best, one for each value; F1 is of the half of the samples that they were not chosen on."
    )
    return f"{note} {HEAT}", [
        Example(
            f"latent {r['latent']} of {r['sae']}, layer {r['layer']}: {r['attribute']} {r['value']} in {r['modality']}s, "
            f"F1 {r['f1']:.2f}",
            _of_latent(r, top_of, draw),
        )
        for r in best.iter_rows(named=True)
    ]


def of_explanations(explanations: pa.Table, top_of: TopOf, draw: Draw) -> Shown:
    """The first explanations, as they come, with the strongest images of their latents."""
    table = _frame(explanations).drop_nulls("explanation").filter(~pl.col("sae").str.ends_with("/random"))
    return f"The first explanations, as they come. {HEAT}", [
        Example(f"latent {r['latent']} of {r['sae']}, layer {r['layer']}: {r['explanation']}", _of_latent(r, top_of, draw))
        for r in table.head(MOST).iter_rows(named=True)
    ]


def of_sharing(sharing: pa.Table) -> Shown:
    """Measures of the trained model at the first and the last layer."""
    frame = _frame(sharing).sort("layer")
    own = main_rows(frame).filter(pl.col("model") == "trained", pl.col("sae").is_null()).drop_nulls("value")
    found = []
    for metric in ("hub_centred", "cka_debiased", "neighbourhood_overlap", "direction_cosine", "transfer_text_to_image_centred"):
        rows = own.filter(pl.col("metric") == metric)
        if len(rows):
            ends = [rows.row(i, named=True) for i in (0, -1)]
            found.append(Example(f"{metric}: " + ", ".join(_of_layer(row) for row in ends)))
    return "The trained model at the first and the last layer.", found


def _of_layer(row: Mapping[str, Any]) -> str:
    interval = in_brackets(row["low"], row["high"], "{:.2f}".format, otherwise="")
    null = "" if row["null"] is None else f" (null {row['null']:.2f})"
    return f"layer {row['layer']} {row['value']:.2f}{interval}{null}"


def _of_latent(row: Mapping[str, Any], top_of: TopOf, draw: Draw) -> list[Thumbnail]:
    """The images on which a latent is strongest, each with the patches on which it fires."""
    table = _frame(top_of(row["sae"], row["layer"], row["latent"]))
    top = table.filter(pl.col("modality") == "image", pl.col("kind") == "top").sort("rank").head(SHOWN_IMAGES)
    wanted = [
        (
            r["sample_id"],
            tuple(map(Patch, r["tiles"], r["rows"], r["cols"], r["activations"])),
            f"latent {row['latent']} fires on {r['n_active']} of {r['n_held']} patches of {r['sample_id']}",
        )
        for r in top.iter_rows(named=True)
    ]
    return _images(wanted, draw)


def _images(wanted: Sequence[tuple[str, Sequence[Patch], str]], draw: Draw) -> list[Thumbnail]:
    drawn = [(draw(sample, patches), alt) for sample, patches, alt in wanted]
    return [Thumbnail(one, alt) for one, alt in drawn if one is not None]
