"""Figures of steering: dose-response, layer curves with their controls, damage against efficacy."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels
from linrep.explorer.steering import SITES, best_cell
from linrep.steer.config import DONORS, INTERCHANGE, SAME_CLASS
from linrep.steer.intervals import estimate

Row = dict[str, Any]
DAMAGE = "damage: rise of the loss, nats a token"
WITH_INTERVALS = ("random",)
"""Controls whose intervals are drawn where intervals cross."""


def trade_figure(effects: pa.Table) -> Figure | None:
    """What the best layer of each site gives for its damage, controls beside; None without halves of the source classes.

    Layers are chosen on one half of the source classes, and all points are from the other. Strengths are joined by lines.

    Args:
        effects: Rows of the `EFFECTS` contract.
    """
    rows = [row for row in effects.to_pylist() if row["edit"] == "add"]
    best = best_cell(effects)
    if best is None:
        return None
    found = {(row["site"], row["layer"], row["direction"], row["strength"], row["measure"]): row for row in rows}
    controls = {row["direction"] for row in rows if row["control"]}
    parts = []
    for site in dict.fromkeys(row["site"] for row in rows):
        own = best_cell(effects.filter(pc.field("site") == site))
        if own is None:
            continue
        here = [key for key in found if key[:2] == (site, own["layer"])]
        curves = []
        for direction in sorted(dict.fromkeys(key[2] for key in here), key=lambda name: name in controls):
            strengths = sorted({key[3] for key in here if key[2] == direction})
            both = [[found.get((site, own["layer"], direction, s, m)) for m in ("damage", best["measure"])] for s in strengths]
            curve = _traded([(x, y) for x, y in both if x is not None and y is not None], str(direction), direction in controls)
            curves += [] if curve is None else [curve]
        x, y = (
            found.get((*(own[name] for name in ("site", "layer", "direction", "strength")), m))
            for m in ("damage", best["measure"])
        )
        mark = None if x is None or y is None or x["half_two"] is None else (x["half_two"], y["half_two"], "best trade")
        title = f"{_at(site)}, layer {own['layer']}"
        parts.append(Panel(title, DAMAGE, MEANINGS[best["measure"]], tuple(curves), y_range=(-0.02, 1.02), mark=mark))
    title = "Effect against damage: further up and to the left is better. Layers are chosen on half of the source classes, "
    return panels(title + "points and 95% intervals are of the other half", parts, n_columns=2, alike="x")


MEANINGS = {
    "success": "share turned with all else kept",
    "turned": "share of answers turned to the target",
    "p_target": "probability of the target",
}


def _traded(both: Sequence[tuple[Row, Row]], label: str, control: bool) -> Curve | None:
    kept = [(x, y) for x, y in both if x["half_two"] is not None and y["half_two"] is not None]
    if not kept:
        return None
    xs, ys = zip(*kept, strict=True)

    def ends(rows: Sequence[Row], name: str) -> tuple[float, ...]:
        return tuple(row["half_two"] if row[name] is None else row[name] for row in rows)

    x, y = (tuple(row["half_two"] for row in rows) for rows in (xs, ys))
    if control and label not in WITH_INTERVALS:
        return Curve(_named(label), x, y, control=True)
    limits = [ends(rows, f"half_two_{end}") for rows, end in ((ys, "low"), (ys, "high"), (xs, "low"), (xs, "high"))]
    return Curve(_named(label), x, y, limits[0], limits[1], control, None, limits[2], limits[3])


def layer_figure(effects: pa.Table, measure: str, meaning: str) -> Figure:
    """A measure over layers at the largest strength, a panel for each site, controls dashed."""
    rows = [row for row in effects.to_pylist() if row["measure"] == measure and row["edit"] == "add"]
    strongest = max((row["strength"] for row in rows), default=0.0)
    rows = [row for row in rows if row["strength"] == strongest]
    parts = [
        Panel(_at(site), "layer", meaning, _curves(some, "layer"), y_range=_range(measure), x_whole=True)
        for site, some in _grouped(rows, lambda row: row["site"])
    ]
    return panels(f"{meaning}, with directions added at strength {strongest:g}; 95% intervals", parts, n_columns=2, alike="y")


def edits_figure(effects: pa.Table, measure: str, meaning: str) -> Figure:
    """A measure of the edits that are no additions over layers, a panel for each site and edit, controls dashed."""
    rows = [row for row in effects.to_pylist() if row["measure"] == measure and row["edit"] not in ("none", "add", INTERCHANGE)]
    named = [{**row, "direction": (row["direction"] or row["edit"]) + _rank(row["strength"])} for row in rows]
    parts = [
        Panel(f"{_at(site)}: {edit}", "layer", meaning, _curves(some, "layer"), y_range=_range(measure), x_whole=True)
        for (site, edit), some in _grouped(named, lambda row: (row["site"], row["edit"]))
    ]
    return panels(f"{meaning}, under edits that are no additions; 95% intervals", parts, n_columns=2, alike="y")


def _rank(strength: float | None) -> str:
    """Of edits that are no additions erasures alone have a strength, their rank."""
    return "" if strength is None else f", rank {strength:g}"


def interchange_figure(effects: pa.Table) -> Figure | None:
    """What the last token's stream turns when it comes from another run, by donor over layers; None without interchanges.

    Args:
        effects: Rows of the `EFFECTS` contract.
    """
    rows = [row for row in effects.to_pylist() if row["edit"] == INTERCHANGE]
    if not rows:
        return None
    colours = {_named(donor): i for i, donor in enumerate(DONORS)}
    texts = [row for row in rows if row["direction"] not in ("image", SAME_CLASS)]

    def panel(some: Sequence[Row], measure: str, meaning: str, **looks: Any) -> Panel:
        curves = _curves([row for row in some if row["measure"] == measure], "layer")
        return Panel(
            "", "layer", meaning, tuple(replace(one, colour=colours[one.label]) for one in curves), x_whole=True, **looks
        )

    parts = [
        panel(rows, "turned", MEANINGS["turned"], y_range=(0.0, 1.02)),
        panel(texts, "turned_over_image", "share turned, minus other images'", reference=(0.0, "as other images")),
    ]
    return panels("The last token's stream taken from another run; 95% intervals", parts, n_columns=2)


def dose_figure(effects: pa.Table, measure: str, meaning: str, site: str) -> Figure:
    """A measure over strengths at one site, a panel for each layer, controls dashed."""
    rows = [row for row in effects.to_pylist() if row["measure"] == measure and row["edit"] == "add" and row["site"] == site]
    (plain, *_) = [row for row in effects.to_pylist() if row["measure"] == measure and row["edit"] == "none"] or [None]
    if plain is not None:  # every dose-response begins at the unedited run
        rows = [
            {**plain, **{name: row[name] for name in ("site", "layer", "direction", "control")}, "strength": 0.0} for row in rows
        ] + rows
    parts = [
        Panel(f"{_at(site)}, layer {layer}", "strength", meaning, _curves(some, "strength"), y_range=_range(measure))
        for layer, some in _grouped(rows, lambda row: row["layer"])
    ]
    return panels(f"{meaning}, by strength of the direction that is added; 95% intervals", parts, n_columns=4, alike="y")


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
            curves.append(Curve(_named(direction), x, y, control=direction in controls))
        parts.append(Panel(f"{_at(site)}, layer {layer}", DAMAGE, MEANINGS["p_target"], tuple(curves), y_range=(0, 1.02)))
    return panels("Effect against damage: further up and to the left is better", parts, n_columns=4, alike="x")


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
                label=_named(direction),
                x=tuple(float(row[x]) for row in line),
                y=tuple(row["value"] for row in line),
                low=low,
                high=high,
                control=bool(line[0]["control"]),
            )
        )
    return tuple(found)


def _at(site: str) -> str:
    return SITES.get(site, site)


def _named(direction: object) -> str:
    return str(direction).replace("_", " ")


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[tuple[Any, list[Row]]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return list(found.items())


def _range(measure: str) -> tuple[float, float] | None:
    shares = ("p_target", "success", "turned", "left", "coherence", "kept_", "turned_kept_", "answered")
    return (0.0, 1.02) if measure.startswith(shares) and "_over_" not in measure and not measure.endswith("_gain") else None
