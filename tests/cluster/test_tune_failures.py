# ruff: noqa: F811  (fixtures of neighbours come in by their names)
"""A search whose workers die, run out of memory or never start; and one that goes on when its budget is raised."""

import math
import os
from types import SimpleNamespace

import pytest
import torch
from ray.exceptions import OutOfMemoryError, RayTaskError

from linrep import tracking
from linrep.cluster import tune_sae
from linrep.cluster.run_tune_sae import run_tune_sae
from linrep.cluster.tune_sae import clear, errors_by_pack, folder_of, reason_of, search_on_ray, start_reason_of
from linrep.errors import ServiceError
from linrep.explorer.fronts import front_figures, search_lines
from linrep.harvest.config import Pool
from linrep.places import place
from linrep.sae.candidates import front_table, trials_table
from linrep.sae.pack import CandidateEnd, Trial
from linrep.sae.rounds import search_plainly
from linrep.sae.search import TuneConfig
from linrep.sae.trials import commit_trial, failed_trial, read_trials
from linrep.sae.tuning import plan_tune
from tests.cluster.test_train_sae import one_thread, split_corpora, workspace  # noqa: F401
from tests.cluster.test_tune_sae import TUNE, fresh, recipe_of, record_of  # noqa: F401
from tests.sae.test_search import SAE, store, tune  # noqa: F401

FOUR: TuneConfig = tune(
    rows=640,
    space={"architectures": [{"kind": "topk", "k": [2]}], "expansion": [2], "learning_rate": [1e-3, 3e-3, 1e-2, 3e-2]},
    stop={"kind": "halving", "first": 0.25, "factor": 2},
    pack=3,
)
"""One bracket: three candidates in a pack, one in another."""


def traceback_of(error: Exception) -> RayTaskError:
    """As it comes back from a worker: the text of a traceback that names files and lines of code."""
    kind = f"{type(error).__module__}.{type(error).__name__}"
    text = (
        'ray::ImplicitFunc.train() (pid=7)\n  File "/work/room/doom.py", line 3, in make_room\n'
        f"    scratch(n, self._room_bytes)  # until it died, out of memory\n{kind}: {error}"
    )
    return RayTaskError("train", text, error)


