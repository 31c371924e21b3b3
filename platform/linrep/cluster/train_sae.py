"""SAEs on Ray Train: several layers at the same time, the latents of each over its workers, which are started again from the last
checkpoint when one of them is lost."""

import math
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from linrep.cluster.actors import one_gpu, resources
from linrep.cluster.fan_out import control, fetch
from linrep.errors import LinrepError, RecipeError, ServiceError
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.sae.layer import LayerJob, read_commit, train_layer
from linrep.sae.train import Metrics
from linrep.workers import ALONE, Group, Workers

Item = TypeVar("Item")

MOST_FAILURES = 8
"""Lost workers before the job gives up; machines that a cloud takes back are counted apart."""
LOOK_SECONDS = 0.2
START_SECONDS = 1800
"""A cluster that grows may take this long to have room for the first workers; Ray's own default is one minute."""
TURN_SECONDS = 30 * 86400
"""Of several layers, those that find no room yet wait for the others' end, however long that takes."""
SHOW_SECONDS = 10.0
"""Between two reports to Ray Train. It takes one in two seconds, and a worker that reports more often has to wait for it."""


@dataclass(frozen=True)
class Event:
    """What a worker reports to the driver about a layer: metrics, or that it is done."""

    layer: int
    what: Metrics | UnitCommit


