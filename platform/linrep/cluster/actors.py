"""What workers that hold a model share: device, threads, number format, and whether the model is the one of the plan."""

import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray.exceptions import RayError

from linrep.cluster.fan_out import readable
from linrep.contents.sources import located
from linrep.errors import LinrepError, ModelError, RecipeError
from linrep.harvest.config import Pool
from linrep.vlm.config import ModelConfig
from linrep.vlm.precision import number_format

if TYPE_CHECKING:
    from linrep.vlm.load import VLM


def own_device() -> torch.device:
    """The GPU that Ray gave this worker, or else the CPU.

    Raises:
        ModelError: A GPU is reserved, and torch sees none: work would go on many times slower without a word.
    """
    if not ray.is_initialized() or not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ModelError("a GPU is reserved for this worker, but torch sees none: check the node's driver and its torch build")
    return torch.device("cuda")


def own_devices() -> tuple[torch.device, ...]:
    """All GPUs that Ray gave this worker, or else the CPU.

    Raises:
        ModelError: As `own_device`.
    """
    first = own_device()
    if first.type == "cpu":
        return (first,)
    n = len(ray.get_runtime_context().get_accelerator_ids()["GPU"])
    if torch.cuda.device_count() < n:
        raise ModelError(f"{n} GPUs are reserved for this worker, but torch sees {torch.cuda.device_count()}: check the node")
    return tuple(torch.device("cuda", i) for i in range(n))


def load_planned(model: ModelConfig, digest: str, reach: int | None, pool: Pool, devices: Sequence[torch.device]) -> "VLM":
    """The model of a plan, on the devices of a worker.

    Args:
        model: Where it lies.
        digest: What the plan says that it is.
        reach: Layers that are loaded; None for the whole model with its head.
        pool: Threads and number format.
        devices: Where it runs.

    Raises:
        ModelError: The model on this node is another one.
    """
    if devices[0].type == "cpu":
        # Ray sets one thread per reserved CPU; the model is what the CPUs are for.
        torch.set_num_threads(pool.threads or len(os.sched_getaffinity(0)))
    from linrep.vlm.load import load  # and with it transformers, which workers without a model do not need

    vlm = load(located(model), reach, devices, precision(pool, devices[0]))
    check_same(model.path, vlm.card.digest, digest)
    return vlm


def check_same(path: str, here: str, planned: str | None) -> None:
    """Refuse what differs between nodes.

    Raises:
        ModelError: It is not what was planned with.
    """
    if here != planned:
        raise ModelError(f"{path} differs between nodes: {here} here, {planned} in the plan")


def check_format(here: str, begun_in: str | None) -> None:
    """Refuse to go on in another number format than what is there already.

    Args:
        here: Number format of this worker.
        begun_in: Number format of earlier units; None where there are none.

    Raises:
        RecipeError: They differ.
    """
    if begun_in not in (None, here):
        raise RecipeError(f"this was begun in {begun_in}, this worker would run in {here}: set pool.precision to {begun_in}")


def precision(pool: Pool, device: torch.device) -> torch.dtype:
    """The number format that the model runs in."""
    return number_format(pool.precision, device)


def gpus_of(pool: Pool, there: Mapping[str, float]) -> float:
    """GPUs that a worker holds: as the pool says, else one where the cluster has any."""
    return pool.gpus if pool.gpus is not None else (1.0 if there.get("GPU") else 0.0)


def actor_counts(pool: Pool, gpus: float, n_gpus: float) -> tuple[int, int]:
    """Fewest and most actors: as the pool says, else one per share of the GPUs that the cluster has, else one on the CPU.

    Raises:
        RecipeError: GPUs are asked for and none is there yet, so that nobody can say how many will come.
    """
    if pool.actors is not None:
        return pool.actors
    if not gpus:
        return 1, 1
    n = int(n_gpus / gpus)
    if not n:
        raise RecipeError(
            f"pool.gpus is {gpus:g} and the cluster has {n_gpus:g} GPUs now: set pool.actors to the number that you want"
        )
    return n, n


def outcomes(done: ray.data.Dataset) -> Iterator[Any]:
    """What the actors of a dataset gave, one by one; each row holds an outcome as bytes.

    Raises:
        LinrepError: An outcome is one, or Ray has lost what it cannot have back.
    """
    try:
        for row in done.iter_rows():
            outcome = pickle.loads(row["outcome"])
            if isinstance(outcome, LinrepError):
                raise outcome
            yield outcome
    except RayError as error:
        raise readable(error) from error
