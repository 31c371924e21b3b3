"""Clauses find what was planted, count a group once, are the best of their kind, and say nothing of noise."""

from itertools import combinations

import numpy as np
import pytest

from linrep.interpret.clauses import PRICES, Attribute, Search, Things, find_clauses, tell_apart

OBJECTS, COLOURS, GROUNDS = ("boat", "car", "key", "tree"), ("blue", "pink", "red"), ("sand", "snow")


def drawn(n: int, seed: int) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    names = {"object": OBJECTS, "colour": COLOURS, "ground": GROUNDS}
    return [{name: str(rng.choice(values)) for name, values in names.items()} for _ in range(n)]


def things_of(rows: list[dict[str, str]], fires: np.ndarray) -> Things:
    """Each row a group of its own, positives and negatives of equal weight."""
    gains = np.where(fires, 0.5 / max(fires.sum(), 1), -0.5 / max((~fires).sum(), 1))
    attributes = {name: Attribute.of([[row[name]] for row in rows]) for name in rows[0]}
    return Things(np.zeros(len(rows)), np.arange(len(rows)), gains, attributes)


SHAPES = [shape for n in (1, 2) for shape in combinations(("object", "colour", "ground"), n)]


def test_an_attribute_tells_which_things_have_one_of_its_values():
    attribute = Attribute.of([["a"], ["b", "a"], [], ["c"]])
    assert attribute.values == ("a", "b", "c")
    assert attribute.having([0], 4).tolist() == [True, True, False, False]
    assert attribute.having([1, 2], 4).tolist() == [False, True, False, True]
    assert attribute.having([], 4).tolist() == [False] * 4


def test_two_planted_clauses_are_found():
    rows = drawn(300, seed=0)
    fires = np.array([(r["object"] in ("boat", "key") and r["colour"] == "red") or r["object"] == "tree" for r in rows])
    found = tell_apart(things_of(rows, fires), SHAPES, 6, 3)
    # The tree is in both: as a clause of its own, in any colour.
    assert set(found) <= {(("object", ("tree",)),), (("object", ("boat", "key")), ("colour", ("red",))),
                          (("object", ("boat", "key", "tree")), ("colour", ("red",)))}  # fmt: skip
    assert len(found) == 2
    covered = things_of(rows, fires).covered(found)
    assert (covered == fires).all()


def test_of_one_attribute_the_values_are_the_best_of_all_sets():
    rows = drawn(120, seed=1)
    rng = np.random.default_rng(2)
    odds = {"boat": 0.8, "car": 0.55, "key": 0.4, "tree": 0.1}
    fires = np.array([rng.random() < odds[row["object"]] for row in rows])
    things = things_of(rows, fires)
    for price in (0.0, 0.02, 0.1):
        (clause,) = find_clauses(Search(things, 3), [("object",)], 1, price) or ((("object", ()),),)

        def worth(values: tuple[str, ...], price: float = price) -> float:
            return things.total(things.covered([(("object", values),)])) - price * len(values)

        sets = [values for n in range(4) for values in combinations(OBJECTS, n)]
        assert worth(clause[0][1]) == pytest.approx(max(worth(values) for values in sets))


def test_a_group_is_gained_and_lost_once():
    # Two texts: in the first "a" stands three times, in the second once.
    attribute = Attribute.of([["a"], ["a"], ["a"], ["b"], ["a"]])
    things = Things(np.zeros(5), np.array([0, 0, 0, 1, 1]), np.array([0.5, -0.4]), {"word": attribute})
    assert things.total(things.covered([(("word", ("a",)),)])) == pytest.approx(0.1)
    assert find_clauses(Search(things, 2), [("word",)], 1, 0.01) == ((("word", ("a",)),),)
    assert find_clauses(Search(things, 2), [("word",)], 1, 0.2) == ()


def test_the_price_keeps_noise_from_being_explained():
    said = []
    for seed in range(12):
        rows = drawn(80, seed)
        fires = np.random.default_rng(seed + 100).random(80) < 0.4
        said.append(sum(len(values) for clause in tell_apart(things_of(rows, fires), SHAPES, 6, 3) for _, values in clause))
        fresh = drawn(2000, seed + 200)
        again = np.random.default_rng(seed + 300).random(2000) < 0.4
        others = things_of(fresh, again)
        assert abs(others.total(others.covered(tell_apart(things_of(rows, fires), SHAPES, 6, 3)))) < 0.06
    free = [
        sum(
            len(values) for clause in find_clauses(Search(things_of(rows, fires), 6, 0.0), SHAPES, 3, 0.0) for _, values in clause
        )
        for rows, fires in ((drawn(80, s), np.random.default_rng(s + 100).random(80) < 0.4) for s in range(12))
    ]
    assert np.mean(said) < 0.6 * np.mean(free)


def test_few_samples_take_the_lowest_price():
    rows = [{"object": "boat", "colour": "red", "ground": "sand"}] * 3 + [
        {"object": "car", "colour": "red", "ground": "sand"}
    ] * 3
    fires = np.array([True] * 3 + [False] * 3)
    assert tell_apart(things_of(rows, fires), SHAPES, 6, 3) == ((("object", ("boat",)),),)
    assert PRICES[-1] == min(PRICES)
