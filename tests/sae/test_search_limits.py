# ruff: noqa: F811  (a fixture of a neighbour comes in by its name)
"""What ends a search or a candidate: budgets, losses that are not finite, brackets of drawn values, stores without rows."""

import math
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from linrep.errors import LinrepError, RecipeError
from linrep.places import Place, place
from linrep.sae.formats import saelens
from linrep.sae.pack import Trial
from linrep.sae.propose import proposer
from linrep.sae.rounds import search_plainly
from linrep.sae.search import TuneConfig
from linrep.sae.trials import read_trials
from linrep.sae.tuning import TunePlan, check_space, objectives, plan_tune
from linrep.store.mixture import held_out
from linrep.store.read import Store
from tests.sae.test_search import BEST_FIRST, SAE, D, plainly, store, tune  # noqa: F401
from tests.store.planted_store import write_store

ROWS = 640
"""Ten steps."""
WHOLE = {"kind": "none"}
ONE = {"architectures": [{"kind": "topk", "k": [2]}], "expansion": [2], "learning_rate": [1e-3]}


def in_pieces(store: Store, config: TuneConfig, folder: Place) -> dict[str, Trial]:
    """A search that is killed after each commit, and begun again until it has nothing more to say."""
    while True:
        under_way = search_plainly(plan_tune(store, "t", config, SAE, folder))
        more = list(islice(under_way, 1))
        under_way.close()
        if not more:
            return read_trials(plan_tune(store, "t", config, SAE, folder).place)


def outcomes(found: dict[str, Trial]) -> dict[str, tuple]:
    return {name: (t.status, t.rows, t.scores) for name, t in sorted(found.items())}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [WHOLE, {"kind": "halving", "first": 0.25, "factor": 2}])
def test_a_budget_takes_the_first_of_a_grid_and_the_same_ones_after_kills(stop, store, tmp_path):
    config = tune(rows=ROWS, budget=5 * ROWS + 100, stop=stop, pack=2, space=BEST_FIRST)
    plan = plan_tune(store, "t", config, SAE, place(tmp_path / "whole"))
    found = plainly(plan)
    assert set(found) == {one.name for one in plan.proposer.round(0, {})[:5]}
    assert sum(trial.rows for trial in found.values()) <= 5 * ROWS
    assert outcomes(in_pieces(store, config, place(tmp_path / "cut"))) == outcomes(found)
    assert not (plan.place / "waiting").exists()


@pytest.mark.slow
def test_a_budget_ends_a_search_in_rounds_at_the_same_candidate_after_kills(store, tmp_path):
    pytest.importorskip("optuna")
    space = {"learning_rate": {"kind": "range", "low": 1e-4, "high": 1e-2}}
    search = {"kind": "optuna", "trials": 12, "per_round": 4}
    config = tune(rows=128, budget=6 * 128, stop=WHOLE, space=space, search=search)
    found = plainly(plan_tune(store, "t", config, SAE, place(tmp_path / "whole")))
    assert len(found) == 6  # a round of four, and two of the next
    assert outcomes(in_pieces(store, config, place(tmp_path / "cut"))) == outcomes(found)


def test_a_larger_budget_goes_on_with_the_same_search_and_other_packs_are_no_other_search(store, tmp_path):
    def plan_of(**changes: object) -> TunePlan:
        return plan_tune(store, "t", tune(**{"rows": 128, "stop": WHOLE, **changes}), SAE, place(tmp_path))

    first, rest = (plainly(plan_of(budget=n * 128, pack=pack)) for n, pack in ((3, 2), (8, 4)))
    assert (len(first), len(rest)) == (3, 5)
    assert plan_of(budget=3 * 128, pack=2).place == plan_of(budget=None, pack=4).place
    assert plan_of(rows=192).place != plan_of().place
    at_once = plan_tune(store, "t", tune(rows=128, stop=WHOLE), SAE, place(tmp_path / "at once"))
    assert outcomes({**first, **rest}) == outcomes(plainly(at_once))


def test_a_budget_that_trains_nobody_is_refused(store, tmp_path):
    with pytest.raises(RecipeError, match=r"tune\.budget \(600 rows\) .* raise it to 640"):
        plan_tune(store, "t", tune(rows=ROWS, budget=600), SAE, place(tmp_path))


def test_one_that_diverges_between_two_reports_fails_at_the_rung(store, tmp_path):
    """Losses are looked at in every second of 200 steps, the rung is after the first."""
    space = {**ONE, "learning_rate": [1e30, 1e-3]}
    config = tune(rows=200 * 64, space=space, stop={"kind": "halving", "first": 0.005, "factor": 15})
    plan = plan_tune(store, "t", config, SAE, place(tmp_path))
    assert plan.pack(0, plan.proposer.round(0, {})).rungs == (1, 15)
    found = plainly(plan)
    bad, good = (found[one.name] for one in plan.proposer.round(0, {}))
    assert (bad.status, bad.rows, bad.scores) == ("failed", 64, ())
    assert bad.reason == "diverged: the FVU on held-out rows is not finite at step 1"
    assert (good.status, good.rows) == ("finished", 200 * 64)


def test_all_that_diverge_in_a_step_fail_and_the_others_report_it_too(store, tmp_path):
    """Two steps: the loss of the second, which is the last, is not finite."""
    config = tune(rows=128, stop=WHOLE, space={**ONE, "learning_rate": [1e30, 1e29, 1e-3]})
    plan = plan_tune(store, "t", config, SAE, place(tmp_path))
    found = plainly(plan)
    first, second, good = (found[one.name] for one in plan.proposer.round(0, {}))
    assert [t.status for t in (first, second, good)] == ["failed", "failed", "finished"]
    assert all("diverged: the loss of topk is" in t.reason and t.rows == 128 for t in (first, second))
    assert [report["rows"] for report in good.reports] == [64, 128]


