"""Work spread over tasks: every result comes, an error of ours stops the rest, and no more is begun than there is room for."""

import os
from pathlib import Path

import pytest
import ray

from linrep.cluster import fan_out as module
from linrep.cluster.fan_out import control, fan_out, fetch, first_error, results, task
from linrep.errors import LinrepError, ServiceError, StoreError


@ray.remote(num_cpus=0.1)
def double(n: int) -> int | LinrepError:
    return StoreError(f"no {n}") if n < 0 else 2 * n


@pytest.mark.quick
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("at_once", [0, 1, 3, 9])
def test_every_result_comes_whatever_the_room(at_once):
    """No room at all is that of a cluster whose head has no CPU: one item goes on all the same."""
    assert sorted(fan_out(range(5), double.remote, at_once)) == [0, 2, 4, 6, 8]
    assert list(fan_out([], double.remote, at_once)) == []


@pytest.mark.quick
@pytest.mark.usefixtures("local_ray")
def test_no_more_is_begun_than_there_is_room_for_and_nothing_after_an_error():
    begun: list[int] = []

    def submit(n: int):
        begun.append(n)
        return double.remote(n)

    taken = fan_out(iter([1, 2, -3, 4, 5, 6, 7]), submit, 2)
    assert begun == []  # a generator: nothing starts before somebody asks
    assert next(taken) in (2, 4)
    assert begun == [1, 2]
    with pytest.raises(StoreError, match="no -3"):
        list(taken)
    assert len(begun) <= 5


@pytest.mark.quick
@pytest.mark.usefixtures("local_ray")
def test_results_of_tasks_that_were_started_before():
    assert sorted(results([double.remote(n) for n in range(3)])) == [0, 2, 4]
    with pytest.raises(StoreError, match="no -1"):
        list(results([double.remote(n) for n in (0, -1)], [double.remote(5)]))


def test_a_task_asks_its_inputs_for_the_first_error():
    wrong = StoreError("x")
    assert first_error([1, wrong, StoreError("y")]) is wrong
    assert first_error([1, None]) is None


def lose(folder: Path, times: int) -> int:
    """Ends its own worker so many times, and then says how often."""
    lost = len(list(folder.iterdir()))
    if lost < times:
        (folder / str(lost)).touch()
        os._exit(1)
    return lost


@pytest.mark.quick
@pytest.mark.usefixtures("local_ray")
def test_a_task_that_loses_its_worker_five_times_ends_well(tmp_path):
    assert list(results([task(lose, num_cpus=0.1).remote(tmp_path, 5)])) == [5]


@pytest.mark.quick
@pytest.mark.usefixtures("local_ray")
def test_a_task_that_ends_every_worker_is_given_up_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_LOSSES", 1)
    lost = task(lose, num_cpus=0.1).remote(tmp_path, 99)
    with pytest.raises(
        ServiceError, match=r"Ray lost a worker or a node \(WorkerCrashedError: .*run the same command again"
    ) as one:
        list(results([lost]))
    assert "\n" not in str(one.value)
    assert len(list(tmp_path.iterdir())) == 2
    # A task that was to take the result in says the same, and not Ray's report of itself.
    after = double.remote(lost)
    with pytest.raises(ServiceError, match="WorkerCrashedError"):
        list(results([after]))


class Memory:
    def end(self) -> None:
        os._exit(1)

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()


@pytest.mark.quick
@pytest.mark.usefixtures("local_ray")
def test_an_actor_that_is_lost_is_said_in_one_line():
    actor = control(Memory)
    assert fetch(actor.node.remote()) == ray.get_runtime_context().get_node_id()
    actor.end.remote()
    with pytest.raises(ServiceError, match=r"Actor\w*Error: .*again to resume") as one:
        fetch(actor.node.remote())
    assert "\n" not in str(one.value)


@pytest.mark.quick
@pytest.mark.usefixtures("local_ray")
def test_a_fault_of_a_task_stays_the_error_that_it_is():
    with pytest.raises(ZeroDivisionError):
        list(results([task(lambda: 1 // 0, num_cpus=0.1).remote()]))
