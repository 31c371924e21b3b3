"""A round of a search: who is trained next and from where, until all candidates are done. The search without a cluster."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from linrep.sae.halving import Board
from linrep.sae.pack import CandidateEnd, Trial, Waits, choice, packs_of, stopped, train_pack
from linrep.sae.search import Candidate, Halving
from linrep.sae.trials import commit_trial, keep_waiting, read_trials, read_waiting, read_waits, remove_waiting
from linrep.sae.tuning import TunePlan, objectives


@dataclass(frozen=True)
class Group:
    """Candidates of one layer and mixture that are trained on one reading of the rows.

    Attributes:
        members: Who.
        begin: Step that they begin at: 0, or the rung that they have waited at.
    """

    members: tuple[Candidate, ...]
    begin: int


Run = Callable[[Sequence[Candidate], Sequence[Group]], Iterator[Trial | int]]


def board_of(plan: TunePlan, candidates: Sequence[Candidate], done: Mapping[str, Trial], waiting: Mapping[str, Trial]) -> Board:
    """The board of a round, from all records.

    Args:
        plan: The search.
        candidates: Those of this round.
        done: Candidates that are done, of earlier rounds too.
        waiting: Those that wait at a rung.
    """
    batch, factor = plan.sae.batch, plan.tune.stop.factor if isinstance(plan.tune.stop, Halving) else math.inf
    members: dict[str, list[str]] = {}
    for one in candidates:
        members.setdefault(one.bracket(plan.within), []).append(one.name)
    seen = [
        (trial.bracket, round(score["rows"] / batch), {trial.name: choice(score)})
        for trial in [*done.values(), *waiting.values()]
        for score in trial.scores
    ]
    left = {t.name: round(t.last.get("rows", 0) / batch) for t in done.values() if t.status != "finished"}
    return Board(factor, members, seen, left)


def settle(
    plan: TunePlan, candidates: Sequence[Candidate], done: Mapping[str, Trial], waiting: Mapping[str, Trial]
) -> tuple[list[Trial], list[Group]]:
    """Judge those that wait and whose bracket is complete by now.

    Args:
        plan: The search.
        candidates: Those of this round.
        done: Candidates that are done, of earlier rounds too.
        waiting: Those that wait at a rung.

    Returns:
        Candidates that stop, to be committed; and who is trained next. Neither: the round is done.
    """
    board = board_of(plan, candidates, done, waiting)
    ends, free = [], {0: [one for one in candidates if one.name not in done and one.name not in waiting]}
    for one in candidates:
        trial = waiting.get(one.name)
        if trial is None or one.name in done:
            continue
        rung = round(trial.last["rows"] / plan.sae.batch)
        verdict = board.judge(trial.bracket, rung, {one.name: choice(trial.last)})
        if one.name in verdict.goes_on:
            free.setdefault(rung, []).append(one)
        elif one.name not in verdict.waits:
            ends.append(stopped(trial))
    packs = [
        Group(tuple(members), begin) for begin in sorted(free) for members in packs_of(free[begin], plan.tune.pack, plan.within)
    ]
    return ends, packs


def search(plan: TunePlan, run: Run) -> Iterator[Trial | int]:
    """A whole search, or what is left of it: round after round, in each as often as candidates had to wait.

    Args:
        plan: The search.
        run: Trains groups of a round's candidates and commits what becomes of them; yields as this does.

    Yields:
        Candidates as they are committed, and what else `run` has to say.
    """
    earlier: set[str] = set()
    for number in range(plan.proposer.rounds()):
        done = read_trials(plan.place)
        proposed = plan.proposer.round(number, {name: objectives(trial, plan.modalities) for name, trial in done.items()})
        # Only rounds before this one count as spent: what a killed driver had done of this one must not change who is in it.
        candidates = proposed[: plan.n_affordable(sum(done[name].rows for name in earlier))]
        while True:
            ends, groups = settle(plan, candidates, read_trials(plan.place), read_waiting(plan.place))
            for trial in ends:
                commit_trial(plan.place, CandidateEnd(trial, {}))
                yield trial
            if groups:
                yield from run(candidates, groups)
            elif not ends:
                break
        earlier |= {one.name for one in candidates}
        if len(candidates) < len(proposed):
            break
    remove_waiting(plan.place)


def search_plainly(plan: TunePlan) -> Generator[Trial, None, None]:
    """The same in this process, without a cluster."""

    def run(candidates: Sequence[Candidate], groups: Sequence[Group]) -> Iterator[Trial]:
        board = board_of(plan, candidates, read_trials(plan.place), read_waiting(plan.place))
        for i, group in enumerate(groups):
            waited = {one.name: read_waits(plan.place, one.name) for one in group.members} if group.begin else {}
            pack = plan.pack(i, group.members, group.begin)
            for event in train_pack(pack, board.judge, within=plan.within, waited=waited):
                if isinstance(event, Waits):
                    keep_waiting(plan.place, event)
                elif isinstance(event, CandidateEnd):
                    commit_trial(plan.place, event)
                    if event.trial.status == "failed":
                        board.leave(event.trial.name)
                    yield event.trial

    yield from (event for event in search(plan, run) if isinstance(event, Trial))
