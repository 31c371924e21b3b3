"""SAEs on Ray Train: workers that share every step, started again from the last checkpoint when one is lost."""

import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from linrep.cluster.actors import one_gpu, resources
from linrep.cluster.fan_out import control, fetch
from linrep.errors import LinrepError, RecipeError, ServiceError
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.sae.layer import LayerJob, read_commit, train_layer
from linrep.sae.reduce import Alone, Group
from linrep.sae.train import Metrics
from linrep.store.stream import Share

MOST_FAILURES = 8
"""Lost workers before the job gives up; machines that a cloud takes back are counted apart."""
LOOK_SECONDS = 0.2
START_SECONDS = 1800
"""A cluster that grows may take this long to have room for all workers; Ray's own default is one minute."""


@dataclass(frozen=True)
class Event:
    """What a worker reports to the driver about a layer: metrics, or that it is done."""

    layer: int
    what: Metrics | UnitCommit


class Post:
    """An actor between workers and driver: events on their way, and the error that ended training, if it is one of ours."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._error: LinrepError | None = None

    def put(self, event: Event) -> None:
        """Take in an event."""
        self._events.append(event)

    def take(self) -> list[Event]:
        """Everything since the last call."""
        found = list(self._events)
        self._events.clear()
        return found

    def fail(self, error: LinrepError) -> None:
        """Keep the first error."""
        self._error = self._error or error

    def error(self) -> LinrepError | None:
        """The error, if there was one."""
        return self._error


def train_on_ray(jobs: Sequence[LayerJob], pool: Pool) -> Iterator[Event]:
    """Train some layers, one after another, on the cluster that this process is connected to.

    Args:
        jobs: Layers that are not committed yet; what an earlier run checkpointed is not done again.
        pool: GPUs, CPUs and threads of a worker.

    Yields:
        Metrics and commits as they come; after a worker was lost, those since the checkpoint come again.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
        RecipeError: The workers do not fit on this machine.
    """
    world, there = jobs[0].config.workers, resources()
    gpus = one_gpu(pool, there)
    check_room(world, gpus, pool, there if len(ray.nodes()) == 1 and not os.environ.get("RAY_ADDRESS") else None)
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(START_SECONDS))
    for name in ("ray.train", "ray.train.v2"):
        _quieten(name)
    post = control(Post)
    trainer = TorchTrainer(
        _loop,
        train_loop_config={"jobs": list(jobs), "post": post, "threads": pool.threads},
        # NCCL wants a GPU for each worker; where several share one, their sums go through the CPU.
        torch_config=TorchConfig(backend="nccl" if gpus >= 1 else "gloo", timeout_s=START_SECONDS),
        scaling_config=ScalingConfig(
            num_workers=world, use_gpu=gpus > 0, resources_per_worker={"CPU": pool.cpus, **({"GPU": gpus} if gpus else {})}
        ),
        run_config=RunConfig(
            # A new name each time: what there is to resume from is ours, and lies in the artefact.
            name=f"run-{uuid.uuid4().hex[:8]}",
            storage_path=(jobs[0].place / "checkpoints" / "ray").path,
            storage_filesystem=jobs[0].place.files,
            failure_config=FailureConfig(max_failures=MOST_FAILURES),
        ),
    )
    yield from _watch(trainer, post)


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


def _watch(trainer: TorchTrainer, post: Any) -> Iterator[Event]:
    """Events while the trainer runs in a thread of its own; there, Ray leaves the signals of this process alone."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # reported by the main thread, whatever it is
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    last: dict[tuple[int, int], int] = {}
    running = True
    while running:
        running = thread.is_alive()
        for event in fetch(post.take.remote()):
            if isinstance(event.what, Metrics):
                key = event.layer, event.what.trainer
                if event.what.step <= last.get(key, 0):
                    continue  # a worker that was started again repeats what came after its checkpoint
                last[key] = event.what.step
            yield event
        if running:
            time.sleep(LOOK_SECONDS)
    error = fetch(post.error.remote())
    if isinstance(error, LinrepError):
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
    device = get_device()
    if device.type == "cpu":
        here = max(1, context.get_local_world_size())
        torch.set_num_threads(config["threads"] or max(1, len(os.sched_getaffinity(0)) // here))
    reducer = Group() if world > 1 else Alone()
    try:
        for job in config["jobs"]:
            # No worker can be done with a layer before all have begun it: either all find its commit, or none does.
            done = read_commit(job.place, job.layer)
            gather = _gather if world > 1 else _alone
            for what in train_layer(job, Share(rank, world), reducer, device, gather) if done is None else [done]:
                if rank == 0:
                    sent = post.put.remote(Event(job.layer, what))
                    if isinstance(what, UnitCommit):
                        ray.get(sent)
    except LinrepError as error:
        ray.get(post.fail.remote(error))
        if world > 1:
            raise  # the others wait for this worker: Ray ends them all, and the next try ends at once


def _gather(mine: Any) -> list[Any]:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return found


def _alone(mine: Any) -> list[Any]:
    return [mine]


def _quieten(name: str) -> None:
    import logging

    logging.getLogger(name).setLevel(logging.CRITICAL)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