MONITOR = """Failure # 1 (occurred at 2026-01-01_00-00-00)
1 worker(s) were killed due to the node running low on memory. 22 GB used / 23 GB limit
Considered workers: [
Selected to kill: (Task: task name=ImplicitFunc.train)
]
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io
"""
"""As Tune notes it when Ray ends a worker for want of memory; shortened."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (traceback_of(ValueError("the room is too small")), "builtins.ValueError: the room is too small"),
        (traceback_of(MemoryError("")), "out of memory: builtins.MemoryError:"),
        (traceback_of(torch.OutOfMemoryError("tried 2 GiB")), "out of memory: torch.OutOfMemoryError: tried 2 GiB"),
        (traceback_of(RuntimeError("CUDA: out of memory")), "out of memory: builtins.RuntimeError: CUDA: out of memory"),
        (OutOfMemoryError("Task was killed:\nthe node is low on memory."), "out of memory: the node is low on memory."),
        (MONITOR, "out of memory: 1 worker(s) were killed due to the node running low on memory. 22 GB used / 23 GB limit"),
        ("Failure # 1 (occurred at noon)\nlow on memory\nFailure # 2 (occurred at one)\nThe node died.\n", "The node died."),
        (tune_sae.RayActorError(), "its worker was killed"),
        (KeyError(), "KeyError"),
    ],
)  # fmt: skip
def test_the_reason_comes_from_the_type_and_the_last_line(error, reason):
    assert reason_of(error) == reason


def test_a_worker_that_never_began_is_not_said_to_have_been_killed():
    assert start_reason_of(tune_sae.RayActorError()) == start_reason_of(None)
    assert "died before it began; the worker's log" in start_reason_of(None)
    assert start_reason_of(traceback_of(MemoryError("full"))) == "out of memory: builtins.MemoryError: full"


def test_each_pack_is_told_its_own_error_whatever_order_tune_ends_them_in():
    """Tune moves a trial that is tried again behind the others."""
    names = [folder_of(SimpleNamespace(config={"pack": i})) for i in (10, 0, 1)]
    full = MemoryError()
    results = [
        SimpleNamespace(path=f"/s/ray/run-1/{name}", error=error) for name, error in zip(names, [None, "lost", full], strict=True)
    ]
    assert errors_by_pack(results) == {0: "lost", 1: full, 10: None}


def test_what_tune_wrote_is_deleted_from_disks_and_object_stores(bucket, tmp_path):
    for folder in (place(tmp_path), place(bucket("search"))):
        (folder / "ray/run-1/trial/params.json").write_bytes(b"{}")
        (folder / "trials/a.json").write_bytes(b"{}")
        clear(folder / "ray")
        clear(folder / "ray")  # where there is none there is nothing to do
        assert [path for path, _ in folder.walk()] == ["trials/a.json"]


def test_an_interval_that_is_not_known_does_not_end_a_search_at_its_last_line():
    values = {"layer": 1, "architecture": "topk", "sparsity": 2, "width": 32, "learning_rate": 1e-3, "text_share": None}
    scores = ({"rows": 64.0, "fvu": 0.5, "fvu_image": 0.5, "l0": 2.0, "l0_image": 2.0},)
    trial = Trial("a", "finished", "", 64, values, "b", scores, control={"fvu": 0.9, "fvu_image": 0.9})
    front = front_table({"a": trial}, {"a"})
    assert front["fvu_low"].null_count == 2
    text = "\n".join(search_lines(front, trials_table({"a": trial}), 64, 64, {1: "a: the only one"}))
    assert "image 0.500 [no interval: too few rows that differ] (0.900)" in text
    drawn = [axes for figure in front_figures(front, trials_table({"a": trial})).values() for axes in figure.axes]
    assert len(drawn) == 2
    assert not any(axes.collections for axes in drawn)  # no band around a point without an interval


def test_a_control_that_is_not_known_is_a_dash():
    values = {"layer": 1, "architecture": "topk", "sparsity": 2, "width": 32, "learning_rate": 1e-3, "text_share": None}
    ends = {"fvu_image_low": 0.25, "fvu_image_high": 0.75}
    scores = ({"rows": 64.0, "fvu": 0.5, "fvu_image": 0.5, "l0": 2.0, "l0_image": 2.0, **ends},)
    trial = Trial("a", "finished", "", 64, values, "b", scores)
    text = "\n".join(search_lines(front_table({"a": trial}, {"a"}), trials_table({"a": trial}), 64, 64, {1: "a: the only one"}))
    assert "image 0.500 [0.250, 0.750] (-)" in text


@pytest.mark.slow
def test_a_lost_worker_costs_one_candidate_and_its_mates_end_as_they_would(store, tmp_path, one_thread, local_ray, monkeypatch):
    """One candidate's worker kills itself after a few steps, another's says that memory is out, whoever shares its pack."""
    plan = plan_tune(store, "t", FOUR, SAE, place(tmp_path / "ray"))
    every = plan.proposer.round(0, {})
    killed, full = every[0], every[3]

    def trial(config: dict, shared: dict) -> None:  # sent by value, so it takes what it needs along
        import os
        import signal

        import torch

        from linrep.cluster import tune_sae as there

        real = there.train_pack

        def train_pack(pack, *more):
            names = {one.name for one in pack.candidates}
            for event in real(pack, *more):
                if isinstance(event, int) and killed.name in names:
                    os.kill(os.getpid(), signal.SIGKILL)
                if isinstance(event, int) and full.name in names:
                    raise torch.OutOfMemoryError("CUDA is full")
                yield event

        there.train_pack = train_pack  # type: ignore[assignment]
        try:
            there._trial(config, shared)
        finally:
            there.train_pack = real

    monkeypatch.setattr(tune_sae, "_trial", trial)
    found = {event.name: event for event in search_on_ray(plan, Pool(threads=1)) if isinstance(event, Trial)}
    assert found == read_trials(plan.place)
    assert (found[killed.name].status, found[killed.name].reason) == ("failed", "its worker was killed")
    assert found[full.name].status == "failed"
    assert found[full.name].reason.startswith("out of memory: ")
    assert not (plan.place / "ray").exists()

    plain = plan_tune(store, "t", FOUR, SAE, place(tmp_path / "plain"))
    for one in (killed, full):
        commit_trial(plain.place, CandidateEnd(failed_trial(one, "never came", plain.store.manifest.width, plain.within), {}))
    want = {trial.name: record_of(trial) for trial in search_plainly(plain)}
    assert len(want) == len(every) - 2
    assert {name: record_of(found[name]) for name in want} == want
    assert sorted(trial["status"] for trial in want.values()) == ["finished", "stopped"]


@pytest.mark.slow
def test_a_trial_that_cannot_start_is_one_clear_line_and_nobody_is_blamed(store, tmp_path, local_ray, monkeypatch):
    class Poison:
        """Whatever process it is sent to cannot read it."""

        def __init__(self) -> None:
            self.home = os.getpid()

        def __setstate__(self, state: dict) -> None:
            if os.getpid() != state["home"]:
                raise ImportError("no module named torch")
            self.__dict__ |= state

    poison = Poison()

    def trial(config: dict, shared: dict) -> None:
        raise AssertionError(poison)

    monkeypatch.setattr(tune_sae, "_trial", trial)
    plan = plan_tune(store, "t", FOUR, SAE, place(tmp_path))
    with pytest.raises(ServiceError, match="Ray could not start a trial") as error:
        list(search_on_ray(plan, Pool(threads=1)))
    assert "\n" not in str(error.value)
    assert "its worker died before it began; the worker's log" in str(error.value)
    assert not read_trials(plan.place)


@pytest.mark.slow
def test_a_search_whose_budget_is_raised_goes_on(split_corpora, random_vlm, fresh, one_thread, local_ray):
    """And its held-out rows are too few for intervals."""
    space = {**TUNE.space.model_dump(), "learning_rate": [1e-3]}
    few = {"space": space, "stop": {"kind": "none"}, "held_out": 8, "pack": 2}

    def run(budget: int | None) -> tuple[str, list[str], int, int]:
        outcome = run_tune_sae(recipe_of(split_corpora, random_vlm, **few, budget=budget), place(fresh))
        there = outcome.artefact
        assert there.done() == there.manifest.units
        return there.place.path, there.done(), len(read_trials(there.place)), outcome.n_new

    half = f"budget-{2 * TUNE.rows}"
    first = run(2 * TUNE.rows)
    assert first[1:] == ([half], 2, 1)
    assert run(2 * TUNE.rows) == (*first[:3], 0)
    rest = (first[0], [half, "all"], 4)
    assert run(None) == (*rest, 1)
    assert run(None) == (*rest, 0)
    frame = tracking.compare(place(fresh), ["trial"])
    assert len(frame) == 4
    front = tracking.compare_tables(place(fresh), "tables/front")
    best = set(front.filter(front["on_front"])["candidate"])
    assert {row["name"] for row in frame.to_dicts() if row["tags.linrep.front"] == "true"} == best
    assert math.isfinite(front["fvu"].sum())
