"""Heat maps side by side: a value for each image layer and each text layer, white where it is its null."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SIDE = 3.3
"""A map with its scale, in inches."""
COLUMNS = 3


@dataclass(frozen=True)
class Map:
    """One map.

    Attributes:
        title: What stands above it.
        x_label: What the columns are.
        y_label: What the rows are, from the bottom up.
        names: Of rows and columns, which are the same.
        values: One sequence a row; NaN leaves a cell grey.
        marked: Cells with a dot.
        null: Value of the white cells.
    """

    title: str
    x_label: str
    y_label: str
    names: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]
    marked: tuple[tuple[bool, ...], ...]
    null: float


def maps(title: str, parts: Sequence[Map]) -> Figure:
    """Several maps in a grid, each with its own scale.

    Args:
        title: What stands above all of them.
        parts: The maps, row by row.
    """
    columns = min(COLUMNS, len(parts))
    rows = math.ceil(len(parts) / columns)
    figure = Figure(figsize=(max(5.0, SIDE * columns), SIDE * rows + 0.6), dpi=150, layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, part in zip(grid, parts, strict=False):
        _draw(figure, axes, part)
    for axes in grid[len(parts) :]:
        axes.set_visible(False)
    wide = round(figure.get_figwidth() * 12.5)  # characters of the title's size
    figure.suptitle("\n".join(textwrap.wrap(title, wide)), fontsize=11, x=0.01, ha="left")
    return figure


def _draw(figure: Figure, axes: Axes, part: Map) -> None:
    values = np.array(part.values)
    # Symmetric about the null, so that equal distances are equally dark.
    reach = float(np.nanmax(np.abs(values - part.null))) or 1.0
    axes.set_facecolor("#d0d0d0")
    shown = axes.imshow(values, cmap="PuOr_r", vmin=part.null - reach, vmax=part.null + reach, origin="lower")
    axes.plot([-0.5, len(part.names) - 0.5], [-0.5, len(part.names) - 0.5], color="black", linewidth=0.8)
    y, x = np.nonzero(np.array(part.marked))
    axes.plot(x, y, "o", color="black", markersize=3)
    axes.set_xlim(-0.5, len(part.names) - 0.5)
    axes.set_ylim(-0.5, len(part.names) - 0.5)
    axes.set_xticks(range(len(part.names)), [str(name) for name in part.names])
    axes.set_yticks(range(len(part.names)), [str(name) for name in part.names])
    axes.tick_params(labelsize=8)
    axes.set_xlabel(part.x_label, fontsize=8.5)
    axes.set_ylabel(part.y_label, fontsize=8.5)
    axes.set_title("\n".join(textwrap.wrap(part.title, 40)), fontsize=9)
    figure.colorbar(shown, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
