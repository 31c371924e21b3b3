"""Effects from planted runs: what was planted comes out, controls stand beside it, and nothing is counted that was not run."""

import numpy as np
import pytest

from linrep.steer.config import Asking, Dose, Question, SteerConfig
from linrep.steer.effects import effects, judge_answers, matched
from linrep.steer.judges.readers import by_choice, by_parser, by_words
from linrep.steer.judges.verdict import Verdict
from linrep.steer.summary import _site, measure_of
from linrep.store.tables import table_of
from schemas.steering import ANSWERS, CELLS, DAMAGE, VERDICTS
from tests.steering import value_of

CONFIG = SteerConfig(
    dose=Dose(strengths=(1.0, 2.0)),
    ask=Asking(questions=(Question(prompt="<image> what ?"), Question(prompt="<image> colour ?", about="colour"))),
)
PAIRS = [("boat", "tree"), ("key", "star"), ("tree", "boat")]


def tables(seed=0):
    """Class mean turns 3 of 4 images at strength 2 and spoils the colour of one; random does nothing; one cell failed."""
    cells, answers, damage = [], [], []
    for source, target in PAIRS:
        for i in range(5):
            who = {"source": source, "target": target, "sample_id": f"{source}{i}"}
            named = i != 4  # the fifth image is taken for something else to begin with
            plain = {"edit": "none"}
            answers.append({**who, **plain, "question": 0, "about": "class", "text": f"{source} ." if named else "house ."})
            answers.append({**who, **plain, "question": 1, "about": "colour", "text": "red ."})
            cells.append({**who, **plain, "p_target": 0.1, "logp_source": -0.1, "logp_target": -2.3})
            damage.append({**who, **plain, "nll": 1.0, "n_tokens": 5})
            for direction in ("class_mean", "random"):
                for strength in (1.0, 2.0):
                    which = {"site": "image", "layer": 1, "edit": "add", "direction": direction, "strength": strength}
                    strong = direction == "class_mean" and strength == 2
                    if strong and i == 3:
                        answers += [
                            {**who, **which, "question": q, "about": a, "error": "RuntimeError: out of memory"}
                            for q, a in ((0, "class"), (1, "colour"))
                        ]
                        cells.append({**who, **which, "error": "RuntimeError: out of memory"})
                        damage.append({**who, **which, "n_tokens": 0, "error": "RuntimeError: out of memory"})
                        continue
                    word = target if strong and i != 0 else (source if named else "house")
                    colour = "blue" if strong and i == 1 else "red"
                    answers.append({**who, **which, "question": 0, "about": "class", "text": f"{word} ."})
                    answers.append({**who, **which, "question": 1, "about": "colour", "text": f"{colour} ."})
                    p = 0.9 if strong else 0.1 + 0.1 * (direction == "class_mean")
                    cells.append({**who, **which, "p_target": p, "logp_source": -1.0, "logp_target": -1.0})
                    damage.append(
                        {**who, **which, "nll": 1 + (0.2 if direction == "class_mean" else 0.4) * strength, "n_tokens": 5}
                    )
            no = {"site": "last", "layer": 0, "edit": "add", "direction": "class_mean", "strength": 1.0}
            cells.append({**who, **no, "error": "no direction: the class means coincide"})
    return table_of(cells, CELLS), table_of(answers, ANSWERS), table_of(damage, DAMAGE)


@pytest.fixture(scope="module")
def found():
    cells, answers, damage = tables()
    verdicts = judge_answers(answers, cells, CONFIG, by_parser)
    return verdicts, effects(cells, verdicts, damage, CONFIG), matched(cells, damage, CONFIG)


def one(table, measure, direction="class_mean", strength=2.0):
    (row,) = value_of(table, measure, direction=direction, strength=strength, site="image")
    return row


def test_turned_counts_images_that_were_named_rightly_before(found):
    row = one(found[1], "turned")
    assert row["value"] == pytest.approx(2 / 3)  # of three that were named and ran: the first stayed, the next two turned
    assert (row["n_pairs"], row["n"]) == (3, 9)
    assert one(found[1], "turned", "random")["value"] == 0
    assert one(found[1], "left")["value"] == pytest.approx(2 / 3)


