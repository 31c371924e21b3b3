"""A search on Ray Tune: each trial a plain function that trains a pack of candidates on a share of the cluster.

Trials end by themselves: at a rung a pack asks the search's `Board` which of its candidates go on. Tune's own schedulers
stop a whole trial from outside, which would stop the whole pack, and may leave its placement group behind. Who is done is said
by the candidates' commits alone, so a driver that is killed needs nothing of Tune's to continue.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import ray
import torch
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError, WorkerCrashedError

from linrep.cluster.actors import one_gpu, own_device
from linrep.cluster.actors import resources as cluster_can
from linrep.cluster.fan_out import control, fetch
from linrep.errors import RecipeError, ServiceError
from linrep.harvest.config import Pool
from linrep.places import Place
from linrep.sae.halving import Board, Verdict
from linrep.sae.pack import CandidateEnd, Pack, Trial, Waits, train_pack
from linrep.sae.rounds import Group, board_of, search
from linrep.sae.search import Candidate
from linrep.sae.trials import commit_trial, failed_trial, keep_waiting, read_trial, read_trials, read_waiting, read_waits
from linrep.sae.tuning import TunePlan

SCRATCH = "ray"
"""Folder for Tune's own records while it runs."""
LOOK_SECONDS = 0.3
END_SECONDS = 10
"""Time that a search has to end its trials when the driver has failed."""
AGAIN = 1
"""A pack whose worker is lost is begun again so often; then each of its candidates alone."""
OUT_OF_MEMORY = {"OutOfMemoryError", "MemoryError"}
"""Python's, torch's, and that of Ray, which ends a worker before the machine runs out."""


class Quit(tune.Stopper):
    """Ends a search from outside: its thread must be gone before Ray is, see `linrep.cluster.session.leave`.

    Attributes:
        asked: Whether it is to end.
    """

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is ended alone."""
        return False

    def stop_all(self) -> bool:
        """Whether all are ended."""
        return self.asked


class Desk:
    """An actor between trials and driver: judges at the rungs, counts steps, and knows who has begun at all."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._steps: dict[int, int] = {}
        self._begun: set[int] = set()

    def judge(self, bracket: str, rung: int, values: dict[str, float]) -> Verdict:
        """See `Board.judge`."""
        return self._board.judge(bracket, rung, values)

    def leave(self, name: str) -> None:
        """See `Board.leave`."""
        self._board.leave(name)

    def begin(self, pack: int) -> None:
        """A pack's worker is there, and has what it needs."""
        self._begun.add(pack)

    def begun(self) -> set[int]:
        """Packs whose worker was there."""
        return self._begun

    def report(self, pack: int, rows: int) -> None:
        """Rows that a pack has trained its candidates on, together."""
        self._steps[pack] = max(rows, self._steps.get(pack, 0))

    def rows(self) -> int:
        """Over all packs."""
        return sum(self._steps.values())


def search_on_ray(plan: TunePlan, pool: Pool) -> Iterator[Trial | int]:
    """Train what is missing of a search, round after round, on the cluster that this process is connected to.

    Args:
        plan: The search.
        pool: GPUs, CPUs and threads of a trial.

    Yields:
        Candidates as they end, and how many rows this run has trained on so far, over all candidates.

    Raises:
        RecipeError: No trial fits on this machine.
        ServiceError: Ray gave up, or could not start a trial; what is committed by then stays.
    """
    each = resources(pool, cluster_can())
    check_trial_room(each, ray.cluster_resources() if len(ray.nodes()) == 1 and not os.environ.get("RAY_ADDRESS") else None)
    before = 0

    def run(candidates: Sequence[Candidate], groups: Sequence[Group]) -> Iterator[Trial | int]:
        nonlocal before
        for again in (False, True):
            tried = [Group((one,), group.begin) for group in groups for one in group.members] if again else groups
            reasons: dict[str, str] = {}
            trained = 0
            for event in _run(plan, candidates, tried, each, pool, reasons):
                if not isinstance(event, Trial):
                    trained = event
                    event = before + trained
                yield event
            before += trained
            done, waiting = read_trials(plan.place), read_waiting(plan.place)
            for group in tried if again else [group for group in tried if len(group.members) == 1]:
                (one,) = group.members
                if one.name not in done and _at(waiting, one, plan) <= group.begin:
                    # The only candidate of a pack that was lost, twice: it is the one to blame.
                    why = reasons.get(one.name, "its worker was lost")
                    trial = failed_trial(one, why, plan.store.manifest.width, plan.within, waiting.get(one.name))
                    commit_trial(plan.place, CandidateEnd(trial, {}))
                    done[one.name] = trial
                    yield trial
            groups = [
                Group(left, group.begin)
                for group in tried
                if (left := tuple(m for m in group.members if m.name not in done and _at(waiting, m, plan) <= group.begin))
            ]
            if not groups:
                break

    try:
        yield from search(plan, run)
    finally:
        clear(plan.place / SCRATCH)


