"""Asynchronous successive halving: who goes on at a rung, within brackets, without waiting for candidates that come later."""

import math
from collections.abc import Iterable, Mapping

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


class Board:
    """What was reached at each rung of each bracket.

    A rung keeps one candidate in `factor` of those it has seen, at least one. Candidates that arrive together are compared
    with each other and with all before them; those that come later are compared with these.

    Source: Li et al., "A system for massively parallel hyperparameter tuning" (ASHA), 2020.
    """

    def __init__(self, factor: float, seen: Iterable[tuple[str, int, Mapping[str, float]]] = ()) -> None:
        """Begin with what an earlier run saw.

        Args:
            factor: One in so many goes on.
            seen: Bracket, rung, and FVU by candidate.
        """
        self._factor = factor
        self._seen: dict[tuple[str, int], dict[str, float]] = {}
        for bracket, rung, values in seen:
            self._seen.setdefault((bracket, rung), {}).update(values)

    def judge(self, bracket: str, rung: int, values: Mapping[str, float]) -> set[str]:
        """Which of some candidates go on.

        Args:
            bracket: What they have in common.
            rung: Steps that they have taken.
            values: Held-out FVU by candidate; small is good, what is not finite is worst.
        """
        here = self._seen.setdefault((bracket, rung), {})
        here.update(values)
        order = sorted(here, key=lambda name: (not math.isfinite(here[name]), here[name], name))
        return values.keys() & set(order[: max(1, math.ceil(len(here) / self._factor))])