def test_scores_count_every_image(found):
    assert one(found[1], "score")["value"] == pytest.approx((-1 + 1 + 1 + 1) / 4)
    (plain,) = value_of(found[1], "score", edit="none")
    assert plain["value"] == pytest.approx(-4 / 5)


def test_selectivity_is_of_all_and_of_the_turned(found):
    assert one(found[1], "kept_colour")["value"] == pytest.approx(3 / 4)
    assert one(found[1], "turned_kept_colour")["value"] == pytest.approx(1 / 2)
    assert one(found[1], "turned_kept_all")["value"] == pytest.approx(1 / 2)
    assert one(found[1], "kept_colour", "random")["value"] == 1


def test_success_is_turned_with_all_else_kept_of_all_images_named_before(found):
    """Of three named images that ran one stayed, one was turned and lost its colour, one was turned and kept it."""
    row = one(found[1], "success")
    assert row["value"] == pytest.approx(1 / 3)
    assert (row["n_pairs"], row["n"]) == (3, 9)
    assert 0 < row["low"] < 1 / 3 < row["high"] < 1
    assert one(found[1], "success", strength=1.0)["value"] == 0  # nothing turned: no success, though every colour is kept
    assert one(found[1], "success", "random")["value"] == 0
    assert one(found[1], "success_over_random")["value"] == pytest.approx(1 / 3)
    assert one(found[1], "kept_all")["value"] == pytest.approx(3 / 4)  # of all images, named before or not
    assert one(found[1], "kept_all", "random")["value"] == 1


def test_success_needs_a_verdict_on_everything_but_where_the_answer_did_not_turn():
    """Two other attributes: one without a verdict leaves a turned answer open, and a lost one settles it."""
    kept = {"open": (True, None), "lost": (False, None), "good": (True, True), "stayed": (None, None)}
    verdicts = []
    for name, others in kept.items():
        who = {"source": "boat", "target": "tree", "sample_id": name}
        which = {"site": "image", "layer": 1, "edit": "add", "direction": "class_mean", "strength": 1.0}
        verdicts.append({**who, "edit": "none", "question": 0, "about": "class", "score": -1.0})
        verdicts.append({**who, **which, "question": 0, "about": "class", "score": -1.0 if name == "stayed" else 1.0})
        for i, value in enumerate(others, 1):
            verdicts.append({**who, **which, "question": i, "about": ("colour", "ground")[i - 1], "kept": value})
    found = effects(table_of([], CELLS), table_of(verdicts, VERDICTS), table_of([], DAMAGE), CONFIG)
    row = one(found, "success", strength=1.0)
    assert (row["value"], row["n"]) == (pytest.approx(1 / 3), 3)


def test_the_best_dose_by_success_is_another_than_by_answers_turned():
    """Strength 2 turns most and keeps least: the summary chooses by success, and says what it is over random."""
    answers = []
    for pair in range(4):
        for i in range(8):
            who = {"source": f"s{pair}", "target": f"t{pair}", "sample_id": f"s{pair}-{i}"}
            answers.append({**who, "edit": "none", "question": 0, "about": "class", "text": f"s{pair}"})
            answers.append({**who, "edit": "none", "question": 1, "about": "colour", "text": "red"})
            runs = (("class_mean", 1.0, 6, 1), ("class_mean", 2.0, 8, 7), ("random", 1.0, 0, 0))
            for direction, strength, turned, lost in runs:
                which = {"site": "image", "layer": 1, "edit": "add", "direction": direction, "strength": strength}
                word, colour = f"t{pair}" if i < turned else f"s{pair}", "blue" if i < lost else "red"
                answers.append({**who, **which, "question": 0, "about": "class", "text": word})
                answers.append({**who, **which, "question": 1, "about": "colour", "text": colour})
    cells = table_of([], CELLS)
    shown = effects(cells, judge_answers(table_of(answers, ANSWERS), cells, CONFIG, by_words), table_of([], DAMAGE), CONFIG)
    assert measure_of(shown.to_pylist(), None)[0] == "success"
    line = next(line for line in _site("image", shown.to_pylist(), "success") if " class_mean " in line)
    assert line.split()[:4] == ["1", "class_mean", "1", "0.62"]  # (6 - 1) / 8 at strength 1, and 1 / 8 at strength 2
    assert one(shown, "turned", strength=2.0)["value"] == 1
    assert one(shown, "success", strength=2.0)["value"] == pytest.approx(1 / 8)
    assert line.count("0.62") == 2  # the random direction has none


