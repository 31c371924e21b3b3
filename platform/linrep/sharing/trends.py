"""Trends over layers: last minus base and slope of every measure, with an interval from the same pairs at every layer.

Layer 0 holds the embeddings and the projected image, which no block has read. What a measure does from there to layer 1 says more
of the projector than of depth. So trends count from the first layer above 0, and from the first one compared beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from linrep.sharing.study import TRAINED, UNTRAINED
from linrep.stats.interval import NOTHING
from linrep.stats.trend import Layer, contrast, last_minus_first, slope, verdict

KEY = ("level", "sae", "metric", "pooling", "attribute")
"""What names a curve of a model."""
Row = Mapping[str, Any]
PAIRS, CLASSES = "pairs", "classes"
"""What is left out at all layers at once."""
BEGINS = {PAIRS: "pairs ", CLASSES: "class ", "layers": "\0"}
"""How the names of the parts begin."""


def trends(rows: Sequence[Row], left_out: Sequence[Row], base: int | None) -> list[dict[str, object]]:
    """The trend of every measure that has a value at two layers or more, as rows of the `SHARING_TRENDS` contract.

    Args:
        rows: Of the `SHARING` contract.
        left_out: Of the `SHARING_LEFT_OUT` contract: values without parts of the data.
        base: Layer from which trends count; None for the first above 0.
    """
    without: dict[tuple[object, ...], dict[str, float]] = {}
    for row in left_out:
        value = float("nan") if row["value"] is None else row["value"]
        without.setdefault(_key(row), {})[row["part"]] = value
    curves: dict[tuple[object, ...], dict[str, dict[int, Row]]] = {}
    for row in rows:
        if row["value"] is not None and row["low"] is not None:
            curves.setdefault(tuple(row[name] for name in KEY), {}).setdefault(row["model"], {})[row["layer"]] = row
    found = []
    for key, by_model in curves.items():
        for model, own in by_model.items():
            other = by_model.get(UNTRAINED, {}) if model == TRAINED else {}
            for first, main in _bases(sorted(own), base):
                head = {"model": model, **dict(zip(KEY, key, strict=True)), "main": main}
                found += _trend(head, {k: row for k, row in own.items() if k >= first}, other, without)
    return found


def _bases(layers: Sequence[int], base: int | None) -> Iterator[tuple[int, bool]]:
    """Layers that a trend counts from, the one that words are about first."""
    above = [layer for layer in layers if layer >= (1 if base is None else base)]
    if len(above) > 1:
        yield above[0], True
    if len(layers) > 1 and (len(above) < 2 or layers[0] != above[0]):
        yield layers[0], len(above) < 2


def _key(row: Row) -> tuple[object, ...]:
    return (row["model"], row["layer"], *(row[name] for name in KEY))


def _trend(
    head: dict[str, object],
    own: Mapping[int, Row],
    other: Mapping[int, Row],
    without: Mapping[tuple[object, ...], dict[str, float]],
) -> Iterator[dict[str, object]]:
    layers = sorted(own)
    rows = [own[k] for k in layers]
    first, last = rows[0], rows[-1]
    distance = max(abs(row["value"] - (row["null"] or 0.0)) for row in (first, last))
    ends = last_minus_first(len(layers))
    parts, curve = _layers(rows, without, PAIRS)
    of_classes, by_class = _layers(rows, without, CLASSES)
    over = PAIRS if parts else CLASSES if of_classes else "layers"
    n = len(of_classes) if over == CLASSES else min(int(row["n"]) for row in rows)
    curve = curve if over != CLASSES else by_class
    change, rise = contrast(ends, curve, n), contrast(slope(layers), curve, n)
    others = contrast(ends, by_class, len(of_classes)) if of_classes else NOTHING
    row = head | {
        "base": layers[0], "last": layers[-1], "layers": len(layers), "base_value": first["value"], "last_value": last["value"],
        "change": change.value, "low": change.low, "high": change.high, "slope": rise.value, "slope_low": rise.low,
        "slope_high": rise.high, "verdict": verdict(change, distance), "over": over, "n": n,
        "classes_low": others.low, "classes_high": others.high,
        "classes_verdict": verdict(others, distance) if of_classes else None,
        "untrained_change": None, "over_untrained": None, "over_untrained_low": None, "over_untrained_high": None,
        "over_untrained_verdict": None,
    }  # fmt: skip
    if all(k in other for k in (layers[0], layers[-1])):
        both = [first, last, other[layers[0]], other[layers[-1]]]
        beside = contrast(np.array([-1.0, 1.0, 1.0, -1.0]), _layers(both, without, over)[1], n)
        row |= {
            "untrained_change": both[3]["value"] - both[2]["value"], "over_untrained": beside.value,
            "over_untrained_low": beside.low, "over_untrained_high": beside.high,
            "over_untrained_verdict": verdict(beside, distance),
        }  # fmt: skip
    yield {name: None if isinstance(v, float) and v - v != 0 else v for name, v in row.items()}


def _layers(
    rows: Sequence[Row], without: Mapping[tuple[object, ...], dict[str, float]], kind: str
) -> tuple[tuple[str, ...], list[Layer]]:
    """The values of some rows with those without each part of a kind; without any, where the rows do not have the same parts."""
    known = [{part: v for part, v in without.get(_key(row), {}).items() if part.startswith(BEGINS[kind])} for row in rows]
    parts = tuple(known[0]) if all(own.keys() == known[0].keys() for own in known) else ()
    return parts, [
        Layer(row["value"], row["low"], row["high"], np.array([own[part] for part in parts]))
        for row, own in zip(rows, known, strict=True)
    ]
