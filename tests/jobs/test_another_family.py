"""The whole chain on a model of another family than LLaVA-NeXT: places of three axes, merged patches, one view without crops."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

import linrep
from linrep.recipe import load_yaml, validate
from tests.vlm.families.test_qwen2_vl import TestQwen25VL as Qwen

ROOT = Path(__file__).parents[2]


def recipe_of(model: Path) -> dict:
    """The demo's recipe, small, for a model of random weights that says nothing sensible."""
    recipe = load_yaml(str(ROOT / "recipes/demo.yaml"))
    recipe |= {"name": "family", "model": {"path": str(model)}, "sharing": {"own": "topk-4-x8-s0"}}
    recipe["demo"] |= {"n_images": 96, "n_texts": 96}
    recipe["harvest"] |= {"layers": [0, 2], "tokens_per_sample": 8, "chunk_size": 64, "dtype": "auto"}
    recipe["probe"] |= {"min_per_class": 2}
    recipe["steer"] |= {"pairs": 1, "images": 1, "directions": ["class_mean", "random"], "edits": [], "insist": True}
    recipe["steer"] |= {"dose": {"strengths": [1.0], "relative": True}}
    recipe["sae"] |= {"grid": {"sparsity": [4]}, "rows": 4000, "batch": 256}
    recipe["sae"]["evaluation"] |= {"rows": 512, "texts": 4, "vectors": 2, "samples": 64}
    recipe["features"] |= {"saes": [{"layer": 2, "sae": "topk-4-x8"}], "per_quantile": 4}
    return {name: section for name, section in recipe.items() if name not in ("tune", "interpret")}


def test_its_recipe_has_no_field_that_is_gone(tmp_path):
    validate(recipe_of(tmp_path), "recipe.yaml", {}, [])


@pytest.mark.slow
def test_every_stage_ends_and_says_something_of_every_image_token(tmp_path):
    file, workspace = tmp_path / "recipe.yaml", tmp_path / "w"
    file.write_text(yaml.safe_dump(recipe_of(Qwen.write(tmp_path / "model"))))
    words = [sys.executable, "jobs/reproduce.py", "--config", str(file), "--workspace", str(workspace)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]

    store = linrep.open(str(workspace)).store
    samples = store.samples().to_pylist()
    assert not [row["error"] for row in samples if row["error"]]
    for row in samples:
        if row["modality"] != "text":  # a token a merged patch, without newlines
            rows, cols = map(int, row["grid"].split("x"))
            assert row["n_image_tokens"] == rows * cols
    stages = ("probes", "steering", "saes", "sharing", "features", "regions")
    assert [stage for stage in stages if not list((workspace / stage).glob("*/manifest.json"))] == []
    (file,) = workspace.glob("steering/*/cells.parquet")
    cells = pl.read_parquet(file)
    plain = cells.filter(pl.col("layer").is_null())["p_target"].item()
    moved = cells.filter((pl.col("site") == "image") & (pl.col("layer") == 2))["p_target"].drop_nulls()
    assert len(moved)
    assert (moved - plain).abs().max() > 1e-4  # an edit of the image's tokens is felt in the answer
    assert (workspace / "report.md").is_file()
