"""The story of the embedded world from end to end, on the committed weights: classes can be read off every layer, and steered."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import yaml

from linrep import artefact
from linrep.places import place
from linrep.steer.artefact import STEERING, verdicts_in
from linrep.steer.config import SteerConfig
from linrep.steer.effects import effects
from tests.steering import value_of

ROOT = Path(__file__).parents[2]
LAST = 6
"""Layers of the demo's language model: the stream after its last block."""


def reduced() -> dict[str, Any]:
    """The demo's recipe with fewer images, no texts, fewer cells for each pair; every class is a source and a target once."""
    values = yaml.safe_load((ROOT / "recipes/demo.yaml").read_text())
    values["demo"] |= {"n_images": 800, "n_texts": 1}
    values["corpora"] = {"images": values["corpora"]["images"], "splits": {"val": 0.1, "test": 0.3}}
    values["harvest"] |= {"views": ["pooled", "last"], "chunk_size": 200}
    values["probe"] |= {"softmax": None, "sparse": [], "curve": []}
    values["steer"] |= {
        "pairs": 16, "images": 3, "layers": "all", "directions": ["class_mean", "ridge", "random"], "edits": [],
        "dose": {"strengths": [1.0, 2.0], "relative": False},
    }  # fmt: skip
    values["steer"]["damage"]["texts"] = 0
    values["pool"] = {"threads": 1}  # of a model this small a second thread only waits for the first
    return {name: values[name] for name in ("name", "demo", "corpora", "model", "harvest", "probe", "steer", "pool")}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Harvested, probed and steered by the jobs themselves."""
    folder = tmp_path_factory.mktemp("story")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(reduced()))
    for job in ("harvest", "probe", "steer"):
        words = (sys.executable, f"jobs/{job}.py", "--config", str(folder / "recipe.yaml"), "--workspace", str(folder / "ws"))
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "ws"


@pytest.fixture(scope="module")
def probes(workspace: Path) -> pl.DataFrame:
    """Closed-form probes of the class, one row for each view, layer and kind."""
    (file,) = workspace.glob("probes/*/probes.parquet")
    return pl.read_parquet(file).filter((pl.col("attribute") == "class") & (pl.col("fitted_on") == pl.col("tested_on")))


@pytest.fixture(scope="module")
def halves(workspace: Path) -> tuple[pa.Table, pa.Table]:
    """Effects on every second pair, and on the others: what is best is chosen on the first and measured on the second."""
    (folder,) = workspace.glob("steering/*")
    runs = artefact.open(STEERING, place(folder))
    (judged,) = verdicts_in(runs)
    cells, damage, verdicts = runs.table("cells"), runs.table("damage"), judged.table("verdicts")
    pairs = [tuple(pair) for pair in runs.about.pairs]
    assert len(pairs) == 16
    first, second = (
        effects(_of(cells, some), _of(verdicts, some), _of(damage, some), SteerConfig())
        for some in (set(pairs[0::2]), set(pairs[1::2]))
    )
    return first, second


def _of(table: pa.Table, pairs: set[tuple[str, ...]]) -> pa.Table:
    rows = zip(table["source"].to_pylist(), table["target"].to_pylist(), strict=True)
    return table.filter(pa.array([pair in pairs for pair in rows], pa.bool_()))


def one(table: pa.Table, measure: str, **which: Any) -> dict[str, Any]:
    (row,) = value_of(table, measure, edit="add", **which)
    return row


@pytest.fixture(scope="module")
def best(halves: tuple[pa.Table, pa.Table]) -> dict[str, Any]:
    """Where the class mean turns most answers of the first half's pairs with all else kept; ties go to the first."""
    found = [row for row in value_of(halves[0], "turned", edit="add", direction="class_mean") if row["value"]]
    assert found, "nothing was turned anywhere"
    cells = [{name: row[name] for name in ("site", "layer", "strength")} for row in found]

    def clean(i: int) -> float:
        return found[i]["value"] * one(halves[0], "turned_kept_all", direction="class_mean", **cells[i])["value"]

    return cells[max(range(len(found)), key=clean)]


@pytest.mark.slow
def test_probes_of_image_tokens_are_far_above_chance_at_every_layer_and_their_controls_at_chance(probes):
    rows = probes.filter(pl.col("view") == "pooled").to_dicts()
    assert {(row["layer"], row["kind"]) for row in rows} >= {
        (layer, kind) for layer in range(LAST + 1) for kind in ("ridge", "lda", "class_mean")
    }
    for row in rows:
        assert row["top1_low"] > 3 * row["chance"], row
        assert row["shuffled_low"] <= row["chance"], row
        assert row["shuffled_high"] < row["top1_low"], row


@pytest.mark.slow
def test_the_last_token_knows_nothing_at_layer_0_and_the_class_once_it_has_read_the_image(probes):
    rows = probes.filter(pl.col("view") == "last").to_dicts()
    for row in rows:
        if row["layer"] == 0:
            assert row["top1_low"] <= row["chance"], row
            assert row["selectivity_low"] <= 0 <= row["selectivity_high"], row
        else:
            assert row["top1_low"] > 0.75, row
            assert row["shuffled_low"] <= row["chance"], row
    assert {row["layer"] for row in rows} == set(range(LAST + 1))


@pytest.mark.slow
def test_the_class_mean_turns_most_answers_where_a_random_direction_turns_almost_none(halves, best):
    mean, drawn = (one(halves[1], "turned", direction=kind, **best) for kind in ("class_mean", "random"))
    assert mean["low"] > 0.5, mean
    assert drawn["value"] <= 0.1, drawn
    assert drawn["high"] < 0.5, drawn
    gain = one(halves[1], "turned_over_random", direction="class_mean", **best)
    assert gain["value"] > 0.5, gain
    assert gain["low"] > 0, gain  # of eight pairs that all agree the interval is wide


@pytest.mark.slow
def test_nothing_that_is_done_to_image_tokens_after_the_last_layer_has_an_effect(halves):
    for table in halves:
        for kind in ("class_mean", "ridge", "random"):
            for strength in (1.0, 2.0):
                where = {"direction": kind, "site": "image", "layer": LAST, "strength": strength}
                assert one(table, "turned", **where)["value"] == 0
                assert one(table, "left", **where)["value"] == 0
                assert abs(one(table, "p_target_gain", **where)["value"]) < 1e-4
                for attribute in ("colour", "ground"):
                    assert one(table, f"kept_{attribute}", **where)["value"] == 1


@pytest.mark.slow
def test_colour_and_ground_are_kept_in_most_edits_that_turn_the_class(halves, best):
    for measure in ("turned_kept_colour", "turned_kept_ground", "turned_kept_all"):
        kept = one(halves[1], measure, direction="class_mean", **best)
        assert kept["low"] > 0.5, kept


@pytest.mark.slow
def test_ridge_and_class_mean_stand_side_by_side_in_every_cell(halves):
    for measure in ("p_target", "turned", "turned_over_random"):
        cells = {
            kind: {(row["site"], row["layer"], row["strength"]) for row in value_of(halves[1], measure, direction=kind)}
            for kind in ("class_mean", "ridge")
        }
        assert cells["class_mean"] == cells["ridge"]
        # At two sites, seven layers, two strengths; but the last token at layer 0 is the same in every image.
        assert len(cells["ridge"]) == 2 * (LAST + 1) * 2 - 2