def clear(folder: Place) -> None:
    """Delete what Tune wrote of its trials, which nothing reads: of earlier runs too, on disks and in object stores."""
    if folder.is_folder():
        folder.files.delete_dir(folder.path)


def _at(waiting: Mapping[str, Trial], one: Candidate, plan: TunePlan) -> int:
    """Rung at which a candidate waits, 0 for none."""
    return round(waiting[one.name].rows / plan.sae.batch) if one.name in waiting else 0


def resources(pool: Pool, there: Mapping[str, float]) -> dict[str, float]:
    """What a trial reserves: a whole core where there is no GPU, since it computes on it all the time."""
    gpus = one_gpu(pool, there)
    return {"GPU": gpus, "CPU": pool.cpus} if gpus else {"CPU": max(1.0, pool.cpus)}


def check_trial_room(each: Mapping[str, float], there: Mapping[str, float] | None) -> None:
    """Make sure that a trial can run at all.

    Raises:
        RecipeError: It cannot, and would wait for ever.
    """
    for what, n in each.items() if there is not None else ():
        if there is not None and n > there.get(what, 0.0) + 1e-9:
            raise RecipeError(f"a trial takes {n:g} {what}s, there are {there.get(what, 0.0):g}: lower pool.{what.lower()}s")


def _run(
    plan: TunePlan,
    candidates: Sequence[Candidate],
    groups: Sequence[Group],
    each: dict[str, float],
    pool: Pool,
    reasons: dict[str, str],
) -> Iterator[Trial | int]:
    """One `Tuner.fit` over packs, in a thread of its own; there, Tune leaves the signals of this process alone."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    known = read_trials(plan.place)
    desk: Any = control(Desk, board_of(plan, candidates, known, read_waiting(plan.place)))
    shared = {
        "packs": [plan.pack(i, group.members, group.begin) for i, group in enumerate(groups)],
        "place": plan.place,
        "desk": desk,
        "within": plan.within,
        "threads": pool.threads or _threads(each, len(groups)),
    }
    scratch, quit_ = plan.place / SCRATCH, Quit()
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, shared=shared), each),
        param_space={"pack": tune.grid_search(list(range(len(groups))))},
        tune_config=tune.TuneConfig(trial_dirname_creator=folder_of),
        run_config=tune.RunConfig(
            name=f"run-{uuid.uuid4().hex[:8]}",
            storage_path=scratch.path,
            storage_filesystem=scratch.files,
            failure_config=tune.FailureConfig(max_failures=AGAIN),
            stop=quit_,
            verbose=0,
        ),
    )
    outcome: list[Any] = []

    def fit() -> None:
        try:
            outcome.append(tuner.fit())
        except BaseException as error:  # reported by the main thread, whatever it is
            outcome.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    running, reported = True, set(known)
    names = {one.name for group in groups for one in group.members}
    try:
        while running:
            running = thread.is_alive()
            for trial in _new(plan.place, names - reported):
                reported.add(trial.name)
                yield trial
            yield fetch(desk.rows.remote())
            if running:
                time.sleep(LOOK_SECONDS)
    finally:
        quit_.asked = True
        thread.join(END_SECONDS)
    begun = fetch(desk.begun.remote())
    ray.kill(desk)
    (results,) = outcome
    if isinstance(results, BaseException):
        raise ServiceError(f"Ray Tune gave the search up: {reason_of(results)}") from results
    found = errors_by_pack(list(results))
    for i, group in enumerate(groups):
        if i not in begun:  # nobody's fault among its candidates
            line = f"Ray could not start a trial ({start_reason_of(found[i])}): run the same command again when that is mended"
            raise ServiceError(line) from (found[i] if isinstance(found[i], BaseException) else None)
        if found[i] is not None:
            reasons |= {one.name: reason_of(found[i]) for one in group.members}


def folder_of(trial: Any) -> str:
    """Name of the folder that Tune keeps a trial's records in: it says which pack a result is of."""
    return f"pack-{trial.config['pack']}"


