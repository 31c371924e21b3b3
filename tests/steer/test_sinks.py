"""Positions above the norm limit: no edit moves them, the lens does not read them, and every table counts them."""

import dataclasses
import math
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from linrep.steer.cells import NO_DIRECTION
from linrep.steer.config import Damage
from linrep.steer.edits import Add
from linrep.steer.sinks import NormLimits, below, norm_limits
from linrep.steer.steerer import Steerer
from linrep.steer.vectors import Vectors
from linrep.store.read import Store
from linrep.vlm.batch import collate
from linrep.vlm.hooks import forward, record
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Role
from tests.steer.conftest import prepared, sample
from tests.steer.test_steerer import CONFIG, directions, edit_of, place_of, slowly, some

LAYERS = (1, 2)


def norms_of(vlm, one):
    with record(vlm, LAYERS) as found, torch.no_grad():
        forward(vlm, collate([one], vlm))
    return {layer: h[0].norm(dim=-1).numpy() for layer, h in found.items()}


@pytest.fixture(scope="module")
def vectors():
    return Vectors(directions(), CONFIG.dose)


@pytest.fixture(scope="module")
def limits(steer_vlm, random_vlm):
    """Limits that about a tenth of the image tokens and a fifth of the others are above, and no last position."""
    made = [Preparer.from_path(random_vlm, image_prompt=q.prompt) for q in CONFIG.ask.questions]
    seqs = [prepared(prepare, sample(i)) for prepare in made for i in (0, 1)]
    found = {}
    for layer in LAYERS:
        norms = [(one, norms_of(steer_vlm, one)[layer]) for one in seqs]
        image = np.concatenate([n[one.role >= Role.IMAGE] for one, n in norms])
        text = np.concatenate([n[one.role < Role.IMAGE] for one, n in norms])
        found[layer] = NormLimits(float(np.quantile(image, 0.9)), float(np.quantile(text, 0.8)), math.inf)
    return found


@pytest.fixture(scope="module")
def steerer(steer_vlm, vectors, limits):
    return Steerer(steer_vlm, CONFIG, LAYERS, vectors, tokens_per_batch=1500, limits=limits)


def by_hand(limits, row):
    return None if row["layer"] is None else dataclasses.astuple(limits[row["layer"]])


def test_free_answers_and_counts_are_those_of_runs_whose_sinks_are_left_alone(steer_vlm, random_vlm, vectors, steerer, limits):
    produced = steerer.answers([sample(0), sample(1)], "boat", "tall tree")
    made = [Preparer.from_path(random_vlm, image_prompt=q.prompt) for q in CONFIG.ask.questions]
    compared, differs = 0, 0
    tokenizer = steer_vlm.processor.tokenizer
    for row in some(produced.tables["answers"], 50):
        if compared == 30:
            break
        one = made[row["question"]](sample(int(row["sample_id"][1:])))
        edit = edit_of(vectors, row)
        ids, scores = slowly(steer_vlm, one, place_of(row), row["layer"], edit, 3, by_hand(limits, row))
        if ids is None:
            continue
        compared += 1
        _, without = slowly(steer_vlm, one, place_of(row), row["layer"], edit, 0)
        differs += bool((without[-1] - scores[len(one) - 1]).abs().max() > 1e-4)
        ids = ids[: ids.index(2)] if 2 in ids else ids
        assert row["text"] == tokenizer.decode(ids, skip_special_tokens=True).strip(), row
    assert compared == 30
    assert differs > 5  # the limits matter here
    counted = {row["site"]: row["n_high_norm"] for row in produced.tables["cells"] if row["layer"] == 1}
    assert counted["last"] == 0
    assert counted["everywhere"] > counted["image"] > 0
    assert {row["n_high_norm"] for row in produced.tables["cells"] if row["edit"] == "none"} == {0}


