"""Work spread over Ray tasks: submitted as there is room, results as they come, an error of ours stops the rest."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from linrep.errors import LinrepError, ServiceError
from linrep.retry import retried

Item = TypeVar("Item")
T = TypeVar("T")

PAUSES = (1.0, 4.0, 15.0)
"""Seconds before each further try of something that could not be read or written."""

MOST_LOSSES = 16
"""Times that a task is begun again after its worker or its node was lost. What the task itself raises is counted apart; a bound
there must be, for a task that itself ends every worker that it is given."""


def task(work: Callable[..., Any], **options: Any) -> Any:
    """A function as a Ray task, which outlives the workers that it loses.

    Args:
        work: The function; doing it twice must be as good as once.
        options: What it reserves.
    """
    return ray.remote(max_retries=MOST_LOSSES, **options)(work)


def control(kind: type, *args: Any) -> Any:
    """An actor that the driver talks with, on the driver's own node: it is lost only with the driver, not with a worker.

    Args:
        kind: Its class.
        args: Of its constructor.
    """
    own: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=own)(kind).remote(*args)


def fetch(reference: Any) -> Any:
    """The value of a reference, or a list of them.

    Raises:
        LinrepError: It was lost with a worker, an actor or a node, or a task raised an error of ours.
    """
    try:
        return ray.get(reference)
    except RayError as error:
        raise readable(error) from error


def readable(error: RayError) -> Exception:
    """What to raise of an error of Ray's: one line where something was lost, the error itself where the program is at fault."""
    cause: BaseException = error
    while isinstance(inner := getattr(cause, "cause", None), BaseException):
        cause = inner
    if isinstance(cause, LinrepError):
        return cause
    if not isinstance(cause, RayError) or isinstance(cause, RayTaskError):
        return error
    kind = "a worker ran out of memory again and again" if isinstance(cause, OutOfMemoryError) else "Ray lost a worker or a node"
    first = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    return ServiceError(f"{kind} ({type(cause).__name__}: {first[:200]}): run the same command again to resume")


def or_error(call: Callable[[], T]) -> T | LinrepError:
    """What the call returns, or the error of ours that it raises: as a value it reaches the driver whole, raised it would not.

    A disk or an object store that fails is tried again; Ray itself repeats only what a lost process or node took with it.
    """
    try:
        return retried(call, PAUSES, lambda error: isinstance(error, OSError))
    except (LinrepError, OSError) as error:
        return _ours(error)


def error_last(items: Iterable[T]) -> Iterator[T | LinrepError]:
    """The items; where an error of ours ends them, that is the last one. They do their own tries again, with `PAUSES`."""
    try:
        yield from items
    except (LinrepError, OSError) as error:
        yield _ours(error)


def _ours(error: LinrepError | OSError) -> LinrepError:
    if isinstance(error, LinrepError):
        return error
    return ServiceError(f"reading or writing failed {len(PAUSES) + 1} times, at last with: {error}")


def first_error(values: Iterable[Any]) -> LinrepError | None:
    """The first of some values that is an error; None where there is none. A task asks it of its inputs."""
    return next((value for value in values if isinstance(value, LinrepError)), None)


def fan_out(items: Iterable[Item], submit: Callable[[Item], Any], at_once: int) -> Iterator[Any]:
    """Results of some items, in no fixed order.

    Args:
        items: What to work on; taken one by one, as there is room.
        submit: Starts the tasks of an item, and gives the reference of its result.
        at_once: Items under way, at most: what their tasks keep in the object store must fit there together. One at least,
            also on a cluster whose head has no CPU and whose workers are still to come.

    Raises:
        LinrepError: A result is one. What is still under way is cancelled, and no further item is begun.
    """
    waiting, at_once = iter(items), max(1, at_once)
    running = [submit(item) for item in islice(waiting, at_once)]
    while running:
        yield from _ready(running)
        # After the caller has taken the results in: what it does with them may take room.
        running += [submit(item) for item in islice(waiting, at_once - len(running))]


def results(references: Sequence[Any], others: Sequence[Any] = ()) -> Iterator[Any]:
    """Results of tasks that were started already, in no fixed order.

    Args:
        references: Their results.
        others: What else to cancel where one of them is an error.

    Raises:
        LinrepError: A result is one.
    """
    running = list(references)
    while running:
        yield from _ready(running, others)


def _ready(running: list[Any], others: Sequence[Any] = ()) -> Iterator[Any]:
    """Results that are there, at least one; their references are taken off the list."""
    done, left = ray.wait(running)
    running[:] = left
    for result in fetch(done):
        if isinstance(result, LinrepError):
            for reference in (*left, *others):
                ray.cancel(reference)
            raise result
        yield result


def memory(n_bytes: float) -> int:
    """Memory that a task asks for. Where no node has as much, all of a node: to ask for more would be to wait for ever."""
    return int(min(n_bytes, max(node["Resources"].get("memory", 0.0) for node in ray.nodes())))


def room(bytes_each: float, share: float = 0.5) -> int:
    """How many things of a size fit into a share of the cluster's object store; at least one.

    Args:
        bytes_each: What each of them keeps there.
        share: Of the store.
    """
    return max(1, int(share * ray.cluster_resources().get("object_store_memory", 0) / max(bytes_each, 1)))
