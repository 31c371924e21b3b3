"""What a run reads, in MLflow's own terms: a harvest is a dataset, so that one click shows all runs that read it."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from linrep.places import Place
from linrep.tracking.client import patiently
from linrep.tracking.where import inside

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Run

HARVESTS = ("harvest", "untrained")
"""Parents of an artefact that are harvests: the model's, and the untrained control's."""


def harvest_dataset(workspace: Place, digest: str) -> "Dataset":
    """A harvest as MLflow's dataset. Its source is where it lies; one of another workspace is named by its digest alone."""
    from mlflow.entities import Dataset

    folder = workspace / "harvests"
    names = [name for name in folder.names() if name.endswith(f"-{digest}")]
    return Dataset("harvest", digest, "local", json.dumps({"uri": inside(workspace, folder / names[0]) if names else digest}))


def datasets_of(run: "Run") -> "list[Dataset]":
    """The inputs that a run has."""
    return [one.dataset for one in run.inputs.dataset_inputs] if run.inputs is not None else []


def log_datasets(client: "MlflowClient", uri: str, run_id: str, stage: str, datasets: "Iterable[Dataset]") -> None:
    """Log datasets as inputs of a run; one that the run has already is not logged again.

    Args:
        client: Of the tracking server.
        uri: Its address, for messages.
        run_id: The run that reads them.
        stage: The run's stage, which becomes the input's context.
        datasets: What it reads.

    Raises:
        ServiceError: The tracking server does not answer.
    """
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    there = {(one.name, one.digest) for one in datasets_of(patiently(lambda: client.get_run(run_id), uri))}
    new = [
        DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, stage)])
        for dataset in datasets
        if (dataset.name, dataset.digest) not in there
    ]
    if new:
        patiently(lambda: client.log_inputs(run_id, new), uri)
