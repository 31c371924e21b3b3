"""Figures from results: pure functions that give matplotlib figures. Nothing is shown, saved or read here."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#3b3b3b")
"""Distinct for colour-blind readers (Okabe and Ito, 2008, two darker ones added)."""
GREY = "#8a8a8a"
CONTROL_STYLES = ("--o", ":s", "-.^", "--D")
WIDE, HIGH = 3.5, 2.7
"""A panel, in inches: two stand side by side on a sheet of A4 at their full size."""
CROWD = 3
"""From so many curves with intervals on, each interval is a bar of its own, side by side: bands would hide one another."""
ASIDE = 0.32
"""How far such curves stand apart in all, in steps of the axis."""


def shade(i: int, n: int) -> str:
    """The colour of the i-th of n things that have an order, such as layers: from dark to light, readable on white.

    >>> shade(0, 3), shade(2, 3)
    ('#440154', '#7ad151')
    """
    return to_hex(colormaps["viridis"](0.8 * i / max(n - 1, 1)))


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
        colour: Number among `COLOURS`, so that a kind keeps its colour from panel to panel, or a colour; None for the next one.
        left: Lower ends of the intervals of x, where x was measured, too.
        right: Upper ends.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    control: bool = False
    colour: int | str | None = None
    left: tuple[float, ...] | None = None
    right: tuple[float, ...] | None = None


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
        y_log: Whether the upward axis is logarithmic.
        mark: A point that is pointed out, and what it is.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    reference: tuple[float, str] | None = None
    y_range: tuple[float, float] | None = None
    x_log: bool = False
    x_whole: bool = False
    y_log: bool = False
    mark: tuple[float, float, str] | None = None


def panels(title: str, parts: Sequence[Panel], n_columns: int = 3, alike: str = "") -> Figure:
    """Several pairs of axes in a grid.

    Args:
        title: What stands above all of them; empty for none.
        parts: The panels, row by row.
        n_columns: Panels in a row, at most.
        alike: Axes with the same ends in all panels: "x", "y", "xy" or none.
    """
    columns = max(1, min(n_columns, len(parts)))
    rows = max(1, math.ceil(len(parts) / columns))
    figure = Figure(figsize=(max(5.0, WIDE * columns), HIGH * rows + (0.4 if title else 0) + 0.3), dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    controls: dict[str, str] = {}  # a control looks the same in every panel
    for axes, part in zip(grid.flat, parts, strict=False):
        _draw(axes, part, controls)
    for axis in alike:
        _align(list(grid.flat)[: len(parts)], axis)
    for axes in list(grid.flat)[len(parts) :]:
        axes.set_visible(False)
    _explain(figure, list(grid.flat)[: len(parts)])
    if title:
        wide = round(figure.get_figwidth() * 12.5)  # characters of the title's size
        figure.suptitle("\n".join(textwrap.wrap(title, wide)), fontsize=11, x=0.01, ha="left")
    return figure


def _align(drawn: Sequence[Axes], axis: str) -> None:
    if len({getattr(axes, f"get_{axis}scale")() for axes in drawn}) != 1:
        return  # one is logarithmic, another has values that cannot be
    ends = [axes.get_xlim() if axis == "x" else axes.get_ylim() for axes in drawn]
    for axes in drawn:
        axes.set(**{f"{axis}lim": (min(low for low, _ in ends), max(high for _, high in ends))})


def _explain(figure: Figure, drawn: Sequence[Axes]) -> None:
    """One legend below all panels where a label looks the same in each; else one for each panel, beside it. None on data."""
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
        longest = max(map(len, lines)) + 8  # with the line in front
        n = max(1, min(len(lines), round(figure.get_figwidth() * 14 / longest)))
        figure.legend(list(lines.values()), list(lines), loc="outside lower center", fontsize=8, ncols=n, frameon=False)
        return
    for axes in drawn:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7)


def _draw(axes: Axes, panel: Panel, controls: dict[str, str]) -> None:
    colours = iter(COLOURS * (1 + len(panel.curves) // len(COLOURS)))
    crowd = [curve for curve in panel.curves if curve.low is not None and not curve.control]
    bars = len(crowd) >= CROWD
    for curve in panel.curves:
        if curve.control:
            style = controls.setdefault(curve.label, CONTROL_STYLES[len(controls) % len(CONTROL_STYLES)])
            axes.plot(curve.x, curve.y, style, color=GREY, label=curve.label, markersize=3.5)
            continue
        colour = next(colours) if curve.colour is None else curve.colour
        colour = COLOURS[colour % len(COLOURS)] if isinstance(colour, int) else colour
        if bars and curve in crowd:
            curve = _aside(panel, crowd, curve)
        axes.plot(curve.x, curve.y, "-o", color=colour, label=curve.label, markersize=3.5)
        _intervals(axes, curve, colour, bars)
    _control_band(axes, [curve for curve in panel.curves if curve.control])
    if panel.reference is not None:
        value, meaning = panel.reference
        axes.axhline(value, color="black", linewidth=0.9, linestyle=":", label=meaning)
    if panel.mark is not None:
        x, y, meaning = panel.mark
        axes.plot([x], [y], "*", color="black", markersize=13, markerfacecolor="none", label=meaning)
    axes.set_title("\n".join(textwrap.wrap(panel.title, 44)), fontsize=9)
    axes.set_xlabel(panel.x_label, fontsize=8.5)
    axes.set_ylabel("\n".join(textwrap.wrap(panel.y_label, 34)), fontsize=8.5)
    axes.tick_params(labelsize=8)
    if panel.y_range is not None:
        axes.set_ylim(*panel.y_range)
    if panel.y_log:
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    if panel.x_log:
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
    elif panel.x_whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(*_whole_ends([x for curve in panel.curves for x in curve.x]))
    axes.grid(alpha=0.25)


def _aside(panel: Panel, crowd: Sequence[Curve], curve: Curve) -> Curve:
    """A curve moved by a part of the axis' step, so that its bars stand beside the others'; not where its x are measured."""
    at = sorted({x for own in crowd for x in own.x})
    chosen = panel.x_whole or len({own.x for own in crowd}) == 1
    if not chosen or len(at) < 2 or any(own.left is not None for own in crowd):
        return curve
    part = ASIDE * (crowd.index(curve) / (len(crowd) - 1) - 0.5)
    if panel.x_log:
        step = min(b / a for a, b in pairwise(at))
        return replace(curve, x=tuple(x * step**part for x in curve.x))
    step = min(b - a for a, b in pairwise(at))
    return replace(curve, x=tuple(x + part * step for x in curve.x))


def _intervals(axes: Axes, curve: Curve, colour: str, bars: bool) -> None:
    """Bands along a curve; bars where there are many curves, or where x has intervals, too."""
    if curve.low is None or curve.high is None:
        return
    if curve.left is not None and curve.right is not None:
        axes.hlines(curve.y, curve.left, curve.right, color=colour, alpha=0.45, linewidth=1.1)
        bars = True
    if bars:
        axes.vlines(curve.x, curve.low, curve.high, color=colour, alpha=0.45, linewidth=1.4)
    else:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)


def _control_band(axes: Axes, controls: Sequence[Curve]) -> None:
    """One band that holds the intervals of all controls: several would pile up to a slab."""
    ends: dict[float, list[float]] = {}
    for curve in controls:
        if curve.low is not None and curve.high is not None and curve.left is None:
            for x, low, high in zip(curve.x, curve.low, curve.high, strict=True):
                ends.setdefault(x, []).extend(end for end in (low, high) if math.isfinite(end))
    at = sorted(x for x, own in ends.items() if own)
    if at:
        axes.fill_between(at, [min(ends[x]) for x in at], [max(ends[x]) for x in at], color=GREY, alpha=0.14, linewidth=0)


def _plain_ticks(axis: Axis) -> None:
    """Numbers as people write them: 20, not 2 x 10^1."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


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
