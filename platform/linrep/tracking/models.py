"""Trained SAEs among MLflow's models: one for each name and layer, found and compared by parameters and metrics."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linrep.config import digest
from linrep.tracking.curves import ALL, OVER_LAYERS
from linrep.tracking.runs import Run

_NOT_IN_NAMES = re.compile(r"[/:.%\"']")
"""What MLflow refuses in the name of a model."""


@dataclass(frozen=True)
class Model:
    """A trained SAE.

    Attributes:
        sae: Its name, which it shares with those of other layers.
        layer: Its layer.
        params: What it is, the same at every layer.
        metrics: How good it is; what is not finite is left out.
    """

    sae: str
    layer: int
    params: Mapping[str, Any]
    metrics: Mapping[str, float]

    @property
    def name(self) -> str:
        """By which MLflow lists it: topk-16-x8-s0-layer-4."""
        return _NOT_IN_NAMES.sub("_", f"{self.sae}-layer-{self.layer}")


def log_models(run: Run, models: Sequence[Model]) -> None:
    """Log SAEs as models. Those of one name share a run below the given one: its metrics are curves over their layers.

    Where there is one layer, they are numbers, which MLflow draws as bars, and the layer is a parameter: models are searched by
    the plain names, `metrics.fvu_image < 0.1`.

    What was logged before is left as it is.

    Args:
        run: The run that trained or evaluated them.
        models: The SAEs.

    Raises:
        ServiceError: The tracking server does not answer.
    """
    for sae in dict.fromkeys(model.sae for model in models):
        same = [model for model in models if model.sae == sae]
        params, tags = {"sae": sae, **same[0].params}, {OVER_LAYERS: ALL}
        if len(same) == 1:
            params, tags = {**params, "layer": str(same[0].layer)}, {}
        part = run.child("one_sae", sae, digest(run.id, sae), params, tags, [])
        for model in same:
            _log(part, model, model.layer if len(same) > 1 else 0)


def _log(part: Run, model: Model, step: int) -> None:
    from mlflow.entities import LoggedModelStatus, Metric

    client, info = part._client, part._ask(lambda: part._client.get_run(part.id)).info
    params = {"sae": model.sae, "layer": str(model.layer), **{name: str(value) for name, value in model.params.items()}}

    def find_or_create():
        # Looked for at each try: a server may have made the model and gone away before it could say so.
        there = client.search_logged_models([info.experiment_id], f"name = '{model.name}'")
        own = [one for one in there if one.source_run_id == part.id]
        return own[0] if own else client.create_logged_model(info.experiment_id, model.name, part.id, None, params, "sae")

    logged = part._ask(find_or_create)
    if logged.status == LoggedModelStatus.READY:
        return
    # One time for all: a driver that died in the middle and logs them again makes no point twice.
    points = [
        Metric(name, float(value), info.start_time, step, model_id=logged.model_id, run_id=part.id)
        for name, value in model.metrics.items()
        if math.isfinite(value)
    ]
    part._ask(lambda: client.log_batch(part.id, metrics=points))
    part._ask(lambda: client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY))
