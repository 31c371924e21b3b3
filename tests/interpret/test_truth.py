"""Planted latents with a known rule are explained right and score 1; other latents' explanations and noise score one half."""

import numpy as np
import pytest

from linrep.interpret.config import Shown
from linrep.interpret.draw import split_examples
from linrep.interpret.fit import Spoken, fit_image, fit_places, fit_text
from linrep.interpret.rule import ImageRule, Rule, TextRule, read_rule
from linrep.interpret.study import explain, overlap_rows, partners, score
from tests.interpret.worlds import CONFIG, draw_world

NOISE = 100
RULED = range(6)


@pytest.fixture(scope="module")
def world():
    world, rng = draw_world(), np.random.default_rng(1)

    n = len(world.scenes)

    def in_image(fits):
        return lambda i, token, share: i < n and token.tile >= 0 and fits(world.scenes[i].main, share) and rng.uniform(0.5, 2)

    def in_text(fits):
        return lambda i, token, share: i >= n and fits(world.texts[i - n], token.position) and rng.uniform(0.5, 2)

    world.plant(0, in_image(lambda it, share: it.object in ("boat", "car", "moon", "fish") and share >= 0.5))
    world.plant(1, in_image(lambda it, share: it.colour in ("red", "blue", "pink") and share >= 0.5))
    world.plant(2, in_image(lambda it, share: it.ground == "snow" and share < 0.05))
    world.plant(3, in_text(lambda words, i: words[i] in ("boat", "tree")))
    world.plant(4, in_text(lambda words, i: words[i] == "it" and "red" in words[:i]))
    world.plant(5, in_text(lambda words, i: words[i] == "on" and i > 0 and words[i - 1] in ("is", "it")))
    for latent in range(NOISE, NOISE + 3):
        hit, where = rng.random(len(world.ids)) < 0.4, rng.random((len(world.ids), 400)) < 0.3
        world.plant(latent, lambda i, token, share, h=hit, w=where: h[i] and w[i, token.position] and rng.uniform(0.1, 1))
    return world


@pytest.fixture(scope="module")
def results(world):
    latents = [*RULED, *range(NOISE, NOISE + 3)]
    firing = world.firing(latents)
    cases = [world.case(latent, firing) for latent in latents]
    backend = world.backend()
    found = explain(cases, backend, {})
    scores, answers = score(cases, found, partners(cases, found, backend, 0), backend, CONFIG)
    return cases, found, scores, answers


def test_the_rules_that_were_planted_are_found(results):
    _, found, _, _ = results
    said = {latent.number: one.text for latent, one in found.items()}
    assert said[0] == "images: object is boat or car or fish or moon; patches on object"
    assert said[1] == "images: colour is blue or pink or red; patches on object"
    assert said[2] == "images: ground is snow; patches on ground"
    assert said[3] == 'texts: words "boat" or "tree"'
    assert said[4] == 'texts: words "it"; after "red"'
    assert said[5] == 'texts: words "on"; right after "is" or "it"'


def test_planted_latents_score_one_and_another_latents_words_score_half(results):
    _, _, scores, _ = results
    ruled = [row for row in scores if row["latent"] in RULED]
    own = [row for row in ruled if row["control"] == "own"]
    assert len(own) == 12
    for row in own:
        assert row["value"] == 1.0, row
        assert 0.5 < row["low"] < 1.0, row
        assert min(row["n_positive"], row["n_negative"]) >= 8, row
    shuffled = [row["value"] for row in ruled if row["control"] == "shuffled"]
    assert len(shuffled) == 12
    assert abs(np.mean(shuffled) - 0.5) < 0.08
    assert max(shuffled) < 0.8


def test_latents_of_noise_score_half_within_their_intervals(results):
    _, _, scores, _ = results
    own = [row for row in scores if row["latent"] >= NOISE and row["control"] == "own"]
    assert len(own) == 12
    assert abs(np.mean([row["value"] for row in own]) - 0.5) < 0.05
    covered = np.mean([row["low"] - 1e-9 <= 0.5 <= row["high"] + 1e-9 for row in own])
    assert covered >= 0.8, covered


def test_nothing_that_was_shown_is_scored_and_marks_are_where_it_fires(results, world):
    cases, _, _, _ = results
    for case in cases:
        shown = {view.sample for view in (*case.evidence.active, *case.evidence.silent)}
        for (modality, task), trials in case.trials.items():
            assert trials, (case.latent, modality, task)
            assert shown.isdisjoint(trial.view.sample for trial in trials)
            for trial in trials:
                number = world.number[trial.view.sample]
                fires = world.fires.get(number, {}).get(case.latent.number, {})
                marks = [token.position in fires for token in trial.view.marks]
                if task == "fuzzing":
                    assert all(marks) if trial.truth else not any(marks)
                    assert marks
                else:
                    assert not marks
                    assert bool(fires) == trial.truth
                assert not trial.view.strengths


def test_both_markings_of_a_sample_have_equally_many_marks(results):
    cases, _, _, _ = results
    for case in cases:
        for (_, task), trials in case.trials.items():
            if task == "fuzzing":
                by_sample = {}
                for trial in trials:
                    by_sample.setdefault(trial.view.sample, []).append(trial)
                for pair in by_sample.values():
                    assert {t.truth for t in pair} == {True, False}
                    assert len({len(t.view.marks) for t in pair}) == 1


