"""Work spread over tasks: every result comes, an error of ours stops the rest, and no more is begun than there is room for."""

import pytest
import ray

from linrep.cluster.fan_out import fan_out, first_error, results
from linrep.errors import LinrepError, StoreError


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
