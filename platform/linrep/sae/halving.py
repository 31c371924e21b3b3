"""Successive halving: who goes on at a rung, within brackets, whatever the order in which candidates get there."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from linrep.sae.search import Halving, Whole


def rungs(stop: Halving | Whole, steps: int) -> tuple[int, ...]:
    """Steps at which candidates of a run of `steps` are compared, rising; the end is not one.

    >>> rungs(Halving(first=0.125, factor=2), 800)
    (100, 200, 400)
    """
    if isinstance(stop, Whole):
        return ()
    found, at = [], steps * stop.first
    while round(at) < steps:
        found.append(max(1, round(at)))
        at *= stop.factor
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Verdict:
    """What becomes of candidates at a rung; those in neither set stop.

    Attributes:
        goes_on: Are among the best of their bracket.
        waits: Cannot be judged before the others of their bracket are here.
    """

    goes_on: frozenset[str]
    waits: frozenset[str]


class Board:
    """What was reached at each rung of each bracket.

    A rung keeps one candidate in `factor` of those it has seen, at least one. It judges once all members of the bracket that
    can still come are here: asynchronous halving judges at once, and then who goes on depends on who was faster, so a search
    that was killed would end with other candidates than one that was not. Those seen in earlier rounds count as well.

    Source: Jamieson & Talwalkar, "Non-stochastic best arm identification", 2016; brackets apart from each other as in Li et
    al., "A system for massively parallel hyperparameter tuning", 2020.
    """

    def __init__(
        self,
        factor: float,
        members: Mapping[str, Iterable[str]],
        seen: Iterable[tuple[str, int, Mapping[str, float]]] = (),
        left: Mapping[str, int] | None = None,
    ) -> None:
        """Begin with what is known.

        Args:
            factor: One candidate in `factor` goes on.
            members: The candidates of each bracket, of this round.
            seen: Bracket, rung, and FVU by candidate.
            left: Last rung of candidates that have ended early, 0 for none.
        """
        self._factor = factor
        self._members = {bracket: frozenset(names) for bracket, names in members.items()}
        self._left = dict(left or {})
        self._seen: dict[tuple[str, int], dict[str, float]] = {}
        for bracket, rung, values in seen:
            self._seen.setdefault((bracket, rung), {}).update(values)

    def judge(self, bracket: str, rung: int, values: Mapping[str, float]) -> Verdict:
        """What becomes of some candidates.

        Args:
            bracket: What they have in common.
            rung: Steps that they have taken.
            values: Held-out FVU by candidate; small is good, what is not finite is worst.
        """
        here = self._seen.setdefault((bracket, rung), {})
        here.update(values)
        if any(self._left.get(name, rung) >= rung for name in self._members.get(bracket, frozenset()) - here.keys()):
            return Verdict(frozenset(), frozenset(values))
        order = sorted(here, key=lambda name: (not math.isfinite(here[name]), here[name], name))
        kept = order[: max(1, math.ceil(len(here) / self._factor))]
        for name in here.keys() - set(kept):
            self._left[name] = min(rung, self._left.get(name, rung))
        return Verdict(frozenset(values) & frozenset(kept), frozenset())

    def leave(self, name: str) -> None:
        """A candidate has failed: it comes to no further rung."""
        self._left.setdefault(name, max((rung for (_, rung), here in self._seen.items() if name in here), default=0))
