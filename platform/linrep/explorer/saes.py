"""Dictionaries in pictures and lines: the trade between sparsity and loss, layer by layer, each beside random directions."""

from collections.abc import Mapping
from typing import Any

import matplotlib.figure
import polars as pl
import pyarrow as pa

SHOWN = ("fvu", "l0", "alive", "dense", "ce_recovered", "kl_recovered")


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


def summary_lines(tables: Mapping[str, pa.Table], reads: Mapping[str, list[str]]) -> list[str]:
    """The main numbers, a line a dictionary, with the random dictionary's in brackets."""
    quality = _frame(tables["quality"])
    lines = []
    for (layer, coder), part in quality.group_by(["layer", "coder"], maintain_order=True):
        values = {(r["measure"], r["modality"]): (r["value"], r["control"]) for r in part.iter_rows(named=True)}

        def said(measure: str, modality: str, values: dict = values) -> str:
            value, control = values.get((measure, modality), (None, None))
            beside = "" if control is None or measure == "l0" else f" ({control:.2f})"
            return "-" if value is None else f"{value:.3g}{beside}"

        both = "; ".join(
            f"{m}: FVU {said('fvu', m)}, L0 {said('l0', m)}, CE recovered {said('ce_recovered', m)}" for m in ("image", "text")
        )
        dead = values.get(("alive", "both"), values.get(("alive", "image"), (None, None)))[0]
        dead_said = "" if dead is None else f"; dead {1 - dead:.1%}"
        lines.append(f"  layer {layer} {coder}  {both}{dead_said}{_found(tables['truth'], layer, coder)}")
    lines += [f"  {name} read {'; '.join(said)}" for name, said in list(reads.items())[:1]]
    return ["  in brackets: random directions", *lines]


def _found(truth: pa.Table, layer: Any, coder: Any) -> str:
    frame = _frame(truth)
    if not len(frame):
        return ""
    part = frame.filter((pl.col("layer") == layer) & (pl.col("coder") == coder))
    shares = part.group_by("attribute", maintain_order=True).agg(
        (pl.col("f1") > 0.8).sum().alias("good"), pl.len().alias("of"), (pl.col("control") > 0.8).sum().alias("control")
    )
    said = ", ".join(f"{r['attribute']} {r['good']}/{r['of']} ({r['control']})" for r in shares.iter_rows(named=True))
    return f"; latents with F1 > .8: {said}" if said else ""


def card_lines(tables: Mapping[str, pa.Table], layer: int, coder: str) -> dict[str, Any]:
    """What a model card says of a dictionary: result and control by name."""
    here = (pl.col("layer") == layer) & (pl.col("coder") == coder)
    found: dict[str, Any] = {}
    for row in _frame(tables["quality"]).filter(here & pl.col("value").is_not_null()).iter_rows(named=True):
        if row["measure"] in SHOWN or row["measure"].startswith("stability"):
            beside = "" if row["control"] is None else f" (random directions: {row['control']:.4g})"
            found[f"{row['measure']}, {row['modality']}"] = f"{row['value']:.4g}{beside}"
    if len(tables["truth"]):
        part = _frame(tables["truth"]).filter(here)
        for (attribute,), rows in part.group_by(["attribute"], maintain_order=True):
            found[f"median F1 of the best latent, {attribute}"] = (
                f"{rows['f1'].median():.3f} (random directions: {rows['control'].median():.3f})"
            )
    return found


def figures(tables: Mapping[str, pa.Table]) -> dict[str, matplotlib.figure.Figure]:
    """Figures by name: quality over layers and over sparsity, and how few latents rebuild class directions."""
    quality = _frame(tables["quality"]).filter(pl.col("value").is_not_null())
    drawn = {}
    for measure in ("fvu", "ce_recovered", "kl_recovered"):
        part = quality.filter((pl.col("measure") == measure) & pl.col("modality").is_in(["image", "text"]))
        if len(part):
            drawn[f"layers_{measure}"] = _over_layers(part, measure)
    drawn["front"] = _front(quality)
    if len(tables["rebuilt"]):
        drawn["rebuilt"] = _rebuilt(_frame(tables["rebuilt"]))
    return drawn


def _over_layers(part: pl.DataFrame, measure: str) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for (coder, modality), rows in part.sort("layer").group_by(["coder", "modality"], maintain_order=True):
        style = "-" if modality == "image" else "--"
        (line,) = axes.plot(rows["layer"], rows["value"], style, marker="o", label=f"{coder}, {modality}")
        if measure == "fvu":
            axes.plot(rows["layer"], rows["control"], ":", color=line.get_color(), alpha=0.5)
    axes.set(xlabel="layer k", ylabel=measure, title="dotted: random directions" if measure == "fvu" else "")
    axes.legend(fontsize=7)
    return figure


def _front(quality: pl.DataFrame) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    wide = quality.filter(pl.col("measure").is_in(["fvu", "l0"])).pivot(
        "measure", index=["layer", "coder", "modality"], values="value"
    )
    for (modality, layer), rows in wide.filter(pl.col("modality") != "both").group_by(["modality", "layer"], maintain_order=True):
        rows = rows.sort("l0")
        axes.plot(rows["l0"], rows["fvu"], "-o" if modality == "image" else "--s", label=f"layer {layer}, {modality}")
    axes.set(xlabel="L0", ylabel="FVU on held-out rows", ylim=(0, None))
    axes.legend(fontsize=7)
    return figure


def _rebuilt(frame: pl.DataFrame) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for (layer, coder, kind), rows in frame.group_by(["layer", "coder", "vectors"], maintain_order=True):
        style = "-" if kind == "class" else ":"
        axes.plot(rows["n_latents"], rows["cosine"], style, label=f"layer {layer} {coder}, {kind}")
    axes.set(xlabel="latents", ylabel="cosine", title="dotted: random vectors of the same norms", ylim=(0, 1))
    axes.legend(fontsize=6)
    return figure