def test_controls_stand_beside_the_effect_and_the_difference_is_paired(found):
    assert one(found[1], "p_target", "random")["control"]
    assert not one(found[1], "p_target")["control"]
    over = one(found[1], "p_target_over_random")
    assert over["value"] == pytest.approx(0.8)
    assert over["low"] == pytest.approx(0.8)  # every image differs by the same: the interval knows
    assert one(found[1], "p_target_gain")["value"] == pytest.approx(0.8)
    assert one(found[1], "damage_over_random")["value"] == pytest.approx(-0.4, abs=1e-6)


def test_a_failed_run_is_not_counted_but_said(found):
    assert one(found[1], "answered")["value"] == pytest.approx(4 / 5)
    assert one(found[1], "answered", strength=1.0)["value"] == 1
    assert value_of(found[1], "answered", site="last") == []  # a cell without a direction was never to run
    assert [row["error"] for row in found[0].to_pylist() if row["error"]] == ["RuntimeError: out of memory"] * 6


def test_efficacy_at_equal_damage(found):
    rows = {row["direction"]: row for row in found[2].to_pylist()}
    # 0.1 nats: class mean is there at half its first strength; its p goes 0.1, 0.2. Failed runs leave their pair's others.
    assert rows["class_mean"]["strength"] == pytest.approx(0.5, rel=1e-5)
    assert rows["class_mean"]["efficacy"] == pytest.approx(0.15, rel=1e-5)
    assert rows["random"]["efficacy"] == pytest.approx(0.1, rel=1e-5)
    assert rows["random"]["control"]


def test_a_judge_without_an_answer_costs_the_verdict():
    cells, answers, _ = tables()

    def moody(asked):
        return [Verdict(error="busy") if i % 2 else Verdict(score=0.0) for i in range(len(asked))]

    verdicts = judge_answers(answers, cells, CONFIG, moody).to_pylist()
    assert {row["error"] for row in verdicts} == {None, "busy", "RuntimeError: out of memory"}


def test_the_forced_choice_judges_with_the_probability_of_its_own_cell():
    cells, answers, _ = tables()
    rows = judge_answers(answers, cells, CONFIG, by_choice).to_pylist()
    scores = {(row["direction"], row["strength"]): row["score"] for row in rows if row["about"] == "class" and not row["error"]}
    assert scores == {(None, None): -1, ("class_mean", 1): -1, ("class_mean", 2): 0.75, ("random", 1): -1, ("random", 2): -1}


def test_shuffled_targets_show_no_effect():
    """A control of the measure itself: with other targets, words that answers do hold, only what names those is turned."""
    cells, answers, damage = tables()
    other = {"boat": "house", "key": "house", "tree": "star"}  # house is said of the fifth images, star of the keys

    def moved(table, schema):
        return table_of([{**row, "target": other[row["source"]]} for row in table.to_pylist()], schema)

    def turned(answers):
        verdicts = judge_answers(answers, moved(cells, CELLS), CONFIG, by_parser)
        shown = effects(moved(cells, CELLS), verdicts, damage.slice(0, 0), CONFIG)
        return {(row["direction"], row["strength"]): row["value"] for row in value_of(shown, "turned")}

    shuffled = moved(answers, ANSWERS)
    assert all(value == 0 for value in turned(shuffled).values())
    # One of the nine strong answers about the class is made to name the shuffled target: it alone counts.
    rows, named = shuffled.to_pylist(), ("tree", "tree1", "class_mean", 2.0, "class")
    for row in rows:
        if tuple(row[name] for name in ("source", "sample_id", "direction", "strength", "about")) == named:
            row["text"] = "star ."
    found = turned(table_of(rows, ANSWERS))
    assert found.pop(("class_mean", 2.0)) == pytest.approx(1 / 9)
    assert all(value == 0 for value in found.values())


