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


def drawn(values: Measures) -> Measures:
    """Numbers and curves as they are logged: what is not finite is left out, and a curve of one layer is a number named by it.

    >>> drawn({"fvu": {0: 0.1, 4: 0.2}, "f1": {2: math.nan, 4: 0.5}, "n": 3.0})
    {'fvu': {0: 0.1, 4: 0.2}, 'f1_layer04': 0.5, 'n': 3.0}
    """
    found: dict[str, float | Mapping[int, float]] = {}
    for name, value in values.items():
        if not isinstance(value, Mapping):
            found |= {name: value} if math.isfinite(value) else {}
            continue
        left = {layer: x for layer, x in value.items() if math.isfinite(x)}
        if len(left) > 1:
            found[name] = left
        else:
            found |= {of_layer(name, layer): x for layer, x in left.items()}
    return found


def of_layer(name: str, layer: int) -> str:
    """Name of a number of one layer, which is a bar: as a curve it would be a page with one point.

    >>> of_layer("fvu/image", 4)
    'fvu/image_layer04'
    """
    return f"{name}_layer{layer:02d}"


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
