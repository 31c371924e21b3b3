"""Figures, lines and numbers of interpretations: how well explanations tell when latents fire, beside their controls."""

import numpy as np
import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels

GOOD = 0.8
"""Balanced accuracy from which on an explanation counts as good."""
TASKS = ("detection", "fuzzing", "overlap")
BINS = 20


def score_figures(scores: pa.Table) -> dict[str, Figure]:
    """A histogram of the scores for each layer, tasks and modalities in panels; controls grey.

    Args:
        scores: Rows of the `SCORES` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(scores)).drop_nulls("value")
    figures = {}
    for layer in sorted(set(frame["layer"])):
        own = frame.filter(pl.col("layer") == layer)
        parts = [
            _panel(task, modality, rows)
            for task in TASKS
            for modality in ("image", "text")
            if len(rows := own.filter((pl.col("task") == task) & (pl.col("modality") == modality)))
        ]
        if parts:
            figures[f"interpret_layer{layer:02d}"] = panels(f"explanations of the latents of layer {layer}", parts)
    return figures


def _panel(task: str, modality: str, rows: pl.DataFrame) -> Panel:
    curves = []
    for (dictionary, control), own in sorted(rows.group_by(["dictionary", "control"]), key=lambda item: str(item[0])):
        counts, edges = np.histogram(own["value"].to_numpy(), BINS, (0, 1))
        middle = tuple((edges[:-1] + edges[1:]) / 2)
        label = f"{dictionary}, {control} (n {len(own)})"
        plain = control == "own" and not str(dictionary).endswith("/random")
        curves.append(Curve(label, middle, tuple(counts / len(own)), control=not plain))
    x_label = "intersection over union" if task == "overlap" else "balanced accuracy"
    return Panel(f"{task}, {modality}", x_label, "share of latents", tuple(curves))


def score_metrics(scores: pa.Table) -> dict[str, float]:
    """Median, mean, share of good ones and number of latents, by task, modality, control, dictionary and layer."""
    frame = pl.DataFrame(pl.from_arrow(scores)).drop_nulls("value")
    named = {}
    for (layer, dictionary, task, modality, control), own in frame.group_by(
        ["layer", "dictionary", "task", "modality", "control"]
    ):
        start, end = f"{task}_{modality}_{control}", f"{dictionary}_layer{layer:02d}"
        values = own["value"].to_numpy()
        for name, value in (
            ("median", float(np.median(values))),
            ("mean", float(values.mean())),
            ("good", float((values > GOOD).mean())),
            ("n", float(len(values))),
        ):
            named[f"{start}_{name}_{end}"] = value
    return named


def summary_lines(scores: pa.Table, explanations: pa.Table, alive: dict[str, int], width: dict[str, int]) -> list[str]:
    """The main numbers in aligned lines.

    Args:
        scores: Rows of the `SCORES` contract.
        explanations: Rows of the `EXPLANATIONS` contract.
        alive: Latents that fire at all, by layer/dictionary.
        width: Latents in all.
    """
    frame, said = (pl.DataFrame(pl.from_arrow(table)) for table in (scores, explanations))
    lines = []
    for (layer, dictionary), own in frame.group_by(["layer", "dictionary"], maintain_order=True):
        key = f"{layer}/{dictionary}"
        texts = said.filter((pl.col("layer") == layer) & (pl.col("dictionary") == dictionary))
        human = int((texts["source"] == "human").sum())
        lines.append(
            f"  layer {layer}, {dictionary}: {len(texts)} latents drawn of {alive[key]} alive among {width[key]}; "
            f"{texts['explanation'].count()} explained" + (f", {human} of them by people" if human else "")
        )
        lines.append(f"    {'':24} {'mean':>6} {'median':>7} {'above .8':>9} {'latents':>8} {'shuffled: mean':>15} {'n':>5}")
        for task in TASKS:
            for modality in ("image", "text"):
                some = own.filter((pl.col("task") == task) & (pl.col("modality") == modality))
                line = _line(f"{task}, {modality}", some)
                if line:
                    lines.append(line)
    return lines


def _line(name: str, rows: pl.DataFrame) -> str | None:
    if not len(rows):
        return None
    own, control = (
        rows.filter((pl.col("control") == "own") == is_own)["value"].drop_nulls().to_numpy() for is_own in (True, False)
    )
    if not len(own):
        return f"    {name:24} no latent with enough answers"
    unscored = int(rows.filter(pl.col("control") == "own")["value"].null_count())
    shuffled = f"{control.mean():15.3f} {len(control):5d}" if len(control) else f"{'none':>15}"
    tail = f"  ({unscored} more have too few samples)" if unscored else ""
    good = f"{(own > GOOD).mean():9.2f}" if not name.startswith("overlap") else f"{'':9}"
    return f"    {name:24} {own.mean():6.3f} {np.median(own):7.3f} {good} {len(own):8d} {shuffled}{tail}"
