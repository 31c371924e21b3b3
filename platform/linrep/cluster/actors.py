"""What workers that hold a model share: device, threads, number format, and whether the model is the one of the plan."""

import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import torch
import yaml
from ray._private.state import state
from ray.exceptions import RayError

from linrep.cluster.fan_out import readable
from linrep.contents.sources import located
from linrep.errors import LinrepError, ModelError, RecipeError
from linrep.harvest.config import Pool
from linrep.vlm.config import ModelConfig
from linrep.vlm.precision import number_format

if TYPE_CHECKING:
    from linrep.vlm.load import VLM

UNLIMITED = 1e6
"""A number of GPUs that stands for a cluster without an upper limit."""


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


def resources() -> dict[str, float]:
    """What the cluster has, or comes to have at most, where its autoscaler says so."""
    there: dict[str, float] = dict(ray.cluster_resources())
    most = state.get_max_resources_from_cluster_config() or launched()
    return there | {name: float(n) for name, n in most.items() if n > there.get(name, 0.0)}


def launched(file: Path | None = None) -> dict[str, float]:
    """The most that a cluster of `ray up` can come to have, by the file that its launcher leaves on the head; else nothing."""
    file = Path.home() / "ray_bootstrap_config.yaml" if file is None else file
    if "RAY_ADDRESS" not in os.environ or not file.is_file():
        return {}
    config = yaml.safe_load(file.read_text())
    kinds = [kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]]
    counts = [min(kind.get("max_workers", 0), config.get("max_workers", 0)) for kind in kinds]
    names = {name for kind in kinds for name in kind.get("resources") or {}}
    return {
        name: float(sum(n * (kind.get("resources") or {}).get(name, 0) for n, kind in zip(counts, kinds, strict=True)))
        for name in names
    }


def gpus_of(pool: Pool, there: Mapping[str, float], joined: bool | None = None) -> float:
    """GPUs that a worker holds: as the pool says, else one where the cluster has any.

    Args:
        pool: Of the recipe.
        there: What the cluster has, see `resources`.
        joined: Whether the cluster is somebody else's, which may grow; None asks for RAY_ADDRESS.

    Raises:
        RecipeError: This machine has not as many; or a cluster has none, and nobody said that the work is meant for its CPUs.
    """
    joined, have = "RAY_ADDRESS" in os.environ if joined is None else joined, there.get("GPU", 0.0)
    if pool.gpus is None and joined and not have:
        raise RecipeError(
            "this cluster has no GPU now: set pool.gpus to 0 to work on its CPUs, or pool.gpus to 1 and pool.actors to the "
            "number that you want, to wait for GPUs"
        )
    gpus = float(have > 0) if pool.gpus is None else pool.gpus
    if gpus > have and not joined:
        raise RecipeError(f"pool.gpus is {gpus:g} and this machine has {have:g} GPUs: lower pool.gpus, 0 works on the CPU")
    if gpus > have:
        print(f"the cluster has {have:g} GPUs now: waiting for nodes with {gpus:g} for each worker", file=sys.stderr, flush=True)
    return gpus


def one_gpu(pool: Pool, there: Mapping[str, float]) -> float:
    """GPUs of a worker that can use one at most: `gpus_of`, but no more than one.

    Raises:
        RecipeError: As `gpus_of`.
    """
    return min(gpus_of(pool, there), 1.0)


def actor_counts(pool: Pool, gpus: float, n_gpus: float) -> tuple[int, int]:
    """Fewest and most actors: as the pool says, else one per share of the GPUs that there are or can be, else one on the CPU.

    Raises:
        RecipeError: GPUs are asked for, none is there yet, and nobody can say how many will come.
    """
    if pool.actors is not None:
        return pool.actors
    if not gpus:
        return 1, 1
    n = int(min(n_gpus, UNLIMITED) / gpus)
    if not n or n_gpus >= UNLIMITED:
        has = "no end of GPUs" if n else f"{n_gpus:g} GPUs now"
        raise RecipeError(f"pool.gpus is {gpus:g} and the cluster has {has}: set pool.actors to the number that you want")
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