def test_edits_that_are_no_additions_stand_beside_their_controls():
    cells, answers, damage = tables()
    more: dict[str, list] = {"cells": [], "answers": [], "damage": []}
    for source, target in PAIRS:
        for i in range(5):
            for direction, word, p, nll in ((None, "house", 0.5, 3.0), ("shuffled_tokens", source, 0.1, 1.5)):
                who = {"source": source, "target": target, "sample_id": f"{source}{i}"}
                which = {"site": "image", "layer": 1, "edit": "mean", "direction": direction}
                more["cells"].append({**who, **which, "p_target": p, "logp_source": -1.0, "logp_target": -1.0})
                more["answers"].append({**who, **which, "question": 0, "about": "class", "text": f"{word} ."})
                more["damage"].append({**who, **which, "nll": nll, "n_tokens": 5})
    cells, answers, damage = (
        table_of([*table.to_pylist(), *more[name]], schema)
        for name, table, schema in (("cells", cells, CELLS), ("answers", answers, ANSWERS), ("damage", damage, DAMAGE))
    )
    shown = effects(cells, judge_answers(answers, cells, CONFIG, by_parser), damage, CONFIG)

    def mean(measure, direction=None):
        (row,) = value_of(shown, measure, edit="mean", direction=direction)
        return row

    assert not mean("left")["control"]
    assert mean("left", "shuffled_tokens")["control"]
    assert (mean("left")["value"], mean("left", "shuffled_tokens")["value"]) == (1, 0)
    assert mean("left_over_random")["value"] == 1
    assert mean("damage")["value"] == pytest.approx(2.0)
    assert mean("damage", "shuffled_tokens")["value"] == pytest.approx(0.5)
    assert mean("damage_over_random")["value"] == pytest.approx(1.5)
    # Of three pairs that are all alike Wilson's interval leaves room for others: z^2 / (3 + z^2) = 0.561.
    assert mean("left", "shuffled_tokens")["high"] == pytest.approx(0.5615, abs=1e-3)


def test_classes_of_one_name_are_judged_by_the_name_that_answers_can_hold():
    who = {"source": "crane (134)", "target": "boat", "sample_id": "s"}
    plain = {"edit": "none", "question": 0, "about": "class", "text": "a crane by the water"}
    rows = table_of([{**who, **plain}], ANSWERS)
    cells = table_of([{**who, "edit": "none", "p_target": 0.1, "logp_source": -0.1, "logp_target": -2.0}], CELLS)
    (verdict,) = judge_answers(rows, cells, CONFIG, by_words).to_pylist()
    assert (verdict["source"], verdict["score"]) == ("crane (134)", -1)


def test_a_best_dose_is_reported_from_answers_that_had_no_part_in_the_choice():
    """Fifty-two doses of one truth, .47: chosen by one half of the sources the other half's shares have a mean of .47.

    Chosen and read on the same answers the best of them is far above it.
    """

    def by_target(asked):
        return [Verdict(score=1.0 if answer.text.startswith(answer.target) else -1.0) for answer in asked]

    rng, answers = np.random.default_rng(0), []
    strengths = [float(s) for s in range(1, 53)]
    for p in range(8):
        for i in range(4):
            who = {"source": f"a{p}", "target": f"b{p}", "sample_id": f"a{p}-{i}", "question": 0, "about": "class"}
            answers.append({**who, "edit": "none", "text": f"a{p} ."})
            for strength, turned in zip(strengths, rng.random(52) < 0.47, strict=True):
                which = {"site": "image", "layer": 1, "edit": "add", "direction": "class_mean", "strength": strength}
                answers.append({**who, **which, "text": f"b{p} ." if turned else f"a{p} ."})
    cells, config = table_of([], CELLS), CONFIG.model_copy(update={"dose": Dose(strengths=tuple(strengths))})
    verdicts = judge_answers(table_of(answers, ANSWERS), cells, config, by_target)
    found = effects(cells, verdicts, table_of([], DAMAGE), config)
    rows = value_of(found, "turned", edit="add")
    best, row = max(row["value"] for row in rows), max(rows, key=lambda row: row["half_one"])
    assert best > 0.6
    assert max(row["half_one"] for row in rows) > 0.65
    assert row["half_two_low"] <= 0.47 <= row["half_two_high"]
    assert abs(row["half_two"] - 0.47) < 0.25  # sixteen answers have a standard error of .125
    line = next(line for line in _site("image", found.to_pylist(), "turned") if " class_mean " in line)
    assert f"{row['half_two']:.2f} [{row['half_two_low']:.2f}, {row['half_two_high']:.2f}]" in line
