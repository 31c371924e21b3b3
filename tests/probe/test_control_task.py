"""Control tasks: a fixed function of the type, read as well as types are told apart, and at chance where they are not."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import binom

from linrep.probe.closed import ridge
from linrep.probe.config import Attributes, ProbeConfig
from linrep.probe.control_task import ControlTask
from linrep.probe.labels import read_attributes
from linrep.probe.moments import gather
from linrep.probe.study import Study, Unit, plan_study
from linrep.probe.unit import gather_part, parts_of, probe_unit
from linrep.store.blocks import Block
from linrep.store.samples import CLASS
from tests.probe.planted import CLASSES, write_colours, write_planted

LIGHT = {"alphas": (1e-4, 1e-2), "shrinkages": (0.1,), "sparse": (5,), "curve": (5,), "softmax": None, "resamples": 200}


def scores(study: Study, unit: Unit) -> pl.DataFrame:
    return pl.DataFrame(
        pl.from_arrow(probe_unit(study, unit, [gather_part(study, unit, part) for part in parts_of(study, unit)]).probes)
    )


@pytest.mark.parametrize(("d", "lowest", "highest"), [(16, 0.25, 0.5), (256, 0.98, 1.0)])
def test_a_probe_reads_it_as_far_as_its_dimensions_tell_types_apart(d, lowest, highest):
    """Four labels of 200 types: a wide probe learns any function of them by heart, shuffled labels none of it."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(200, size=8000)
    means = 3 * rng.standard_normal((200, d))
    x = torch.from_numpy(means[kinds] + rng.standard_normal((8000, d)))
    task = ControlTask("s", (0.25,) * 4)
    y = task.labels([f"type {kind}" for kind in kinds])
    dealt = rng.permutation(y)
    moments = gather(x[:4000], {"y": y[:4000], "dealt": dealt[:4000]})
    fitted = ridge(moments, ["y", "dealt"], [1.0])
    right = (fitted["y"][0].scores(x[4000:]).argmax(1).numpy() == y[4000:]).mean()
    by_chance = (fitted["dealt"][0].scores(x[4000:]).argmax(1).numpy() == dealt[4000:]).mean()
    assert lowest < right <= highest
    assert by_chance < max(np.bincount(y)) / len(y) + 0.03  # what always saying the commonest label gives


def test_labels_are_a_function_of_the_type_as_frequent_as_the_shares():
    task = ControlTask.of(np.array([0, 0, 0, 1, -1, 1]), np.array([1, 1, 1, 1, 1, 0], bool), 3, "salt")
    assert task.shares == (0.75, 0.25, 0.0)
    found = task.labels([str(i) for i in range(2000)])
    assert binom.ppf(0.001, 2000, 0.75) <= (found == 0).sum() <= binom.ppf(0.999, 2000, 0.75)
    assert (found < 2).all()
    assert (task.labels(["7", "3", "7"]) == found[[7, 3, 7]]).all()
    assert (ControlTask("other", task.shares).labels([str(i) for i in range(2000)]) != found).mean() > 0.2
    halves = ControlTask.dichotomy(5, "salt").labels([str(i) for i in range(400)])
    assert set(halves.tolist()) == {0, 1}
    block = Block(torch.zeros(4, 1), np.zeros(4, np.int64), {"row": np.array([1, 2, 1, 2]), "col": np.array([1, 1, 1, 2])})
    rows = task.of_rows(block, ("row", "col"))
    assert rows.tolist() == task.labels(["1 1", "2 1", "1 1", "2 2"]).tolist()


def test_single_text_tokens_have_labels_of_their_word_and_a_probe_reads_them(tmp_path):
    """Twelve planted words: a probe of 24 dimensions tells them all, so that it reads any labels as well as the planted class."""
    store = write_planted(tmp_path, words=12)
    study = plan_study(store, ProbeConfig(**LIGHT))
    own = scores(study, Unit("tokens", 2)).filter(attribute=CLASS, fitted_on="text", tested_on="text")
    (row,) = own.filter(pl.col("n_per_class").is_null(), kind="ridge").iter_rows(named=True)
    assert row["control_type"] == "word"
    assert row["control_task"] > 0.97
    assert row["selectivity"] == pytest.approx(row["top1"] - row["control_task"])
    assert row["selectivity_low"] <= row["selectivity"] <= row["selectivity_high"]
    assert row["shuffled"] < 0.5
    assert own.filter(kind="sparse")["control_task"].min() > 0.6  # of twelve words five coordinates a class tell most
    assert own.filter(pl.col("n_per_class") == 5)["control_task"].min() > 0.9


def test_samples_have_labels_of_their_attributes_and_where_these_cannot_be_read_it_is_chance(tmp_path):
    """Types by class and colour are planted, and read; with a type of its own for each sample nothing recurs."""
    store = write_planted(tmp_path / "store")
    path = write_colours(tmp_path)
    found = {}
    for name in ("colour", "own"):
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        table = tmp_path / f"{name}.jsonl"
        table.write_text("".join(json.dumps({**row, "own": f"x{i}"}) + "\n" for i, row in enumerate(rows)))
        config = ProbeConfig(
            attributes=Attributes(path=str(table), columns=("colour", "own"), types=(name,)), min_per_class=1, **LIGHT
        )
        attributes, _ = read_attributes(config.attributes, str(table))
        study = plan_study(store, config, attributes)
        frame = scores(study, Unit("pooled", 2)).filter(attribute=CLASS, fitted_on="image", tested_on="image", kind="ridge")
        (found[name],) = frame.filter(pl.col("n_per_class").is_null()).iter_rows(named=True)
        assert found[name]["control_type"] == "attributes"
    labels = {name: row["control_task"] for name, row in found.items()}
    assert labels["colour"] > 0.6  # a function of six types that lie along five axes: linear in part
    assert found["own"]["control_task_low"] < 0.45
    assert found["own"]["selectivity"] > found["colour"]["selectivity"]


def test_without_attributes_it_is_halves_of_the_classes_and_no_selectivity(tmp_path):
    study = plan_study(write_planted(tmp_path), ProbeConfig(**LIGHT))
    codes = study.codes["image"]
    of_class = {c: set(codes[f"{CLASS}/control_task"][codes[CLASS] == c].tolist()) for c in range(len(CLASSES))}
    assert all(len(labels) == 1 and labels <= {0, 1} for labels in of_class.values())
    frame = scores(study, Unit("pooled", 2)).filter(attribute=CLASS, fitted_on="image", tested_on="image", kind="ridge")
    assert frame["control_type"].unique().to_list() == ["classes"]
    assert frame["selectivity"].is_null().all()
    assert frame["control_task"].is_not_null().all()


def test_types_are_columns_that_the_recipe_names():
    with pytest.raises(ValueError, match=r"types: must be some of the columns \['colour'\], got \['place'\]"):
        Attributes(path="x.jsonl", columns=("colour",), types=("place",))
