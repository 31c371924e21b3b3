"""Regions on Ray: the images of a chunk are labelled by a task anywhere; few images are labelled in this process, without Ray."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from linrep.artefact import Artefact
from linrep.contents.stored import places_in
from linrep.errors import LinrepError
from linrep.kind import UnitCommit
from linrep.regions.artefact import RegionsAbout
from linrep.regions.config import RegionsConfig
from linrep.regions.study import RegionsStudy
from linrep.regions.unit import ImageTask, label_images
from linrep.store.read import Store

UNITS_AHEAD = 2
"""Units under way for each CPU, at most: what their images are annotated with waits in the object store."""

Labelled = Artefact[RegionsAbout]


def label_units(study: RegionsStudy, todo: Sequence[str], here: Labelled) -> Iterator[UnitCommit]:
    """Label some units on the cluster that this process is connected to; commits come in no fixed order.

    Args:
        study: What to do.
        todo: Units that are not committed yet.
        here: The artefact.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
    """
    import ray

    from linrep.cluster.fan_out import fan_out, task

    label = task(_label, num_cpus=1)
    store, artefact, tasks = ray.put(study.store), ray.put(here), study.requests.tasks

    def submit(unit: str) -> Any:
        chunk = study.chunks[unit]
        return label.remote(store, study.config, artefact, unit, chunk, tasks[chunk])

    return fan_out(todo, submit, UNITS_AHEAD * int(ray.cluster_resources().get("CPU", 1)))


def label_plainly(study: RegionsStudy, todo: Sequence[str], here: Labelled) -> Iterator[UnitCommit]:
    """The same in this process, without Ray."""
    for unit in todo:
        chunk = study.chunks[unit]
        outcome = _label(study.store, study.config, here, unit, chunk, study.requests.tasks[chunk])
        if isinstance(outcome, LinrepError):
            raise outcome
        yield outcome


def _label(
    store: Store, config: RegionsConfig, here: Labelled, unit: str, chunk: int, tasks: Sequence[ImageTask]
) -> UnitCommit | LinrepError:
    from linrep.cluster.fan_out import or_error

    def label() -> UnitCommit:
        started = time.monotonic()
        tables = label_images(places_in(store.samples_of(chunk), store.manifest.model), tasks, config)
        return here.write(unit, tables, time.monotonic() - started, len(tasks))

    return or_error(label)
