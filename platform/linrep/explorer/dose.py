"""Figures of steering: dose-response, layer curves with their controls, damage against efficacy."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels
from linrep.steer.intervals import estimate

Row = dict[str, Any]


def layer_figure(effects: pa.Table, measure: str, meaning: str) -> Figure:
    """A measure over layers at the largest strength, a panel for each site, controls dashed."""
    rows = [row for row in effects.to_pylist() if row["measure"] == measure and row["edit"] == "add"]
    strongest = max((row["strength"] for row in rows), default=0.0)
    rows = [row for row in rows if row["strength"] == strongest]
    parts = [
        Panel(f"{site}: strength {strongest:g}", "layer", meaning, _curves(some, "layer"), y_range=_range(measure), x_whole=True)
        for site, some in _grouped(rows, lambda row: row["site"])
    ]
    return panels("", parts, n_columns=2)


def edits_figure(effects: pa.Table, measure: str, meaning: str) -> Figure:
    """A measure of the edits that are no additions over layers, a panel for each site and edit, controls dashed."""
    rows = [row for row in effects.to_pylist() if row["measure"] == measure and row["edit"] not in ("none", "add")]
    named = [{**row, "direction": row["direction"] or row["edit"]} for row in rows]
    parts = [
        Panel(f"{site}: {edit}", "layer", meaning, _curves(some, "layer"), y_range=_range(measure), x_whole=True)
        for (site, edit), some in _grouped(named, lambda row: (row["site"], row["edit"]))
    ]
    return panels("", parts, n_columns=2)


def dose_figure(effects: pa.Table, measure: str, meaning: str, site: str) -> Figure:
    """A measure over strengths at one site, a panel for each layer, controls dashed."""
    rows = [row for row in effects.to_pylist() if row["measure"] == measure and row["edit"] == "add" and row["site"] == site]
    (plain, *_) = [row for row in effects.to_pylist() if row["measure"] == measure and row["edit"] == "none"] or [None]
    if plain is not None:  # every dose-response begins at the unedited run
        rows = [
            {**plain, **{name: row[name] for name in ("site", "layer", "direction", "control")}, "strength": 0.0} for row in rows
        ] + rows
    parts = [
        Panel(f"{site}, layer {layer}", "strength", meaning, _curves(some, "strength"), y_range=_range(measure))
        for layer, some in _grouped(rows, lambda row: row["layer"])
    ]
    return panels("", parts, n_columns=4)


def harm_figure(effects: pa.Table, site: str) -> Figure:
    """Efficacy against damage at one site: the further up and to the left, the better; strengths are joined by lines."""
    found = {
        (row["layer"], row["direction"], row["strength"], row["measure"]): row["value"]
        for row in effects.to_pylist()
        if row["edit"] == "add" and row["site"] == site and row["measure"] in ("p_target", "damage")
    }
    controls = {row["direction"] for row in effects.to_pylist() if row["control"]}
    parts = []
    for layer in sorted({key[0] for key in found}):
        curves = []
        for direction in dict.fromkeys(key[1] for key in found if key[0] == layer):
            strengths = sorted({key[2] for key in found if key[:2] == (layer, direction)})
            both = [(found.get((layer, direction, s, "damage")), found.get((layer, direction, s, "p_target"))) for s in strengths]
            x, y = zip(*[(a, b) for a, b in both if a is not None and b is not None] or [(math.nan, math.nan)], strict=True)
            curves.append(Curve(str(direction), x, y, control=direction in controls))
        parts.append(Panel(f"{site}, layer {layer}", "damage in nats a token", "p(target)", tuple(curves), y_range=(0, 1.02)))
    return panels("", parts, n_columns=4)


def lens_figure(lens: pa.Table) -> Figure:
    """What image tokens would say at every layer: the right class's name against the other classes' names."""
    own, others, share = lens_curves(lens)
    classes = next((row["n_classes"] for row in lens.to_pylist() if row["error"] is None), 1)
    return panels(
        "Logit lens on image tokens",
        [
            Panel("", "layer", "probability of the name", (own, others), x_whole=True),
            Panel(
                "", "layer", "share of tokens nearest to it", (share,), (1 / max(1, classes), "chance"), (0, 1.02), x_whole=True
            ),
        ],
        n_columns=2,
    )


def lens_curves(lens: pa.Table) -> tuple[Curve, Curve, Curve]:
    """The logit lens over layers: probability of the right class's name, of the others' names, share of tokens nearest to it.

    Intervals are over classes and images.

    Args:
        lens: Rows of the `LENS` contract.
    """
    rows = [row for row in lens.to_pylist() if row["error"] is None and row["p_class"] is not None]
    layers = sorted({row["layer"] for row in rows})
    classes = sorted({row["class_name"] for row in rows})

    def line(label: str, column: str, control: bool = False) -> Curve:
        found = []
        for layer in layers:
            here = [row for row in rows if row["layer"] == layer]
            of_class = np.array([classes.index(row["class_name"]) for row in here])
            value = np.array([row[column] for row in here], float)
            found.append(estimate(of_class, np.zeros_like(of_class), np.arange(len(here)), value, "bounded"))
        low, high = (tuple(getattr(e, end) for e in found) for end in ("low", "high"))
        return Curve(label, tuple(map(float, layers)), tuple(e.value for e in found), low, high, control)

    return (
        line("the right class", "p_class"),
        line("other classes, mean", "p_others", control=True),
        line("the right class", "top_class"),
    )


def _curves(rows: Sequence[Row], x: str) -> tuple[Curve, ...]:
    found = []
    for direction, some in _grouped(rows, lambda row: row["direction"]):
        line = sorted({row[x]: row for row in some}.values(), key=lambda row: row[x])
        low, high = (tuple(row[end] if row[end] is not None else row["value"] for row in line) for end in ("low", "high"))
        found.append(
            Curve(
                label=str(direction),
                x=tuple(float(row[x]) for row in line),
                y=tuple(row["value"] for row in line),
                low=low,
                high=high,
                control=bool(line[0]["control"]),
            )
        )
    return tuple(found)


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[tuple[Any, list[Row]]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return list(found.items())


def _range(measure: str) -> tuple[float, float] | None:
    shares = ("p_target", "turned", "left", "coherence", "kept_", "turned_kept_", "answered")
    return (0.0, 1.02) if measure.startswith(shares) and "_over_" not in measure and not measure.endswith("_gain") else None
