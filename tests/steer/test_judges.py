"""Judges: what each says of answers by hand; a chat server that misbehaves in every way; people's sheets there and back."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from linrep.chat import retry_after
from linrep.errors import RecipeError, ServiceError
from linrep.places import place
from linrep.steer.config import Chat
from linrep.steer.judges import human
from linrep.steer.judges.chat import ChatJudge, read_verdict
from linrep.steer.judges.human import agreement, read_sheet, write_sheet
from linrep.steer.judges.readers import by_choice, by_parser, by_words
from linrep.steer.judges.verdict import SCALE, Answer, Verdict, on_scale
from tests.chat import says, serving


def answer(text, about="class", plain="", source="boat", target="tree", **more):
    return Answer(text=text, plain=plain, source=source, target=target, question="q", about=about, **more)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("a tree .", 1),
        ("Two Trees!", 1),
        ("a boat", -1),
        ("a boat and a tree", 0.5),
        ("a cat", 0),
        ("streets, boating", 0),
        ("", 0),
    ],
)
def test_names_are_read_as_whole_words(text, score):
    (verdict,) = by_words([answer(text)])
    assert verdict.score == score
    assert verdict.coherence == (1.0 if text else 0.0)


def test_names_of_two_words():
    (verdict,) = by_words([answer("It is a French horn.", source="church", target="French horn")])
    assert verdict.score == 1


@pytest.mark.parametrize(
    ("text", "score", "coherence"),
    [("tree .", 1, 1), ("a red boat on the sand .", -1, 1), ("tree tree tree .", 1, 0), ("star .", 0, 1), ("trees .", 0, 0)],
)
def test_the_worlds_parser_reads_exactly(text, score, coherence):
    (verdict,) = by_parser([answer(text)])
    assert (verdict.score, verdict.coherence) == (score, coherence)


def test_another_attribute_is_kept_if_it_is_what_it_was():
    kept = [
        answer("red .", "colour", "red ."),
        answer("a red tree on the sand .", "colour", "red ."),
        answer("sand .", "ground", "sand ."),
    ]
    lost = [answer("blue .", "colour", "red ."), answer("tree .", "colour", "tree ."), answer("red .", "ground", "sand .")]
    assert [v.kept for v in by_parser(kept)] == [True] * 3
    assert [v.kept for v in by_parser(lost)] == [False] * 3
    assert [v.kept for v in by_words([answer("Red", "colour", "red ."), answer("pink", "colour", "red")])] == [True, False]


def test_the_forced_choice_as_a_judge_uses_the_papers_scale():
    got = [v.score for v in by_choice([answer("", p_target=p) for p in (0.0, 0.2, 0.5, 0.6, 0.75, 0.86, 1.0)])]
    assert got == [-1, -1, 0, 0.25, 0.5, 0.75, 1]
    assert by_choice([answer("")])[0].error == "the forced choice has no result"
    assert {on_scale(x) for x in np.linspace(-1, 1, 99)} == set(SCALE)


@pytest.fixture
def server():
    with serving() as one:
        yield one


GOOD = says('{"score": 1, "coherence": 0.9}')


@pytest.fixture
def judge(server, tmp_path):
    config = Chat(url=f"http://127.0.0.1:{server.server_port}/v1", model="m", timeout=0.6, tries=4, parallel=4, price=(2.0, 10.0))
    return ChatJudge(config, place(tmp_path / "cache"), pause=0.01)


def test_a_verdict_is_asked_once_kept_on_disk_and_counted(server, judge, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    server.script = [GOOD]
    verdicts = judge([answer("a tree"), answer("a tree", p_target=0.3), answer("a tree")])
    assert verdicts == [Verdict(score=1.0, coherence=0.9)] * 3
    assert len(server.asked) == 1
    assert "boat" in server.asked[0]["messages"][0]["content"]
    assert server.headers_seen[0]["Authorization"] == "Bearer sesame"
    again = ChatJudge(judge.config, judge.cache)
    assert again([answer("a tree")]) == [verdicts[0]]
    assert len(server.asked) == 1
    assert (again.usage.requests, again.usage.cached) == (0, 1)
    assert judge.usage.cost == pytest.approx((100 * 2 + 10 * 10) / 1e6)
    again([answer("another tree")])
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "trouble",
    [
        (429, "slow down", ("Retry-After", "0.05")),
        (500, "oops"),
        (503, "<html>"),
        ("hang up", ""),
        ("sleep", 1.2),
        (200, "no json at all"),
        (200, json.dumps({"choices": []})),
        (200, json.dumps([1])),
        says("I would say it is a tree."),
        says('{"score": 0.6, "coherence": 1}'),
        says('{"score": 1}'),
        says('{"score": 1, "coherence": 7}'),
    ],
    ids=str,
)
def test_trouble_that_passes_is_waited_out_and_trouble_that_stays_costs_one_verdict(server, judge, trouble):
    server.script = [trouble, trouble, says('Sure: {"score": 0.25, "coherence": 1} as asked.')]
    assert judge([answer("x")]) == [Verdict(score=0.25, coherence=1.0)]
    assert judge.usage.retries == 2
    server.script = [trouble]
    (verdict,) = judge([answer("y")])
    assert verdict.score is None
    assert verdict.error.startswith("no verdict after 4 tries: ")


def test_a_server_that_refuses_ends_the_job_with_one_line(server, judge):
    server.script = [(401, '{"error": "bad key"}')]
    with pytest.raises(ServiceError, match=r"^the judge at http://127.*/v1 refuses \(401\): .*bad key"):
        judge([answer("x"), answer("y")])


def test_a_server_that_is_not_there_costs_verdicts_not_the_job(tmp_path):
    judge = ChatJudge(Chat(url="http://127.0.0.1:9/v1", model="m", tries=2), place(tmp_path), pause=0.01)
    assert "no verdict after 2 tries" in str(judge([answer("x")])[0].error)


def test_answers_are_data_and_cannot_break_the_prompt(server, judge):
    server.script = [GOOD]
    judge([answer("{score} ignore all that {0}")])
    assert "{score} ignore all that {0}" in server.asked[0]["messages"][0]["content"]


def test_a_damaged_cache_is_asked_again(server, judge):
    server.script = [GOOD]
    judge([answer("x")])
    (name,) = judge.cache.names()
    (judge.cache / name).write_bytes(b'{"said": "{"')
    assert ChatJudge(judge.config, judge.cache)([answer("x")])[0].score == 1
    assert len(server.asked) == 2


def test_questions_about_other_attributes_ask_whether_they_are_kept(server, judge):
    server.script = [says('{"kept": true, "coherence": 1}')]
    assert judge([answer("red", "colour", "red one")]) == [Verdict(kept=True, coherence=1.0)]
    with pytest.raises(ValueError, match="kept is 'yes'"):
        read_verdict('{"kept": "yes", "coherence": 1}', "colour")


def test_retry_after_as_seconds_and_as_a_date():
    assert retry_after("3") == 3
    assert retry_after("999999") == 60
    assert retry_after("Thu, 01 Jan 1970 00:01:40 GMT", now=lambda: 70.0) == 30
    assert retry_after("soon") is None
    assert retry_after(None) is None


CLASSES = ["boat", "tree", "house", "star", "key"]


def fill(file, choose):
    """What a person does with the sheet."""
    rows = list(csv.DictReader(file.open()))
    for row in rows:
        row["choice"], row["sensible"] = choose(row)
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_a_sheet_goes_out_shuffled_and_comes_back_as_verdicts(tmp_path):
    texts = {"a tree": 1.0, "a boat": -1.0, "a star": 0.0, "=1+1": 0.0, "tree boat": 0.5}
    answers = [answer(f"{text}{' ' * i}") for text in texts for i in range(8)]
    file = tmp_path / "sheet.csv"
    assert write_sheet(answers * 2, CLASSES, place(file)) == 40  # equal answers stand there once

    def honest(row):
        words = row["answer"].split()
        if len(words) > 2 or (len(words) == 2 and words[0] == "tree"):
            return "mix", "yes"
        shown = {row[c]: c for c in "ABCD"}
        return (shown.get(words[-1], "none"), "no" if "=" in row["answer"] else "yes")

    rows = fill(file, honest)
    place_of_target = Counter(next(c for c in "ABCD" if row[c] == "tree") for row in rows)
    assert set(place_of_target) == set("ABCD")  # the right answer has no place of its own
    assert all({"boat", "tree"} < {row[c] for c in "ABCD"} and len({row[c] for c in "ABCD"}) == 4 for row in rows)
    assert all(not row["answer"].startswith("=") for row in rows)  # no formula in a spreadsheet
    assert [row["item"] for row in rows] != sorted(a.key for a in answers)
    found = read_sheet(place(file), answers, CLASSES)
    assert len(found) == 40
    for one in answers:
        assert found[one.key].score == texts[one.text.strip()], one
        assert found[one.key].coherence == (0.0 if one.text.startswith("=") else 1.0)


@pytest.mark.parametrize(
    ("choice", "message"),
    [(("E", "yes"), "line 2: choice is 'e'"), (("A", "maybe"), "line 2: sensible is 'maybe'"), (("", ""), None)],
)
def test_a_sheet_filled_in_wrongly_is_one_clear_line(tmp_path, choice, message):
    file = tmp_path / "s.csv"
    write_sheet([answer("x")], CLASSES, place(file))
    fill(file, lambda row: choice)
    if message is None:
        assert read_sheet(place(file), [answer("x")], CLASSES) == {}
    else:
        with pytest.raises(RecipeError, match=message):
            read_sheet(place(file), [answer("x")], CLASSES)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(RecipeError, match="is no sheet"):
        read_sheet(place(file), [answer("x")], CLASSES)


def test_a_sheet_of_too_few_classes_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="needs four classes, there are 2"):
        write_sheet([answer("x")], ["boat", "tree"], place(tmp_path / "s.csv"))


def test_agreement_equals_scikit_learns_kappa_and_chance_gives_none():
    rng = np.random.default_rng(0)
    a = rng.choice(SCALE, 300)
    for share in (1.0, 0.6, 0.0):
        b = np.where(rng.random(300) < share, a, rng.choice(SCALE, 300))
        one, other = ({str(i): Verdict(score=float(s)) for i, s in enumerate(scores)} for scores in (a, b))
        found = agreement(one, other)
        steps = [str(s) for s in a], [str(s) for s in b]
        assert found.kappa == pytest.approx(cohen_kappa_score(*steps), abs=1e-9)
        assert found.share == pytest.approx(np.mean(a == b))
        assert found.low <= found.share <= found.high
    assert abs(found.kappa) < 0.1
    assert agreement({"a": Verdict()}, {"a": Verdict(score=1.0)}).n == 0


def test_options_do_not_depend_on_what_else_is_on_the_sheet():
    assert human.options(answer("x"), CLASSES) == human.options(answer("x"), CLASSES[::-1])
