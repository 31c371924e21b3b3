"""Conditions that separate things: a few clauses, of which one must hold, each of attributes with the values that will do.

A thing (an image, a patch, a word) adds its gain when a clause covers it, and a group of things (the words of a text) adds its
own gain once, when any of them is covered. Values are taken one by one, always the one that adds most; every value costs a price,
and cross-validation over groups chooses the price: what is said should also hold of what was not looked at.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

PRICES = (0.04, 0.02, 0.01)
"""What a further value must add to the balanced accuracy: candidates."""
FOLDS = 4
FEWEST = 2 * FOLDS
"""Groups of either kind that cross-validation needs; with fewer the last price is taken."""
TURNS = 2
"""How often the attributes of a clause are chosen anew, given the others."""

Clause = tuple[tuple[str, tuple[str, ...]], ...]
"""Attributes, each with the values that will do; all must hold."""


@dataclass(frozen=True)
class Attribute:
    """Which things have which values; a thing may have several, or none.

    Attributes:
        values: The values in words.
        thing: Number of a thing that has a value, by value.
        value: Number of that value, rising.
    """

    values: tuple[str, ...]
    thing: Int[np.ndarray, " p"]
    value: Int[np.ndarray, " p"]

    @classmethod
    def of(cls, said: Sequence[Sequence[str]]) -> "Attribute":
        """Of the values of each thing."""
        values = tuple(sorted({value for own in said for value in own}))
        number = {value: i for i, value in enumerate(values)}
        pairs = sorted((number[value], i) for i, own in enumerate(said) for value in own)
        value, thing = np.array(pairs, np.int64).reshape(-1, 2).T
        return cls(values, thing, value)

    def having(self, chosen: Sequence[int], n: int) -> Bool[np.ndarray, " n"]:
        """Which of n things have one of some values."""
        found = np.zeros(n, bool)
        for one in chosen:
            first, last = np.searchsorted(self.value, (one, one + 1))
            found[self.thing[first:last]] = True
        return found


@dataclass(frozen=True)
class Things:
    """What is to be separated.

    Attributes:
        gain: What each thing adds when it is covered; below 0 where it should not be.
        group: Group of each thing.
        group_gain: What each group adds when one of its things is covered.
        attributes: What is known of the things, by name.
    """

    gain: Float[np.ndarray, " n"]
    group: Int[np.ndarray, " n"]
    group_gain: Float[np.ndarray, " g"]
    attributes: Mapping[str, Attribute]

    def total(self, covered: Bool[np.ndarray, " n"]) -> float:
        """What all that is covered adds."""
        return float(self.gain[covered].sum() + self.group_gain[np.unique(self.group[covered])].sum())

    def covered(self, clauses: Sequence[Clause]) -> Bool[np.ndarray, " n"]:
        """The things of which a clause holds."""
        found = np.zeros(len(self.gain), bool)
        for clause in clauses:
            inside = np.ones(len(self.gain), bool)
            for name, said in clause:
                own = self.attributes[name]
                inside &= own.having([i for i, value in enumerate(own.values) if value in said], len(inside))
            found |= inside
        return found

    def only(self, groups: Bool[np.ndarray, " g"]) -> "Things":
        """Some groups count, the others add nothing; gains and losses add up to as much as before."""
        return replace(self, gain=_kept(self.gain, groups[self.group]), group_gain=_kept(self.group_gain, groups))


def _kept(gain: Float[np.ndarray, " n"], stay: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    left = np.where(stay, gain, 0.0)
    for sign in (gain > 0, gain < 0):
        part = left[sign].sum()
        if part:
            left[sign] *= gain[sign].sum() / part
    return left


def tell_apart(things: Things, shapes: Sequence[tuple[str, ...]], n_values: int, n_clauses: int) -> tuple[Clause, ...]:
    """The clauses, at the price that cross-validation chooses; none where nothing pays.

    Args:
        things: What to separate.
        shapes: Attributes that may stand together in a clause.
        n_values: Values of an attribute in a clause, at most.
        n_clauses: Clauses, at most.
    """
    return find_clauses(Search(things, n_values), shapes, n_clauses, _price(things, shapes, n_values, n_clauses))


def _price(things: Things, shapes: Sequence[tuple[str, ...]], n_values: int, n_clauses: int) -> float:
    wanted = things.group_gain + np.bincount(things.group, things.gain, len(things.group_gain))
    fold = np.zeros(len(wanted), np.int64)
    for kind in (wanted > 0, wanted <= 0):
        if kind.sum() < FEWEST:
            return PRICES[-1]
        fold[kind] = np.arange(kind.sum()) % FOLDS
    scores = np.zeros(len(PRICES))
    for i in range(FOLDS):
        search, held_out = Search(things.only(fold != i), n_values), (fold == i)[things.group]
        for j, price in enumerate(PRICES):
            clauses = find_clauses(search, shapes, n_clauses, price)
            scores[j] += things.total(things.covered(clauses) & held_out) if clauses else 0.0
    return PRICES[int(np.argmax(np.round(scores, 9)))]  # of equals the dearest, which says least


@dataclass(frozen=True)
class Search:
    """A search for clauses that remembers what it has found: shapes share their attributes, and prices their order of values.

    Attributes:
        things: What to separate.
        n_values: Values of an attribute in a clause, at most.
        lowest: The lowest price that is asked for.
    """

    things: Things
    n_values: int
    lowest: float = PRICES[-1]
    _values: dict[Any, list[tuple[int, float]]] = field(default_factory=dict, repr=False)
    _covered: dict[Clause, Bool[np.ndarray, " n"]] = field(default_factory=dict, repr=False)

    def values(self, name: str, given: Mapping[str, Sequence[int]], covered: Bool[np.ndarray, " n"], price: float) -> list[int]:
        """Values of an attribute, one by one, each the one that adds most, as long as it is worth its price.

        Args:
            name: The attribute.
            given: Values of other attributes that hold as well.
            covered: Things that other clauses cover.
            price: What a value must add, not below the lowest.
        """
        key = name, tuple((other, tuple(own)) for other, own in sorted(given.items())), covered.tobytes()
        if key not in self._values:
            inside = np.ones(len(covered), bool)
            for other, own in given.items():
                inside &= self.things.attributes[other].having(own, len(inside))
            self._values[key] = _ranked(self.things, self.things.attributes[name], inside, covered, self.n_values, self.lowest)
        return [value for value, gain in itertools.takewhile(lambda one: one[1] > price, self._values[key])]

    def covered(self, clause: Clause) -> Bool[np.ndarray, " n"]:
        """The things for which a clause holds."""
        if clause not in self._covered:
            self._covered[clause] = self.things.covered([clause])
        return self._covered[clause]


def find_clauses(search: Search, shapes: Sequence[tuple[str, ...]], n_clauses: int, price: float) -> tuple[Clause, ...]:
    """Clauses at a price, the one that adds most first.

    Args:
        search: What to separate.
        shapes: Attributes that may stand together in a clause.
        n_clauses: Clauses, at most.
        price: What a value must add, not below the search's lowest.
    """
    found: list[Clause] = []
    covered = np.zeros(len(search.things.gain), bool)
    while len(found) < n_clauses:
        best, most, widest = (), search.things.total(covered) + 1e-9, covered
        for clause in dict.fromkeys(_clauses(search, shapes, price, covered)):
            cost = price * sum(len(said) for _, said in clause) + price * (len(clause) - 1)
            wider = covered | search.covered(clause)
            total = search.things.total(wider) - cost
            if total > most:
                best, most, widest = clause, total, wider
        if not best:
            break
        found.append(best)
        covered = widest
    return tuple(found)


def _clauses(
    search: Search, shapes: Sequence[tuple[str, ...]], price: float, covered: Bool[np.ndarray, " n"]
) -> Iterator[Clause]:
    """For each shape, beginning with each of its attributes: values of the first, of the next given those, and so on in turns."""
    attributes = search.things.attributes
    for shape in shapes:
        for first in range(len(shape)):
            order = (*shape[first:], *shape[:first])
            chosen: dict[str, list[int]] = {}
            for _ in range(TURNS if len(order) > 1 else 1):
                for name in order:
                    given = {other: values for other, values in chosen.items() if other != name}
                    chosen[name] = search.values(name, given, covered, price)
                    if not chosen[name]:
                        break
            if all(chosen.get(name) for name in shape):
                named = ((name, sorted(attributes[name].values[v] for v in chosen[name])) for name in shape)
                yield tuple((name, tuple(said)) for name, said in named)


def _ranked(
    things: Things,
    attribute: Attribute,
    inside: Bool[np.ndarray, " n"],
    covered: Bool[np.ndarray, " n"],
    n_values: int,
    lowest: float,
) -> list[tuple[int, float]]:
    """Values of an attribute in the order in which they are taken, each the one that adds most, with what it adds.

    What a value adds does not depend on its price, so the values at a price are the first of these.
    """
    live = inside[attribute.thing] & ~covered[attribute.thing]
    thing, value = attribute.thing[live], attribute.value[live]
    reached = np.zeros(len(things.group_gain), bool)
    reached[things.group[covered]] = True
    chosen: list[tuple[int, float]] = []
    n = len(attribute.values)
    while len(chosen) < n_values and len(thing):
        gains = np.bincount(value, things.gain[thing], n)
        group = things.group[thing]
        fresh = ~reached[group]
        first = np.zeros((len(reached), n), bool)
        first[group[fresh], value[fresh]] = True
        gains += things.group_gain @ first
        best = int(np.argmax(gains))
        if gains[best] <= lowest:
            break
        chosen.append((best, float(gains[best])))
        taken = np.zeros(len(covered), bool)
        taken[thing[value == best]] = True
        reached[things.group[taken]] = True
        left = ~taken[thing]
        thing, value = thing[left], value[left]
    return chosen
