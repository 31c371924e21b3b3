"""Metrics as MLflow's pages draw them: curves over layers, single numbers as bars, and not more than anybody looks at."""

import math
from collections.abc import Iterable, Mapping, Sequence

MOST_METRICS = 100
"""Metrics of an artefact's run, at most; a curve over layers is one."""
IN_TABLES_ALONE = "linrep.metrics_in_tables_alone"
"""Tag that counts the metrics beyond those."""
OVER_LAYERS = "linrep.over_layers"
"""Tag that says which metrics of a run have layers as steps: all, or all but some numbers. No metric's name has a comma."""
ALL, BUT = "all", "all but "

Measures = Mapping[str, float | Mapping[int, float]]
"""Numbers and curves over layers by name, the most important first."""


def finite(values: Measures) -> dict[str, dict[int, float]]:
    """Values by name and step, those that are finite: of a curve the step is the layer, of a number it is 0."""
    curves = {name: value if isinstance(value, Mapping) else {0: value} for name, value in values.items()}
    left = {name: {step: x for step, x in curve.items() if math.isfinite(x)} for name, curve in curves.items()}
    return {name: curve for name, curve in left.items() if curve}


def over_layers(values: Measures, logged: Sequence[str]) -> dict[str, str]:
    """The tag that says which of the metrics that are logged are curves over layers; none where none is.

    >>> over_layers({"fvu": {0: 0.1, 4: 0.2}, "n": 3.0}, ["fvu", "n"])
    {'linrep.over_layers': 'all but n'}
    """
    numbers = [name for name in logged if not isinstance(values[name], Mapping)]
    if len(numbers) == len(logged):
        return {}
    return {OVER_LAYERS: BUT + ", ".join(numbers) if numbers else ALL}


def curves_of(tags: Mapping[str, str], metrics: Iterable[str]) -> set[str]:
    """Which metrics of a run are curves over layers, by its tags.

    >>> sorted(curves_of({"linrep.over_layers": "all but n"}, ["fvu", "l0", "n"]))
    ['fvu', 'l0']
    """
    said = tags.get(OVER_LAYERS)
    if said is None:
        return set()
    return set(metrics) - (set() if said == ALL else set(said.removeprefix(BUT).split(", ")))
