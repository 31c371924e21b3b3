"""A judge that cannot read, and names that nobody says, are reported before the runs; a table's measure stands above it."""

import itertools

import pytest

from linrep.demo.language import parse_answer
from linrep.errors import RecipeError
from linrep.steer.judges.readable import Names, Readable, names_of, readable
from linrep.steer.judges.readers import by_parser, by_words
from linrep.steer.judges.verdict import Answer
from linrep.steer.summary import measure_of

BEGINNINGS = ("", "It is ", "it's ", "This is ", "There is ", "The answer is ", "I see ")
ARTICLES = ("", "a ", "the ", "A ")
ENDS = ("", ".", " .", "!", ".\n", " . ")


@pytest.mark.parametrize("judge", [by_parser, by_words])
def test_a_name_is_read_however_it_is_written(judge):
    for beginning, article, name, end in itertools.product(BEGINNINGS, ARTICLES, ("boat", "Boat", "BOAT", "tree"), ENDS):
        text = f"{beginning}{article}{name}{end}"
        (verdict,) = judge([Answer(text, text, "boat", "tree", "q")])
        assert (verdict.score, verdict.coherence) == (1.0 if name == "tree" else -1.0, 1.0), text


def test_exact_reading_stays_exact():
    for text in (
        "a red boat on the sand .",
        "A red boat on the sand.",
        "the red boat on the sand",
        "It is a red boat on the sand!",
    ):
        reading = parse_answer(text)
        assert (reading.objects, reading.colours, reading.grounds, reading.well_formed) == (("boat",), ("red",), ("sand",), True)
    for text in (
        "boats .",
        "boating",
        "lifeboat",
        "boat boat .",
        "a red boat",
        "boat tree",
        "",
        ".",
        "on the sand a boat",
        "a an boat",
    ):
        assert not parse_answer(text).well_formed, text
    for text in ("boats", "boating", "lifeboat", "boat2"):
        assert parse_answer(text).objects == ()


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("French horn", "a french-horn.", True), ("T-shirt", "a t shirt", True), ("St. Bernard", "St Bernard dogs", True),
        ("leaf", "two leaves", True), ("knife", "knives", True), ("cherry", "Cherries!", True), ("boat", "the boat's sail", True),
        ("boat", "boating", False), ("key", "monkey", False), ("cat", "category", False), ("horn", "Frenchhorn", False),
        ("猫", "这是一只猫。", True), ("Café", "a cafe\u0301", True), ("+", "1 + 1", False),
    ],
)  # fmt: skip
def test_names_of_many_kinds_are_found_as_words(name, text, found):
    (verdict,) = by_words([Answer(text, text, "zebra", name, "q")])
    assert verdict.score == (1.0 if found else 0.0)


def row(source, sample, score, text="x", **more):
    base = {"source": source, "target": "t", "sample_id": sample, "question": 0, "about": "class", "edit": "none", "error": None}
    return {**base, "score": score, "text": text, **more}


def test_what_a_judge_reads_of_unedited_answers_is_counted_once_an_image():
    rows = [row("boat", "1", -1), row("boat", "1", -1, target="u"), row("boat", "2", 0, "a ship"), row("fish", "3", 0, "a bird")]
    rows += [row("boat", "9", 1, edit="add"), row("boat", "9", -1, about="colour"), row("fish", "4", None, error="no reply")]
    found = readable("words", rows, ["what is it ?"])
    assert (found.n, found.named, found.judged, found.never) == (4, 1, 3, ("fish",))
    found.refuse()
    assert found.lines() == [
        "judge words finds the class in 1 of 4 unedited answers (25%); 1 have no verdict (no reply)",
        "no unedited answer names 1 of the source classes: 'fish'",
    ]


@pytest.mark.parametrize("judge", ["words", "exact", "chat"])
def test_a_judge_that_can_read_nothing_stops_the_job_with_an_example(judge):
    found = readable(judge, [row("boat", str(i), 0, "A ship.") for i in range(3)], ["what is it ?"])
    with pytest.raises(
        RecipeError, match=r"in none of 3 unedited answers: for example, of .boat. to .what is it \?. it says .A ship\."
    ):
        found.refuse()
    readable(judge, [], []).refuse()  # nothing was answered at all: that has its own reason
    readable("forced", [row("boat", "1", 0)], ["q"]).refuse()
    few = readable(judge, [row("boat", str(i), -1 if i == 0 else 0) for i in range(30)], ["q"])
    few.refuse()
    assert any("speak of these 3% alone; for example, of 'boat'" in line for line in few.lines())


def test_a_tables_measure_is_decided_by_the_judge_and_a_change_is_said():
    turned, other = [{"measure": "turned"}, {"measure": "p_target"}], [{"measure": "p_target"}]
    assert measure_of(turned, Readable("words", 4, 2, 4))[0] == "turned"
    assert measure_of(turned, Readable("forced", 4, 2, 4)) == (
        "p_target", "probability of the target in the forced choice, as the judge is forced",
    )  # fmt: skip
    measure, why = measure_of(other, Readable("exact", 4, 0, 4))
    assert measure == "p_target"
    assert why.startswith("CHANGED to the probability of the target")
    assert "none of 4 unedited answers" in why
    assert "no verdicts" in measure_of(other, Readable("human", 4, 0, 0))[1]


def test_names_that_are_no_words_are_refused_by_name():
    found = names_of([("n03000684", "boat"), ("boat", "7"), ("crane (134)", "deadbeef-c0ffee12"), ("nan", "boat")])
    assert found == Names(("n03000684", "7", "deadbeef-c0ffee12", "nan"), 6)
    with pytest.raises(RecipeError, match="4 of 6 class names are no words: 'n03000684', '7'"):
        found.refuse()
    assert "4 of 6 class names are no words" in found.lines[0]
    names_of([("boat", "French horn"), ("漢字", "Boeing 747")]).refuse()