def test_damage_is_that_of_runs_whose_sinks_are_left_alone(steer_vlm, random_vlm, vectors, steerer, limits):
    samples = [sample(3, "a red boat lies here"), sample(1, "the house")]
    rows = steerer.damage(samples, "boat", "tall tree").tables["damage"]
    prepare = Preparer.from_path(random_vlm, pair_prompt="<image> see :{text}")
    by_name = {one.id: prepared(prepare, one) for one in samples}
    for row in some(rows, 14):
        one = by_name[row["sample_id"]]
        _, logits = slowly(steer_vlm, one, place_of(row), row["layer"], edit_of(vectors, row), 0, by_hand(limits, row))
        (said,) = np.nonzero(one.role == Role.TEXT)
        logp = logits.log_softmax(-1)[said - 1, one.input_ids[said]]
        assert row["nll"] == pytest.approx(-logp.mean().item(), abs=2e-4)
        if row["site"] == "image" and place_of(row) == "image":
            high = norms_of(steer_vlm, one)[row["layer"]] > limits[row["layer"]].image
            assert row["n_high_norm"] == (high & (one.role >= Role.IMAGE)).sum()


def test_the_lens_is_the_mean_over_the_other_image_tokens(steer_vlm, random_vlm, vectors, limits):
    config = CONFIG.model_copy(update={"ask": CONFIG.ask.model_copy(update={"choice": "<image> it is a"})})
    house = dataclasses.replace(sample(0), class_name="house")
    high = {1: limits[1], 2: NormLimits(0.0, math.inf, math.inf)}
    rows = Steerer(steer_vlm, config, LAYERS, vectors, limits=high).lens([house], ["boat", "house"]).tables["lens"]
    one = prepared(Preparer.from_path(random_vlm, image_prompt=CONFIG.ask.questions[0].prompt), house)
    image, norms = one.role >= Role.IMAGE, norms_of(steer_vlm, one)
    low = image & (norms[1] <= limits[1].image)
    assert 0 < low.sum() < image.sum()
    with record(steer_vlm, [1]) as found, torch.no_grad():
        forward(steer_vlm, collate([one], steer_vlm))
        p = steer_vlm.model.lm_head(steer_vlm.text.norm(found[1][0][torch.from_numpy(low)])).softmax(-1)
    tokenizer = steer_vlm.processor.tokenizer
    house = tokenizer("<image> it is a house").input_ids[len(tokenizer("<image> it is a").input_ids)]
    assert rows[0]["p_class"] == pytest.approx(p[:, house].mean().item(), rel=1e-3)
    assert (rows[0]["n_tokens"], rows[0]["n_high_norm"]) == (low.sum(), image.sum() - low.sum())
    assert (rows[1]["n_tokens"], rows[1]["p_class"], rows[1]["n_high_norm"]) == (0, None, image.sum())


def test_a_site_that_is_all_sinks_has_nothing_to_edit_and_is_no_failure(steer_vlm, vectors):
    config = CONFIG.model_copy(update={"damage": Damage(prompt="<image> see :", texts=1)})
    limits = {2: NormLimits(math.inf, math.inf, 0.0)}
    steerer = Steerer(steer_vlm, config, (2,), vectors, tokens_per_batch=1500, limits=limits)
    for found, table in (
        (steerer.answers([sample(0)], "boat", "tall tree"), "cells"),
        (steerer.damage([sample(0, "a red boat")], "boat", "tall tree"), "damage"),
    ):
        assert found.failed == []
        rows = found.tables[table]
        lost = [row for row in rows if row.get("error")]
        # The knock-out's control is at other tokens, of which none is high.
        assert lost == [row for row in rows if row["site"] == "last" and row["direction"] != "other_tokens"]
        assert all(row["error"].startswith(f"{NO_DIRECTION}the norm of every position") for row in lost)
        assert all(row["n_high_norm"] is None for row in lost if table == "damage")


def test_what_follows_a_prompt_is_held_against_the_limit_of_texts():
    apply = below({3: lambda h, rows: Add(torch.tensor([1.0, 0.0]), 5.0, relative=False)(h)}, {3: NormLimits(0.0, 2.0, 0.0)})[3]
    h = torch.tensor([[1.0, 1.0], [3.0, 0.0], [0.0, 2.0]])
    assert apply(h, torch.zeros(3, dtype=torch.long)).tolist() == [[6.0, 1.0], [3.0, 0.0], [5.0, 2.0]]


def test_the_limits_are_the_harvests_and_without_texts_those_of_last_positions():
    known = {("tokens", 0, "image"): 7.0, ("last", 0, "image"): 9.0, ("tokens", 1, "text"): 5.0}
    store = Mock(spec=Store)
    store.limit.side_effect = lambda *which: known.get(which, math.inf)
    assert norm_limits(store, (0, 1, 2)) == {0: NormLimits(7.0, 9.0, 9.0), 1: NormLimits(math.inf, 5.0, math.inf)}
