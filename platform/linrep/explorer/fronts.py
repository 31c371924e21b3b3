"""A search in a figure and in lines: FVU against L0 for each modality, a curve for each width."""

import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels
from linrep.stats.interval import in_brackets

MODALITIES = ("image", "text", "mean")


def front_figures(front: pa.Table, trials: pa.Table) -> dict[str, Figure]:
    """One figure a layer, a panel a modality: finished candidates by width, the front, and random directions."""
    frame, drawn = pl.DataFrame(pl.from_arrow(front)), {}
    for layer in frame["layer"].unique(maintain_order=True):
        here = frame.filter(pl.col("layer") == layer)
        n = len(pl.DataFrame(pl.from_arrow(trials)).filter(pl.col("layer") == layer))
        parts = [_panel(here.filter(pl.col("modality") == m), m) for m in MODALITIES if len(here.filter(pl.col("modality") == m))]
        title = (
            f"layer {layer}: {n} candidates, {here['candidate'].n_unique()} trained to the end; further down and to the left is "
        )
        drawn[f"front_layer{layer:02d}"] = panels(f"{title}better; 95% intervals", parts, alike="y")
    return drawn


def _panel(rows: pl.DataFrame, modality: str) -> Panel:
    curves = []
    for (architecture, width), part in rows.sort("l0").group_by(["architecture", "width"], maintain_order=True):
        # A curve over L0: of several learning rates or mixtures the best.
        best = part.sort("fvu_choice").unique("sparsity", keep="first", maintain_order=True).sort("l0")
        interval = best["fvu_low"].null_count() == 0
        curves.append(
            Curve(
                f"{architecture}, {width:,} latents", _column(best, "l0"), _column(best, "fvu"),
                _column(best, "fvu_low") if interval else None, _column(best, "fvu_high") if interval else None,
            )
        )  # fmt: skip
    line = rows.filter(pl.col("on_front")).sort("l0")
    curves.append(Curve("front", _column(line, "l0"), _column(line, "fvu"), control=True))
    known = line.filter(pl.col("control").is_not_null())
    if len(known):
        curves.append(Curve("random directions", _column(known, "l0"), _column(known, "control"), control=True))
    taken = rows.filter(pl.col("recommended")).head(1)
    mark = (_column(taken, "l0")[0], _column(taken, "fvu")[0], "recommended") if len(taken) else None
    log = all(bool((rows[name].drop_nulls().drop_nans() > 0).all()) for name in ("fvu", "fvu_low", "control"))
    words = "mean of both" if modality == "mean" else f"held-out {modality} tokens"
    label = "fraction of variance unexplained"
    return Panel(words, "L0: latents active a token", label, tuple(curves), x_log=True, y_log=log, mark=mark)


def _column(frame: pl.DataFrame, name: str) -> tuple[float, ...]:
    return tuple(float(value) for value in frame[name])


MOST_LAYERS = 3
"""Layers that the headline speaks of."""


def search_headline(front: pa.Table) -> list[str]:
    """Which SAE to take at each layer, a sentence each, with what it leaves unexplained; see `schemas.tuning`."""
    taken = pl.DataFrame(pl.from_arrow(front)).filter("recommended")
    layers, said = taken["layer"].unique(maintain_order=True).to_list(), []
    for layer in layers[:MOST_LAYERS]:
        rows = taken.filter(pl.col("layer") == layer, pl.col("modality") != "mean").to_dicts()
        parts = [_in_words(row) for row in rows]
        said.append(f"Take {rows[0]['candidate']} at layer {layer}: {' and '.join(parts)}; chosen on other held-out rows.")
    if len(layers) > MOST_LAYERS:
        said.append(f"The front of each of the {len(layers)} layers says what to take there.")
    return said


def _in_words(row: dict) -> str:
    control = "" if row["control"] is None else f" (random directions {row['control']:.3f})"
    interval = in_brackets(row["fvu_low"], row["fvu_high"], "{:.3f}".format)
    return f"FVU {row['fvu']:.3f}{interval} of {row['modality']} tokens{control} at L0 {row['l0']:.1f}"


def search_lines(front: pa.Table, trials: pa.Table, rows: int, whole: int | None, reasons: dict[int, str]) -> list[str]:
    """What came out, for reading.

    Args:
        front: See `schemas.tuning`.
        trials: Likewise.
        rows: Rows trained on, over all candidates.
        whole: Rows that training all of them to their end takes; None where that is not known.
        reasons: By layer, why the recommended candidate is the one to take.
    """
    all_, frame = pl.DataFrame(pl.from_arrow(trials)), pl.DataFrame(pl.from_arrow(front))
    counts = dict(all_.group_by("status").len().iter_rows())
    said = ", ".join(f"{counts.get(name, 0)} {name}" for name in ("finished", "stopped", "failed"))
    share = "" if not whole else f", {rows / whole:.0%} of the {whole:,} that training all to their end takes"
    lines = [f"  {len(all_)} candidates: {said}; {rows:,} rows{share}"]
    for layer in frame["layer"].unique(maintain_order=True):
        here = frame.filter((pl.col("layer") == layer) & (pl.col("modality") == "mean"))
        lines.append(
            f"  front of layer {layer}: chosen on one half of held-out rows, FVU from the other (random directions in brackets):"
        )
        for row in here.filter(pl.col("on_front")).sort("l0").iter_rows(named=True):
            each = frame.filter((pl.col("candidate") == row["candidate"]) & (pl.col("modality") != "mean"))
            parts = [_shown(r) for r in each.iter_rows(named=True)]
            lines.append(
                f"    L0 {row['l0']:6.1f}  {row['candidate']:38s} {'; '.join(parts)}{' <--' if row['recommended'] else ''}"
            )
        lines.append(f"  recommended: {reasons.get(layer, 'nothing was trained to its end')}")
    for row in all_.filter(pl.col("status") == "failed").iter_rows(named=True):
        lines.append(f"  failed: {row['candidate']}: {row['reason']}")
    return lines


def _shown(row: dict) -> str:
    """A candidate in one modality: FVU, its interval, and that of random directions, a dash where that is not known."""
    control = "-" if row["control"] is None else f"{row['control']:.3f}"
    return f"{row['modality']} {row['fvu']:.3f}{in_brackets(row['fvu_low'], row['fvu_high'], '{:.3f}'.format)} ({control})"
