"""The search without a cluster: the front, halving, packs and proposals obey their laws."""

import math
import random
from itertools import islice, product

import numpy as np
import pytest
import torch

from linrep.errors import RecipeError
from linrep.places import place
from linrep.sae.artefact import plan_saes
from linrep.sae.controls import random_sae
from linrep.sae.front import Point, front, recommend
from linrep.sae.halving import Board, Verdict, rungs
from linrep.sae.layer import train_layer
from linrep.sae.pack import Trial, choice, half, measured, packs_of, score
from linrep.sae.propose import proposer
from linrep.sae.rounds import search_plainly
from linrep.sae.search import Halving, TuneConfig, Whole
from linrep.sae.study import SaeConfig
from linrep.sae.trials import read_trials
from linrep.sae.tuning import TunePlan, check_space, plan_tune
from linrep.store.read import Store
from tests.store.planted_store import write_store

D = 16
SAE = SaeConfig.model_validate(
    {"design": {"aux": {"dead_after": 500}, "expansion": 2}, "rows": 3200, "batch": 64, "data": {"shuffle_rows": 512}}
)


BEST_FIRST = {"learning_rate": [2e-2, 1e-5]}
"""Those that go on come first, so in small packs they have to wait for the others."""


def tune(**changes: object) -> TuneConfig:
    space = {
        "layers": [1],
        "architectures": [{"kind": "topk", "k": [2, 4]}],
        "expansion": [2, 4],
        "learning_rate": [1e-5, 2e-2],
        **changes.pop("space", {}),  # type: ignore[dict-item]
    }
    stop = {"kind": "halving", "first": 0.25, "factor": 4}
    return TuneConfig.model_validate({"space": space, "stop": stop, "rows": 3200, "held_out": 200, "pack": 8, **changes})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Rows that are sums of few directions, two in three of them for training."""
    draw = np.random.default_rng(0)
    directions = draw.standard_normal((24, D))

    def rows(n: int) -> np.ndarray:
        codes = draw.exponential(size=(n, 24)) * (draw.random((n, 24)) < 0.12)
        return (codes @ directions + 0.05 * draw.standard_normal((n, D)) + 0.5).astype(np.float32)

    chunks = {(1, m): [rows(600) for _ in range(4)] for m in ("image", "text")}
    return write_store(tmp_path_factory.mktemp("store"), chunks, splits=("train", "train", "val"))


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory) -> tuple[TunePlan, dict[str, Trial]]:
    """The space of `tune`, everyone in one pack and trained to the end."""
    plan = plan_tune(store, "t", tune(stop={"kind": "none"}), SAE, place(tmp_path_factory.mktemp("whole")))
    return plan, plainly(plan)


def slow_front(points: list[Point]) -> set[str]:
    """Every pair of points compared: a point stays if no other is as good in both and better in one."""
    return {
        p.name
        for p in points
        if math.isfinite(p.l0 + p.fvu)
        and not any(
            q.l0 <= p.l0 and q.fvu <= p.fvu and (q.l0 < p.l0 or q.fvu < p.fvu) for q in points if math.isfinite(q.l0 + q.fvu)
        )
    }


@pytest.mark.parametrize("seed", range(30))
def test_no_point_of_the_front_is_dominated_and_none_is_left_out(seed):
    draw = random.Random(seed)
    levels = [1.0, 2.0, 3.0, 4.0, math.nan] if seed % 2 else [draw.random() for _ in range(40)]  # ties, and none
    points = [Point(str(i), draw.choice(levels), draw.choice(levels)) for i in range(25)]
    found = front(points)
    assert {p.name for p in found} == slow_front(points)
    assert [p.l0 for p in found] == sorted(p.l0 for p in found)


def test_the_knee_is_recommended_and_its_neighbours_are_its_reason():
    line = [Point("a", 8, 0.5), Point("b", 16, 0.2), Point("c", 32, 0.18), Point("d", 64, 0.17), Point("worse", 32, 0.4)]
    found = recommend(line)
    assert found is not None
    assert found.name == "b"
    assert "+0.300 FVU at L0 8.0" in found.reason
    assert "-0.020 at L0 32.0" in found.reason
    straight = recommend([Point("a", 8, 0.3), Point("b", 16, 0.2), Point("c", 32, 0.1)])
    assert straight is not None
    assert (straight.name, "without a knee" in straight.reason) == ("c", True)
    assert recommend([Point("a", 8, math.nan)]) is None


def test_a_rung_keeps_one_in_factor_of_its_own_bracket():
    board = Board(4, {"x": "abcd", "y": "e"})
    assert board.judge("x", 10, {"a": 0.4, "b": 0.1, "c": 0.3, "d": 0.2}).goes_on == {"b"}
    assert board.judge("y", 10, {"e": 0.9}).goes_on == {"e"}  # alone in its bracket, however bad
    assert board.judge("x", 20, {"b": 0.5}).goes_on == {"b"}  # the others stopped, so none is waited for
    # Those of a later round are compared with those before.
    later = Board(4, {"x": "fgh"}, [("x", 10, {"a": 0.4, "b": 0.1, "c": 0.3, "d": 0.2})])
    assert later.judge("x", 10, {"f": 0.15, "g": 0.35, "h": math.nan}) == Verdict(frozenset("f"), frozenset())


def test_nobody_is_judged_before_the_bracket_is_complete():
    board = Board(2, {"x": "abcd"})
    assert board.judge("x", 10, {"a": 0.1}) == Verdict(frozenset(), frozenset("a"))
    assert board.judge("x", 10, {"b": 0.2, "c": 0.3}).waits == {"b", "c"}
    board.leave("d")  # it has failed, and will not come
    assert board.judge("x", 10, {"a": 0.1}).goes_on == {"a"}
    assert board.judge("x", 10, {"b": 0.2}) == Verdict(frozenset("b"), frozenset())  # two of three
    assert board.judge("x", 10, {"c": 0.3}) == Verdict(frozenset(), frozenset())
    assert board.judge("x", 20, {"a": 0.1}).waits == {"a"}  # b comes too, c does not
    assert board.judge("x", 20, {"b": 0.05}).goes_on == {"b"}


@pytest.mark.parametrize("seed", range(20))
def test_the_order_in_which_candidates_arrive_decides_nothing(seed):
    draw = random.Random(seed)
    values = {name: draw.choice([0.1, 0.2, 0.3, math.nan]) for name in "abcdefg"}
    at_once = Board(3, {"x": values}).judge("x", 5, values).goes_on
    board, order, went = Board(3, {"x": values}), draw.sample("abcdefg", 7), set()
    for name in order:
        went |= board.judge("x", 5, {name: values[name]}).goes_on
    for name in order[:-1]:  # those that waited are asked for again
        went |= board.judge("x", 5, {name: values[name]}).goes_on
    assert went == at_once
    assert len(went) == 3


def test_rungs_rise_to_below_the_end():
    assert rungs(Halving(first=0.125, factor=2), 800) == (100, 200, 400)
    assert rungs(Halving(first=0.3, factor=4), 10) == (3,)
    assert rungs(Halving(first=0.01, factor=10), 20) == (1, 2)
    assert rungs(Whole(), 800) == ()


def test_packs_hold_one_mixture_each_and_whole_brackets(store):
    config = tune(space={"text_share": [0.25, 0.5]})
    every = proposer(config, SAE, [1]).round(0, {})
    assert len(every) == 2 * 2 * 2 * 2
    found = packs_of(every, 5, "sparsity")
    assert sorted(c.name for pack in found for c in pack) == sorted(c.name for c in every)
    assert all(len({(c.layer, c.text_share) for c in pack}) == 1 for pack in found)
    assert [len(pack) for pack in found] == [4, 4, 4, 4]
    assert all(len({c.bracket("sparsity") for c in pack}) == 1 for pack in found)
    # A bracket that is too large for a pack is cut, and its rest is not filled up with a part of the next.
    assert [len(pack) for pack in packs_of(every, 3, "sparsity")] == [3, 1, 3, 1] * 2


def plainly(plan: TunePlan) -> dict[str, Trial]:
    return {trial.name: trial for trial in search_plainly(plan)}


def weights_of(plan: TunePlan, name: str) -> bytes:
    return (plan.place / "saes" / name / "sae_weights.safetensors").read_bytes()


@pytest.mark.parametrize("pack", [8, 3])
def test_a_candidate_ends_with_the_weights_of_an_sae_that_is_trained_in_full(pack, store, tmp_path):
    """The search trains by the same steps as the large job, whoever shares the pack, leaves it, or has to be waited for."""
    plan = plan_tune(store, "t", tune(pack=pack, space=BEST_FIRST), SAE, place(tmp_path))
    found = plainly(plan)
    finished = [name for name, trial in found.items() if trial.status == "finished"]
    assert len(finished) == 2
    for name in finished:
        one = next(c for c in plan.proposer.round(0, {}) if c.name == name)
        whole = plan_saes(store, "t", one.config(SAE, 3200), place(tmp_path / name))
        for _ in train_layer(whole.jobs[0]):
            pass
        (trained,) = (tmp_path / name).rglob("sae_weights.safetensors")
        assert weights_of(plan, name) == trained.read_bytes()
    assert read_trials(plan.place) == found
    assert not (plan.place / "waiting").is_folder()


@pytest.mark.slow
def test_a_search_ends_the_same_however_its_brackets_are_spread_over_packs(store, tmp_path):
    """Brackets of four, in packs of one to eight; and cut off after every few commits."""

    def outcomes(found: dict[str, Trial]) -> dict[str, tuple]:
        return {name: (t.status, t.rows, t.reason, t.scores, t.reports, t.control) for name, t in found.items()}

    want = outcomes(plainly(plan_tune(store, "t", tune(pack=8, space=BEST_FIRST), SAE, place(tmp_path / "8"))))
    assert {status for status, *_ in want.values()} == {"finished", "stopped"}
    for pack in (1, 3):
        assert (
            outcomes(plainly(plan_tune(store, "t", tune(pack=pack, space=BEST_FIRST), SAE, place(tmp_path / str(pack))))) == want
        )
    plan = plan_tune(store, "t", tune(pack=3, space=BEST_FIRST), SAE, place(tmp_path / "cut"))
    found: dict[str, Trial] = {}
    while len(found) < len(want):
        under_way = search_plainly(plan)
        found |= {trial.name: trial for trial in islice(under_way, 3)}
        under_way.close()
    assert outcomes(found) == outcomes(read_trials(plan.place)) == want


def test_halving_spends_under_half_of_the_rows_and_finds_nearly_the_best(store, whole, tmp_path):
    stopped, every = plainly(plan_tune(store, "t", tune(), SAE, place(tmp_path))), whole[1]
    assert stopped.keys() == every.keys()
    spent, full = (sum(trial.rows for trial in found.values()) for found in (stopped, every))
    assert full == len(every) * 3200
    assert spent < 0.5 * full
    for k in (2, 4):
        mine, best = (
            min(t.last["fvu"] for t in found.values() if t.values["sparsity"] == k and t.status == "finished")
            for found in (stopped, every)
        )
        assert mine <= 1.05 * best
        control = [t.control["fvu"] for t in every.values() if t.control and t.values["sparsity"] == k]
        assert best < 0.9 * min(control)


def test_one_that_diverges_fails_with_its_reason_and_the_others_go_on(store, tmp_path):
    config = tune(space={"learning_rate": [1e-3, 1e30]}, stop={"kind": "none"})
    found = plainly(plan_tune(store, "t", config, SAE, place(tmp_path)))
    states = {(t.values["learning_rate"], t.status) for t in found.values()}
    assert states == {(1e-3, "finished"), (1e30, "failed")}
    failed = next(t for t in found.values() if t.status == "failed")
    assert failed.reason.startswith("diverged: the loss of topk is nan")
    assert 0 < failed.rows < 3200


def test_candidates_are_compared_on_other_rows_than_are_reported(whole):
    x = torch.cat([torch.randn(80, D), 3 + 2 * torch.randn(80, D).abs()])
    sae = random_sae(x, 2 * D, 4, 0)
    one, other = ({"image": half(x, i)} for i in range(2))
    found = measured({"": sae}, one, other)
    assert found["fvu_choice_image"] == found["fvu_choice"] == score({"": sae}, one)["fvu_image"]
    assert found["fvu_image"] == score({"": sae}, other)["fvu_image"]
    assert choice(found, "_image") != found["fvu_image"]
    assert all(trial.last["fvu_choice"] != trial.last["fvu"] for trial in whole[1].values())


def test_an_interval_holds_its_value_and_the_mean_is_of_the_modalities(whole):
    (last, *_) = [trial.last for trial in whole[1].values()]
    for m in ("image", "text"):
        assert last[f"fvu_{m}_low"] < last[f"fvu_{m}"] < last[f"fvu_{m}_high"]
    assert last["fvu"] == pytest.approx((last["fvu_image"] + last["fvu_text"]) / 2)
    assert last["l0_image"] <= 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"architectures": [{"kind": "topk", "k": [2, 40]}]}}, r"k 40 of topk is above .* 32 latents"),
        ({"space": {"architectures": [{"kind": "topk", "k": [2.5]}]}}, r"topk has sparsity 2.5"),
        ({"space": {"architectures": [{"kind": "jumprelu", "target_l0": [99]}]}}, r"target_l0 99 of jumprelu"),
        ({"space": {"expansion": [0, 2]}}, r"expansion 0"),
        ({"space": {"layers": [1, 7]}}, r"tune\.space\.layers: no layer 7 in .*: it has 1"),
        ({"space": {"learning_rate": {"kind": "range", "low": 1e-4, "high": 1e-2}}}, r"learning_rate is a range, and a grid"),
        ({"space": {"text_share": [1.5]}}, r"text_share must lie between 0 and 1, got 1\.5"),
        ({"rows": 10}, r"tune\.rows \(10\) is less than one batch"),
    ],
)
def test_an_impossible_space_is_one_clear_line(store, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message) as error:
        plan_tune(store, "t", tune(**changes), SAE, place(tmp_path))
    assert "\n" not in str(error.value)


def test_optuna_that_is_not_installed_is_one_clear_line(monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("linrep.sae.propose.import_module", missing)
    with pytest.raises(RecipeError, match=r"needs the package optuna: \S+ -m pip install 'optuna>=4.0'"):
        proposer(tune(search={"kind": "optuna"}), SAE, [1])


RANGES = {
    "architectures": [
        {"kind": "topk", "k": {"kind": "range", "low": 2, "high": 16}},
        {"kind": "relu", "l1": {"kind": "range", "low": 0.1, "high": 10}},
    ],
    "learning_rate": {"kind": "range", "low": 1e-4, "high": 1e-2},
    "text_share": [0.25, 0.5],
}


def test_random_draws_stay_in_the_space_and_depend_on_the_seed_alone():
    config = tune(space=RANGES, search={"kind": "random", "trials": 40, "seed": 3})
    check_space(config, SAE, D)
    found = proposer(config, SAE, [1]).round(0, {})
    assert len({c.name for c in found}) == 40
    assert {c.values()["architecture"] for c in found} == {"topk", "relu"}
    for c in found:
        low, high = (2, 16) if c.values()["architecture"] == "topk" else (0.1, 10)
        assert low <= c.sparsity <= high
        assert 1e-4 <= c.design.adam.learning_rate <= 1e-2
    assert found == proposer(config, SAE, [1]).round(0, {})
    other = tune(space=RANGES, search={"kind": "random", "trials": 40, "seed": 4})
    assert found != proposer(other, SAE, [1]).round(0, {})


def test_a_small_space_gives_fewer_draws_than_asked():
    config = tune(search={"kind": "random", "trials": 50})
    assert len(proposer(config, SAE, [1]).round(0, {})) == 8


def test_optuna_goes_where_loss_is_low_and_a_new_driver_is_proposed_the_same():
    pytest.importorskip("optuna")
    config = tune(space=RANGES, search={"kind": "optuna", "trials": 48, "per_round": 8})

    def outcome(c) -> list[float]:
        return [abs(math.log10(c.design.adam.learning_rate) + 3), 1.0]

    asked, results = proposer(config, SAE, [1]), {}
    assert asked.rounds() == 6
    rounds = []
    for number in range(6):
        rounds.append(asked.round(number, results))
        results |= {c.name: outcome(c) for c in rounds[-1]}
    again = proposer(config, SAE, [1]).round(5, results)
    assert [c.name for c in again] == [c.name for c in rounds[5]]
    early, late = (np.mean([outcome(c)[0] for r in part for c in r]) for part in (rounds[:1], rounds[4:]))
    uniform = np.mean([abs(x + 3) for x in np.linspace(-4, -2, 101)])
    assert late < 0.7 * uniform, (early, late, uniform)


def test_the_grid_is_every_combination_once():
    config = tune(space={"architectures": [{"kind": "topk", "k": [2, 4]}, {"kind": "gated", "l1": [1, 5]}]})
    found = {tuple(c.values()[n] for n in ("architecture", "sparsity", "expansion", "learning_rate")) for c in
             proposer(config, SAE, [1]).round(0, {})}  # fmt: skip
    wanted = [(a, s, e, r) for a, levels in (("topk", (2, 4)), ("gated", (1, 5)))
              for s, e, r in product(levels, (2, 4), (1e-5, 2e-2))]  # fmt: skip
    assert found == set(wanted)
    brackets = {c.bracket("sparsity") for c in proposer(config, SAE, [1]).round(0, {})}
    assert brackets == {"layer=1/l0=2", "layer=1/l0=4", "layer=1/gated:l1=1", "layer=1/gated:l1=5"}


def test_an_interval_comes_from_the_spread_of_the_parts():
    """Student's 2.3646 standard errors (7 degrees of freedom) of the FVU of eight parts of the rows, each computed here."""
    x = torch.randn(160, D, generator=torch.Generator().manual_seed(0)).double()
    sae = random_sae(x, 2 * D, 4, 0)

    def fvu(rows: torch.Tensor) -> float:
        return float((sae(rows) - rows).square().sum() / (rows - rows.mean(0)).square().sum())

    found, parts = score({"": sae}, {"image": x}), [fvu(x[i : i + 20]) for i in range(0, 160, 20)]
    half = 2.3646 * np.std(parts, ddof=1) / math.sqrt(8)
    assert found["fvu_image"] == pytest.approx(fvu(x))
    assert found["fvu_image_low"] == pytest.approx(fvu(x) - half, rel=1e-5)
    assert found["fvu_image_high"] == pytest.approx(fvu(x) + half)


def test_weights_do_not_depend_on_who_is_in_the_pack(store, whole, tmp_path):
    plan, together = whole
    apart = plan_tune(store, "t", tune(stop={"kind": "none"}, pack=1), SAE, place(tmp_path))
    alone = plainly(apart)
    assert together.keys() == alone.keys()
    assert [[len(p) for p in packs_of(plan.proposer.round(0, {}), size, "sparsity")] for size in (8, 1)] == [[8], [1] * 8]
    for name in together:
        assert weights_of(plan, name) == weights_of(apart, name)
