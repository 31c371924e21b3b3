"""The command: its tables and files, what it reads of a store, and what it refuses."""

import numpy as np
import polars as pl
import pytest
import yaml

import bench.sae_sharing as command
from bench.sae_sharing import main, table, verdicts
from bench.sae_sharing_rows import read_pairs
from linrep.errors import RecipeError
from linrep.sae.paired import judge
from linrep.sae.paired.designs import CONTROLS, DESIGNS
from linrep.sae.paired.judge import TRUTH, DesignRow
from linrep.sae.paired.world import World
from linrep.sharing.config import SharingConfig
from linrep.stats.interval import Interval
from linrep.vlm.config import ModelConfig
from tests.reading.workspace import write_recipe
from tests.sharing.planted import write_pairs

BRIEF = ("--steps", "3", "--batch", "16", "--decoder-rows", "16", "--seeds", "2")


def test_planted_worlds_are_one_table_each_and_every_row_is_written(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "WORLDS", {"a": World(4, 4, 1, 1, width=8), "b": World(0, 4, 0, 2, width=8)})
    monkeypatch.setattr(judge, "N_TRAIN", 100)
    monkeypatch.setattr(judge, "N_HELD", 80)
    assert main(["--planted", *BRIEF, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for name in ("Planted: a", "Planted: b"):
        assert f"\n## {name}\n" in out
    for name in (*(f"**{design}**" for design in DESIGNS), *CONTROLS):
        assert out.count(f"\n| {name} | ") == 6  # three tables of a world
    assert (tmp_path / "designs.md").read_text().strip() == out.strip()
    rows = pl.read_parquet(tmp_path / "designs.parquet")
    assert set(rows["design"]) == {TRUTH, *DESIGNS, *CONTROLS}
    assert set(rows["where"]) == {"a", "b"}
    truth = rows.filter((pl.col("design") == TRUTH) & (pl.col("where") == "a") & (pl.col("measure") == "recall"))
    assert truth["value"].to_list() == [1.0]
    assert truth["seeds"].to_list() == [2]


def test_the_pairs_of_a_store_are_read_by_split_with_their_classes(tmp_path):
    rng = np.random.default_rng(0)
    images, texts, labels = rng.normal(size=(200, 6)), rng.normal(size=(200, 6)), np.arange(200) % 4
    store = write_pairs(tmp_path, images, texts, labels, held=80, views=("pooled",))
    train, held, label = read_pairs(SharingConfig(), store, 0, "mean")
    assert (len(train), len(held)) == (120, 80)
    for own, rows, these in ((train, slice(0, 120), None), (held, slice(120, 200), label)):
        x, y = images[rows].astype(np.float16).astype(np.float32), texts[rows].astype(np.float16).astype(np.float32)
        found = [int(np.flatnonzero((x == row.numpy()).all(1))[0]) for row in own.image]
        assert sorted(found) == list(range(len(x)))
        np.testing.assert_array_equal(own.text.numpy(), y[found])
        if these is not None:
            names = sorted({0, 1, 2, 3}, key=lambda c: ("boat", "tree", "key", "bell")[c])
            assert [names[c] for c in these.tolist()] == labels[rows][found].tolist()
    with pytest.raises(RecipeError, match="no layer 3 in"):
        read_pairs(SharingConfig(), store, 3, "mean")
    few = write_pairs(tmp_path / "few", images, texts, labels, held=20, views=("pooled",))
    with pytest.raises(RecipeError, match="180 training and 20 held-out pairs"):
        read_pairs(SharingConfig(), few, 0, "mean")


def test_mistakes_are_one_line(random_vlm: ModelConfig, tmp_path, capsys):
    assert main([]) == 2
    assert "--planted" in capsys.readouterr().err
    recipe = write_recipe(tmp_path, random_vlm)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert main(["--layer", "2", "--workspace", str(tmp_path / "ws"), "--config", str(tmp_path / "recipe.yaml")]) == 2
    assert "2 image-caption pairs, at least 40 are needed" in capsys.readouterr().err


def row(measure: str, design: str, value: float, low: float, high: float, null: float = float("nan")) -> DesignRow:
    return DesignRow(design, measure, Interval(value, low, high), null, 3)


def test_cells_and_verdicts_by_hand():
    rows = [
        row("recall", "mixed", 0.5, 0.4, 0.6),
        row("recall", "crosscoder", 0.9, 0.85, 0.95),
        row("recall", "matched by correlation", 0.8, 0.7, 0.9),
        row("recall", "random, mixed", 1.0, 1.0, 1.0),
        row("fvu_image", "mixed", 0.3, 0.2, 0.4),
        row("fvu_image", "crosscoder", 0.5, 0.41, 0.6),
        row("called", "mixed", 24.0, 20.0, 28.0, 0.04),
    ]
    shown = table(rows, {"recall": "recall", "called": "called shared"})
    assert "| **mixed** | .50 [.40, .60] | 24.0 [20.0, 28.0] (.04) |" in shown
    assert "| random, mixed | 1.00 [1.00, 1.00] |  |" in shown
    assert verdicts(rows) == [
        "  recall: crosscoder (.90 [.85, .95]); intervals of matched by correlation reach it",
        "  fvu_image: mixed (.30 [.20, .40]); no other interval reaches it",
    ]
