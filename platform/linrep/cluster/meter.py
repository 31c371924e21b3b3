"""What a job has done so far, where Prometheus finds it: the metric `ray_linrep_done_total` of the driver's node."""

import functools
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.util.metrics import Counter

NAME = "linrep_done"
"""Ray puts ray_ in front of it, and Prometheus' _total behind."""


def count(stage: str, unit: str, n: int) -> None:
    """Add to what a stage has done; nothing where no cluster is joined.

    Args:
        stage: harvest, probe, ...
        unit: What is counted: samples, tokens, chunks, skipped samples, ...
        n: How many.
    """
    ray = sys.modules.get("ray")
    if n > 0 and ray is not None and ray.is_initialized():
        _counter().inc(n, {"stage": stage, "unit": unit})


@functools.cache
def _counter() -> "Counter":
    from ray.util.metrics import Counter

    return Counter(NAME, "What a stage of linrep has done, by unit.", ("stage", "unit"))