class Post:
    """An actor between workers and driver: events on their way, whether anyone has begun, and the error that ended training."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._error: LinrepError | None = None
        self._begun = False

    def begin(self) -> None:
        """The workers of some layers are there."""
        self._begun = True

    def put(self, event: Event) -> None:
        """Take in an event."""
        self._events.append(event)

    def take(self) -> tuple[list[Event], bool, LinrepError | None]:
        """All events since the last call, whether any worker has begun, and the error, if there was one of ours."""
        found = list(self._events)
        self._events.clear()
        return found, self._begun, self._error

    def fail(self, error: LinrepError) -> None:
        """Keep the first error."""
        self._error = self._error or error

    def error(self) -> LinrepError | None:
        """The error, if there was one."""
        return self._error


def train_on_ray(jobs: Sequence[LayerJob], pool: Pool) -> Iterator[Event]:
    """Train some layers, as many at the same time as there is room for, on the cluster that this process is connected to.

    Args:
        jobs: Layers that are not committed yet; what an earlier run checkpointed is not done again.
        pool: GPUs, CPUs and threads of a worker.

    Yields:
        Metrics and commits of all layers as they come; after a worker was lost, those since the checkpoint come again.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
        RecipeError: The workers do not fit on this machine.
    """
    world, there = jobs[0].config.workers, resources()
    gpus = one_gpu(pool, there)
    check_room(world, gpus, pool, there if len(ray.nodes()) == 1 and not os.environ.get("RAY_ADDRESS") else None)
    lanes = lanes_of(jobs, layers_at_once(world, gpus, pool, there, len(ray.nodes())))
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(TURN_SECONDS))
    for name in ("ray.train", "ray.train.v2"):
        _quieten(name)
    post = control(Post)
    yield from _watch([_trainer(lane, post, world, gpus, pool) for lane in lanes], post)


def layers_at_once(world: int, gpus: float, pool: Pool, there: Mapping[str, float], nodes: int) -> int:
    """Layers whose workers there is room for, at least one.

    Without GPUs, and without a number of threads, a worker uses all cores of its node, whatever it reserves: then each has a
    node of its own, and on one machine layers take turns.

    Args:
        world: Workers of a layer.
        gpus: Of each worker.
        pool: Says how many CPUs and threads each takes.
        there: What the cluster has, or comes to have.
        nodes: How many it has.
    """
    if not gpus and pool.threads is None:
        return max(1, nodes // world)
    needs = {"CPU": world * pool.cpus, **({"GPU": world * gpus} if gpus else {})}
    return max(1, int(min((there.get(what, 0.0) + 1e-9) / need for what, need in needs.items())))


def lanes_of(jobs: Sequence[Item], at_once: int) -> list[list[Item]]:
    """Layers dealt to as many lanes as run at once; those of a lane are trained one after another, by the same workers."""
    return [list(jobs[first::at_once]) for first in range(min(at_once, len(jobs)))]


def _trainer(lane: Sequence[LayerJob], post: Any, world: int, gpus: float, pool: Pool) -> TorchTrainer:
    return TorchTrainer(
        _loop,
        train_loop_config={"jobs": list(lane), "post": post, "threads": pool.threads},
        # NCCL wants a GPU for each worker; where several share one, their sums go through the CPU, as rows and files always do.
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus >= 1 else "gloo", timeout_s=START_SECONDS),
        scaling_config=ScalingConfig(
            num_workers=world, use_gpu=gpus > 0, resources_per_worker={"CPU": pool.cpus, **({"GPU": gpus} if gpus else {})}
        ),
        run_config=RunConfig(
            # A new name each time: what there is to resume from is ours, and lies in the artefact.
            name=f"run-{uuid.uuid4().hex[:8]}",
            storage_path=(lane[0].place / "checkpoints" / "ray").path,
            storage_filesystem=lane[0].place.files,
            failure_config=FailureConfig(max_failures=MOST_FAILURES),
        ),
    )


def check_room(world: int, gpus: float, pool: Pool, there: Mapping[str, float] | None) -> None:
    """Make sure that all workers can run at once.

    Args:
        world: Workers.
        gpus: Of each.
        pool: Says how many CPUs each takes.
        there: What the cluster has; None for one that gets other nodes.

    Raises:
        RecipeError: They cannot, and would wait for ever.
    """
    if there is None:
        return
    for what, each in (("CPU", pool.cpus), ("GPU", gpus)):
        if world * each > there.get(what, 0.0) + 1e-9:
            raise RecipeError(
                f"sae.workers: {world} workers of {each:g} {what}s need {world * each:g}, there are {there.get(what, 0.0):g}: "
                f"lower sae.workers or pool.{what.lower()}s"
            )


def _watch(trainers: Sequence[TorchTrainer], post: Any) -> Iterator[Event]:
    """Events while each trainer runs in a thread of its own; there, Ray leaves the signals of this process alone."""
    failed: list[BaseException] = []

    def run(trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except BaseException as error:  # reported by the main thread, whatever it is
            failed.append(error)

    threads = [threading.Thread(target=run, args=(trainer,), daemon=True) for trainer in trainers]
    for thread in threads:
        thread.start()
    last: dict[tuple[int, int], int] = {}
    start, running, error = time.monotonic(), True, None
    while running:
        running = any(thread.is_alive() for thread in threads) and not failed and error is None
        events, begun, error = fetch(post.take.remote())
        for event in events:
            if isinstance(event.what, Metrics):
                key = event.layer, event.what.trainer
                if event.what.step <= last.get(key, 0):
                    continue  # a worker that was started again repeats what came after its checkpoint
                last[key] = event.what.step
            yield event
        if not begun and running and time.monotonic() - start > START_SECONDS:
            raise ServiceError(f"no worker found room on the cluster within {START_SECONDS // 60} minutes: see `ray status`")
        if running:
            time.sleep(LOOK_SECONDS)
    if error is not None:
        raise error
    if failed:
        raise ServiceError(
            f"training was given up after {MOST_FAILURES} lost workers or an error: {_last_line(failed[0])}"
        ) from failed[0]


def _loop(config: dict[str, Any]) -> None:
    """What each worker does."""
    context = ray.train.get_context()
    rank, world, post = context.get_world_rank(), context.get_world_size(), config["post"]
    if ray.get(post.error.remote()) is not None:
        return  # an earlier try met something that only the user can mend
    post.begin.remote()
    device = get_device()
    if device.type == "cpu":
        here = max(1, context.get_local_world_size())
        torch.set_num_threads(config["threads"] or max(1, len(os.sched_getaffinity(0)) // here))
    workers = Group() if world > 1 else ALONE
    try:
        for job in config["jobs"]:
            page = _Page(job, workers)
            # No worker can be done with a layer before all have begun it: either all find its commit, or none does.
            done = read_commit(job.place, job.layer)
            for what in train_layer(job, workers, device) if done is None else [done]:
                if rank == 0:
                    sent = post.put.remote(Event(job.layer, what))
                    if isinstance(what, UnitCommit):
                        ray.get(sent)
                if isinstance(what, Metrics):
                    page.show(what)
    except LinrepError as error:
        ray.get(post.fail.remote(error))
        if world > 1:
            raise  # the others wait for this worker: Ray ends them all, and the next try ends at once


class _Page:
    """What Ray Train gets of a layer: its step, and the loss of each SAE."""

    def __init__(self, job: LayerJob, workers: Workers) -> None:
        self._layer, self._workers, self._names = job.layer, workers, list(job.config.designs())
        self._steps, self._values, self._shown = job.config.steps, dict[str, float](), -math.inf

    def show(self, metrics: Metrics) -> None:
        """Take in what one SAE reports; all workers report to Ray Train together, when the last SAE has."""
        self._values[f"loss/{self._names[metrics.trainer]}"] = metrics.values["loss"]
        if metrics.trainer < len(self._names) - 1:
            return
        due = metrics.step == self._steps or time.monotonic() - self._shown > SHOW_SECONDS
        if self._workers.tell(due, 0):  # clocks differ
            self._shown = time.monotonic()
            ray.train.report({"layer": self._layer, "step": metrics.step, "steps": self._steps, **self._values})


def _quieten(name: str) -> None:
    import logging

    logging.getLogger(name).setLevel(logging.CRITICAL)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
