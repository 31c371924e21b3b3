"""A reply is read by its last complete verdict after any thinking: property tests over generated replies, decoys among them."""

import contextlib
import json
import random
import time

import pytest

from linrep.interpret.prompts import read_explanation, read_judgement
from linrep.reply import after_thinking, last_object
from linrep.steer.judges.chat import read_verdict
from linrep.steer.judges.verdict import SCALE, Verdict

TAGS = [
    ("<think>", "</think>"),
    ("<THINK>\n", "\n</THINK>"),
    ("<thinking lang='en'>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<rationale>", "</rationale>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]
PROSE = [
    "",
    "Sure: ",
    "Here is my verdict, as asked.\n",
    "The set {boat, tree} isn't it. ",
    'The format is {"score": S, "coherence": C}. ',
    'I don\'t think "{" matters. ',
    "**Answer**: ",
    "a < b and c > d; [1] says so. ",
    "{",
    '{"note": "no verdict"} ',
]


def written(rng, score, coherence):
    """A verdict in one of the notations that models use."""
    value = {"score": score, "coherence": coherence}
    plain = json.dumps(value)
    form = rng.randrange(11)
    return [
        plain,
        json.dumps(value, indent=2),
        f"```json\n{plain}\n```",
        plain.replace('"', "'"),
        plain.replace("}", ",}"),
        plain.replace('"', "”"),
        json.dumps({**value, "why": 'it is not {"score": -1, "coherence": 0}, nor }{'}),
        json.dumps({"verdict": value}),
        json.dumps([value]),
        "{score: %s, coherence: %s}" % (score, coherence),  # noqa: UP031
        json.dumps({"why": "don't", **value}).replace('"score"', "\n'score'"),
    ][form]


@pytest.mark.parametrize("seed", range(300))
def test_the_last_complete_verdict_after_any_thinking_counts(seed):
    rng = random.Random(seed)

    def draw():
        return rng.choice(SCALE), rng.choice((0, 0.25, 0.5, 1))

    def thoughts():
        before, after = rng.choice(TAGS)
        return f"{before}{rng.choice(PROSE)}{written(rng, *draw())}{rng.choice(PROSE)}{after}"

    right = draw()
    parts = [rng.choice([thoughts, lambda: written(rng, *draw()), lambda: rng.choice(PROSE)])() for _ in range(rng.randrange(4))]
    if rng.random() < 0.2:  # the beginning of the thoughts is in the prompt's template
        parts = [written(rng, *draw()), "</think>", *parts]
    parts += [rng.choice(PROSE[:8]), written(rng, *right), "\n", rng.choice(PROSE)]
    if rng.random() < 0.2:
        parts.append(thoughts())
    if rng.random() < 0.2:
        before, _ = rng.choice(TAGS)
        parts.append(f"{before}{written(rng, *draw())}")  # thoughts that are cut off
    if rng.random() < 0.2:
        parts.append('{"score": -1, "coher')  # a verdict that is cut off
    said = "".join(parts)
    assert read_verdict(said, "class") == Verdict(score=float(right[0]), coherence=float(right[1])), said


@pytest.mark.parametrize(("before", "after"), TAGS)
def test_a_verdict_in_thoughts_alone_is_none(before, after):
    draft = '{"score": 1, "coherence": 1}'
    for said in (f"{before}{draft}{after}", f"{before} so {draft}", f"{before}{draft}{after} I cannot tell."):
        with pytest.raises(ValueError, match="no JSON with score and coherence"):
            read_verdict(said, "class")
    assert read_verdict(f"{draft}{before} or {draft.replace('1,', '-1,')}", "class").score == 1
    assert after_thinking(f"{before}yes{after} no").strip() == "no"


def test_a_last_verdict_that_is_wrong_is_not_replaced_by_an_earlier_one():
    with pytest.raises(ValueError, match="not one of"):
        read_verdict('{"score": 1, "coherence": 1} no: {"score": 0.6, "coherence": 1}', "class")
    for bad in ("true", "null", "NaN", '"high"', "[1]", "1e999", "9" * 400):
        with pytest.raises(ValueError, match=r"score|JSON"):
            read_verdict(f'{{"score": {bad}, "coherence": 1}}', "class")
    assert read_verdict('{"score": "0.5", "coherence": 1.0}', "class").score == 0.5
    assert read_verdict("{'kept': True, 'coherence': 1}", "colour").kept is True


def test_explanations_and_lists_are_read_by_their_end_too():
    assert read_explanation('<think>{"explanation": "cats"}</think>{"explanation": "dogs {or} \\"cats\\""}') == 'dogs {or} "cats"'
    assert read_explanation('{"explanation": "the tag <think> in a text"}') == "the tag <think> in a text"
    assert read_explanation("{'explanation': 'a person\\'s hat', 'sure': true}") == "a person's hat"
    assert read_judgement("<think>[1, 1, 1]</think> [0, 1, true]", 3) == [False, True, True]
    assert read_judgement("[1, 1, 0] no, rather ```json\n[0, 1, 0]\n```; see [2]", 3) == [False, True, False]
    assert read_judgement('{"answers": [1, 0]}', 2) == [True, False]
    assert read_judgement("<think>yes yes [1]</think>\nNo.", 1) == [False]
    for said in ("[0, 1]", "[[0, 1, 1, 0]]", "[0, 2, 1]", "<think>[0, 1, 1]", ""):
        with pytest.raises(ValueError, match="no list of 3 answers"):
            read_judgement(said, 3)


def test_any_text_at_all_is_read_or_refused_soon():
    rng = random.Random(0)
    some = [
        '{"score": ',
        "1",
        "}",
        "{",
        "[",
        "]",
        "<think>",
        "</think>",
        '"',
        "'",
        "\\",
        ", ",
        ":",
        "\n",
        "x",
        "“",
        "\ud800",
        "1e9",
    ]
    texts = ["".join(rng.choices(some, k=rng.randrange(40))) for _ in range(800)]
    texts += [c * 100_000 for c in ("{", "[", '{"a":', "'{", "<", "<think>", "{'", "[[{", '"', "{}")]
    start = time.process_time()
    for said in texts:
        with contextlib.suppress(ValueError):
            read_verdict(said, "class")
    assert time.process_time() - start < 20
    with pytest.raises(ValueError, match="ends while it thinks"):
        last_object("<think>hm", ("score",))