def test_rows_too_few_for_an_interval_give_none(store, tmp_path):
    """Eight rows in eight parts have no variance within a part."""
    (trial,) = plainly(plan_tune(store, "t", tune(rows=128, held_out=8, space=ONE), SAE, place(tmp_path))).values()
    assert trial.status == "finished"
    assert math.isfinite(trial.last["fvu"])
    assert not {"fvu_image_low", "fvu_text_high"} & trial.last.keys()


@pytest.mark.parametrize("normalise", ["layer", "modality"])
def test_candidates_of_every_mixture_are_compared_on_the_same_rows(normalise, store, tmp_path):
    """Those trained on one modality alone too; FVU against the plain formula on the saved SAE."""
    sae = SAE.model_copy(update={"data": SAE.data.model_copy(update={"normalise": normalise})})
    config = tune(rows=ROWS, stop=WHOLE, space={**ONE, "text_share": [0, 0.5, 1]})
    plan = plan_tune(store, "t", config, sae, place(tmp_path))
    found = plainly(plan)
    assert len(found) == 3
    assert len({frozenset(trial.last) for trial in found.values()}) == 1
    assert {len(objectives(trial, plan.modalities) or ()) for trial in found.values()} == {4}
    (images,) = (t for t in found.values() if t.values["text_share"] == 0)
    sae = saelens.read(plan.place / "saes" / images.name)
    for modality, rows in held_out(plan.test[1], 200).items():
        x = rows.chunk(2)[1]  # reported on the half that compares nobody
        fvu = float((sae(x) - x).square().sum() / (x - x.mean(0)).square().sum())
        assert images.last[f"fvu_{modality}"] == pytest.approx(fvu, rel=1e-4)


def test_optuna_is_told_of_everyone(store, tmp_path, monkeypatch):
    optuna = pytest.importorskip("optuna")
    told_states: Counter = Counter()
    real = optuna.study.Study.tell

    def tell(*args: object, **kwargs: object) -> object:
        trial = real(*args, **kwargs)
        told_states[trial.state.name] += 1
        return trial

    monkeypatch.setattr(optuna.study.Study, "tell", tell)
    space = {**ONE, "learning_rate": {"kind": "range", "low": 1e-4, "high": 1e-2}, "text_share": [0, 0.5, 1]}
    config = tune(rows=128, stop=WHOLE, space=space, search={"kind": "optuna", "trials": 6, "per_round": 3})
    plainly(plan_tune(store, "t", config, SAE, place(tmp_path)))
    assert told_states == {"COMPLETE": 3}  # the first round, before the second


def test_drawn_candidates_compete_within_an_octave_and_most_stop(store, tmp_path):
    """Drawn values are hardly ever equal: were each a bracket of its own, all would be trained to their end."""
    space = {
        "architectures": [{"kind": "topk", "k": {"kind": "range", "low": 2, "high": 15}}],
        "expansion": {"kind": "range", "low": 2, "high": 3.9},
        "learning_rate": {"kind": "range", "low": 1e-5, "high": 1e-2},
    }
    stop = {"kind": "halving", "first": 0.2, "factor": 5, "within": "sparsity_and_width"}
    config = tune(rows=ROWS, space=space, stop=stop, search={"kind": "random", "trials": 18})
    plan = plan_tune(store, "t", config, SAE, place(tmp_path))
    found = plainly(plan).values()
    assert {t.bracket for t in found} == {f"layer=1/l0={octave}/x2..4" for octave in ("2..4", "4..8", "8..16")}
    for trial in found:
        low, high = map(float, trial.bracket.split("l0=")[1].split("/")[0].split(".."))
        assert low <= trial.values["sparsity"] < high
    sizes = Counter(t.bracket for t in found)
    assert Counter(t.bracket for t in found if t.status == "finished") == {b: math.ceil(n / 5) for b, n in sizes.items()}
    assert sum(t.rows for t in found) < 0.5 * len(found) * ROWS


def test_listed_values_are_compared_with_their_equals_alone():
    every = proposer(tune(space={"architectures": [{"kind": "topk", "k": [4, 5]}]}), SAE, [1]).round(0, {})
    assert {one.bracket("sparsity_and_width") for one in every} == {f"layer=1/l0={k}/x{x}" for k in (4, 5) for x in (2, 4)}


def test_the_ends_of_a_range_of_whole_numbers_are_rounded_as_draws_are():
    def space(high: float) -> TuneConfig:
        ranged = {"architectures": [{"kind": "topk", "k": {"kind": "range", "low": 2, "high": high}}], "expansion": [1]}
        return tune(space=ranged, search={"kind": "random", "trials": 5})

    check_space(space(D + 0.4), SAE, D)
    with pytest.raises(RecipeError, match="k 17 of topk is above the width"):
        check_space(space(D + 0.6), SAE, D)


@pytest.mark.parametrize(
    ("n", "splits", "message"),
    [(0, ("train",), "holds no rows of tokens"), (30, ("val",), "to train on"), (30, ("train",), "val split to compare on")],
)
def test_a_store_without_rows_to_train_or_compare_on_is_one_clear_line(n, splits, message, tmp_path):
    x = np.random.default_rng(0).standard_normal((n, D)).astype(np.float32)
    poor = write_store(tmp_path / "store", {(1, m): [x] for m in ("image", "text")}, splits=splits)
    with pytest.raises(LinrepError, match=message) as error:
        plan_tune(poor, "t", tune(), SAE, place(tmp_path))
    assert "\n" not in str(error.value)
