"""Figures from results: pure functions that give matplotlib figures. Nothing is shown, saved or read here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#3b3b3b")
"""Distinct for colour-blind readers (Okabe and Ito, 2008, two darker ones added)."""


@dataclass(frozen=True)
class Curve:
    """One line of a figure.

    Attributes:
        label: What the legend says.
        x: Layers, strengths, sizes ...
        y: Values; NaN leaves a gap.
        low: Lower ends of the intervals.
        high: Upper ends of the intervals.
        control: Drawn dashed and grey: what the effect is compared with.
        colour: Number among `COLOURS`, so that a kind keeps its colour from panel to panel; None for the next one.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    control: bool = False
    colour: int | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: What stands above it.
        x_label: The quantity to the right, with its unit.
        y_label: The quantity upwards, with its unit.
        curves: The lines.
        reference: A horizontal line and what it means, for example chance.
        y_range: Fixed ends of the upward axis, None to fit the data.
        x_log: Whether the axis to the right is logarithmic.
        x_whole: Whether only whole numbers are marked on it (layers).
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    reference: tuple[float, str] | None = None
    y_range: tuple[float, float] | None = None
    x_log: bool = False
    x_whole: bool = False


def panels(title: str, parts: Sequence[Panel], n_columns: int = 3) -> Figure:
    """Several pairs of axes in a grid.

    Args:
        title: What stands above all of them; empty for none.
        parts: The panels, row by row.
        n_columns: Panels in a row, at most.
    """
    columns = max(1, min(n_columns, len(parts)))
    rows = max(1, math.ceil(len(parts) / columns))
    figure = Figure(figsize=(max(6.4, 4.6 * columns), 3.9 * rows + (0.4 if title else 0)), dpi=110, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, part in zip(grid.flat, parts, strict=False):
        _draw(axes, part)
    for axes in list(grid.flat)[len(parts) :]:
        axes.set_visible(False)
    _explain(figure, list(grid.flat)[: len(parts)])
    if title:
        figure.suptitle(title)
    return figure


def _explain(figure: Figure, drawn: Sequence[Axes]) -> None:
    """One legend beside all panels where a label looks the same in each; else one for each panel, beside it. None on data."""
    looks: dict[str, set[tuple[object, ...]]] = {}
    lines: dict[str, Line2D] = {}
    for axes in drawn:
        for line in (one for one in axes.get_legend_handles_labels()[0] if isinstance(one, Line2D)):
            label = str(line.get_label())
            lines.setdefault(label, line)
            looks.setdefault(label, set()).add((line.get_color(), line.get_linestyle(), line.get_marker()))
    if not lines:
        return
    if all(len(own) == 1 for own in looks.values()):
        figure.legend(list(lines.values()), list(lines), loc="outside right upper", fontsize=8)
        return
    for axes in drawn:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7)


def _draw(axes: Axes, panel: Panel) -> None:
    colours = iter(COLOURS * (1 + len(panel.curves) // len(COLOURS)))
    controls = iter(("--o", ":s", "-.^", "--D") * (1 + len(panel.curves) // 4))
    for curve in panel.curves:
        colour = "#8a8a8a" if curve.control else next(colours) if curve.colour is None else COLOURS[curve.colour % len(COLOURS)]
        style = next(controls) if curve.control else "-o"
        axes.plot(curve.x, curve.y, style, color=colour, label=curve.label, markersize=3.5)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    if panel.reference is not None:
        value, meaning = panel.reference
        axes.axhline(value, color="black", linewidth=0.9, linestyle=":", label=meaning)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.y_range is not None:
        axes.set_ylim(*panel.y_range)
    if panel.x_log:
        axes.set_xscale("log")
    elif panel.x_whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(*_whole_ends([x for curve in panel.curves for x in curve.x]))
    axes.grid(alpha=0.25)


def _whole_ends(x: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis of whole numbers, with room beside the outermost; a single one stands in the middle."""
    if not x:
        return -0.5, 0.5
    room = max(0.04 * (max(x) - min(x)), 0.25)
    return min(x) - room, max(x) + room


def matrix(title: str, values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], label: str) -> Figure:
    """A table of numbers as shades, such as a confusion matrix.

    Args:
        title: What stands above.
        values: One sequence a row.
        rows: Names of the rows.
        columns: Names of the columns.
        label: What a shade means.
    """
    side = max(4.5, min(14.0, 0.32 * max(len(rows), len(columns)) + 2))
    figure = Figure(figsize=(side + 1, side), dpi=110, layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(values, cmap="Blues", vmin=0)
    if len(columns) <= 40:
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    if len(rows) <= 40:
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_title(title)
    figure.colorbar(shown, ax=axes, label=label, shrink=0.8)
    return figure