def errors_by_pack(results: Iterable[Any]) -> dict[int, Any]:
    """What Tune says of each pack: an error, its text, or None. A trial that is tried again moves to the end of Tune's list."""
    return {int(PurePath(result.path).name.removeprefix("pack-")): result.error for result in results}


def _trial(config: dict[str, Any], shared: dict[str, Any]) -> None:
    """What each Tune trial does: train a pack, commit its candidates one by one."""
    pack: Pack = shared["packs"][config["pack"]]
    ray.get(shared["desk"].begin.remote(pack.number))
    device = own_device().type
    if device == "cpu":
        torch.set_num_threads(min(shared["threads"], len(os.sched_getaffinity(0))))
    place, batch = shared["place"], pack.job.config.batch
    # By an earlier try of this pack some may have ended, or come to wait at a later rung.
    done, waiting = read_trials(place), read_waiting(place)
    left = tuple(
        one
        for one in pack.candidates
        if one.name not in done and (one.name not in waiting or waiting[one.name].rows <= pack.begin * batch)
    )
    if not left:
        return
    desk, rows, alive = shared["desk"], 0, len(left)

    def judge(bracket: str, rung: int, values: Mapping[str, float]) -> Verdict:
        return ray.get(desk.judge.remote(bracket, rung, dict(values)))

    at, waited = pack.begin, {one.name: read_waits(place, one.name) for one in left} if pack.begin else {}
    for event in train_pack(replace(pack, candidates=left), judge, device, shared["within"], waited):
        if isinstance(event, Waits):
            keep_waiting(place, event)
            alive -= 1
        elif isinstance(event, CandidateEnd):
            commit_trial(place, event)
            alive -= 1
            if event.trial.status == "failed":
                ray.get(desk.leave.remote(event.trial.name))
        else:
            rows, at = rows + alive * (event - at) * batch, event
            desk.report.remote(pack.number, rows)
    tune.report({"rows": rows})


def _new(place: Place, names: set[str]) -> list[Trial]:
    files = {name: place / "trials" / f"{name}.json" for name in sorted(names)}
    return [read_trial(file) for file in files.values() if file.is_file()]


def _threads(each: Mapping[str, float], n_packs: int) -> int:
    cpus = ray.cluster_resources().get("CPU", 1.0)
    at_once = max(1, min(n_packs, int(cpus / each["CPU"])))
    return max(1, int(cpus / at_once))


def reason_of(error: BaseException | str) -> str:
    """Why a worker ended, in a line: from the error's type and its last line, since the lines before it name anything.

    Args:
        error: What was raised, or what Tune noted of it: of Ray's own errors that is only the text, one failure after another.
    """
    text = error.rpartition("Failure # ")[2] if isinstance(error, str) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # What Ray writes of a worker that it ended for want of memory goes on for pages and ends with advice.
    low = [line for line in lines if "low on memory" in line] if isinstance(error, str | OutOfMemoryError) else []
    if low:
        return f"out of memory: {low[0][:300]}"
    last = lines[-1][:300] if lines else type(error).__name__
    # The last line of a traceback begins with the type of the error, with its module.
    kinds = {kind.__name__ for kind in type(error).__mro__} | {last.partition(":")[0].rpartition(".")[2]}
    if kinds & OUT_OF_MEMORY or any(sign in last for sign in ("out of memory", "can't allocate memory")):
        return f"out of memory: {last}"
    return "its worker was killed" if isinstance(error, RayActorError | WorkerCrashedError) else last


def start_reason_of(error: BaseException | str | None) -> str:
    """Why a worker never began, in a line. Of one that could not even load its code Ray says only that it died."""
    if error is None or isinstance(error, RayActorError | WorkerCrashedError):
        return "its worker died before it began; the worker's log, in the folder of Ray's session, says why"
    return reason_of(error)