def test_positives_come_from_every_quantile_alike(results):
    cases, _, _, _ = results
    trials = cases[1].trials["image", "detection"]
    drawn = [trial.quantile for trial in trials if trial.truth]
    assert [drawn.count(q) for q in range(5)] == [4] * 5
    assert all(trial.quantile is None for trial in trials if not trial.truth)


def test_where_a_latent_fires_rarely_half_of_each_quantile_is_left_to_score():
    rows = [
        {"kind": "quantile", "quantile": q, "rank": i, "sample_id": f"{q}-{i}", "activation": 1.0 + q}
        for q in range(5)
        for i in range(3)
    ]
    examples = split_examples(rows, CONFIG.model_copy(update={"show": Shown(top=2, spread=9, silent=1)}))
    assert sorted(row["sample_id"] for row in examples.shown) == [f"{q}-0" for q in range(5)]
    assert [row["quantile"] for row in examples.scored] == [0, 1, 2, 3, 4] * 2


def test_hard_negatives_are_silent_and_a_neighbour_fires(world):
    firing = world.firing([0, 1, 2])
    case = world.case(0, firing, neighbours=[1, 2])
    negatives = [trial for trial in case.trials["image", "detection"] if not trial.truth]
    hard = [trial for trial in negatives if trial.hard]
    assert len(hard) == len(negatives) // 2 == 10
    for trial in negatives:
        fires = world.fires.get(world.number[trial.view.sample], {})
        assert 0 not in fires
        assert trial.hard == bool({1, 2} & fires.keys())


def test_patches_on_the_object_overlap_it_and_others_do_not(results, world):
    cases, _, _, _ = results
    rows = {(r["latent"], r["control"]): r["value"] for r in overlap_rows(cases, world, world.truth, CONFIG, "truth")}
    assert rows[0, "own"] == 1.0
    assert rows[2, "own"] == 0.0
    assert 0.05 < rows[0, "random"] < 0.5
    assert abs(rows[NOISE, "own"] - rows[NOISE, "random"]) < 0.1


RULES = [
    Rule(ImageRule((("object", ("boat", "car")), ("place", ("top left",))), ("object", "outline"))),
    Rule(ImageRule((), ("ground",)), TextRule(("it", '"', "|", ","), ("or", ";"))),
    Rule(None, TextRule(("texts: words",), (" and ",), True)),
    Rule(ImageRule((("colour", ("red",)),))),
    Rule(ImageRule((("colour", ("red",)),), others=((("object", ("boat",)), ("place", ("top left", "middle"))),))),
    Rule(ImageRule((), ("object",), places=(("part", ("crop",)), ("height", ("top", "middle"))))),
    Rule(ImageRule((), places=(("side", ("left",)),)), TextRule((), ("is",), True)),
    Rule(None, TextRule(("it",), ("a", ", or "), others=(TextRule(("on", '"; or')), TextRule((), ("it",), True)))),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_reads_back_as_it_was_said(rule):
    assert read_rule(str(rule)) == rule


@pytest.mark.parametrize("said", ["boats", "images: red", "texts: words it", "images: colour is red; patches on sky", ""])
def test_what_is_no_rule_is_refused(said):
    with pytest.raises(ValueError, match=r"is no rule|no zone"):
        read_rule(said)


def test_what_a_person_wrote_is_refused_where_the_truth_cannot_tell_it(world):
    backend = world.backend()
    assert "is no rule such as" in backend.refuse("red boats")
    assert backend.refuse("images: taste is sweet") == "no attribute 'taste': there are object, colour, ground"
    assert backend.refuse('images: colour is red | texts: words "a"') is None


def test_words_after_and_right_after():
    words = ("it", "red", "a", "it", "red", "it")
    assert TextRule(("it",)).fires(words) == [True, False, False, True, False, True]
    assert TextRule(("it",), ("red",)).fires(words) == [False, False, False, True, False, True]
    assert TextRule(("it",), ("red",), True).fires(words) == [False] * 5 + [True]


def test_fits_prefer_the_shorter_rule_of_two_that_agree():
    same = [{"object": "boat", "colour": "red"}] * 10
    other = [{"object": "car", "colour": "blue"}] * 10
    assert fit_image(same, other, ("object", "colour"), 4) == ImageRule((("object", ("boat",)),))
    assert fit_image(same, same, ("object", "colour"), 4) == ImageRule()
    on, beside, near = {"zone": "object"}, {"zone": "ground"}, {"zone": "outline"}
    assert fit_places([([on, on], [beside, near])], ("zone",), 4) == (("zone", ("object",)),)
    assert fit_places([([on, beside], [on, beside])], ("zone",), 4) == ()
    spoken = [Spoken(("a", "boat"), (False, True))] * 4
    assert fit_text(spoken, [Spoken(("a", "car"), (False, False))] * 4, 3) == TextRule(("boat",))
    assert fit_text([Spoken(("a",), (False,))], [], 3) is None


def test_the_partner_says_something_else_of_the_modality(results, world):
    cases, found, _, _ = results
    twins = [case for case in cases if case.latent.number in (0, 1)]
    same = {case.latent: found[cases[0].latent] for case in twins}
    assert partners(twins, same, world.backend(), 0) == {}
    both = partners(cases, found, world.backend(), 0)
    assert all(one.sae == other.sae and one != other for (one, _), other in both.items())
    for (one, modality), other in both.items():
        assert read_rule(found[one].text).part(modality) != read_rule(found[other].text).part(modality)
