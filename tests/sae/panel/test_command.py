"""The command on a small workspace without Ray: what it prints and writes, what it refuses, and who adds the directions."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from bench.sae_panel import main, verdicts
from bench.sae_panel_model import GivenDirections, outcomes
from bench.sae_panel_rows import find_saes, read_rows
from linrep.cluster.inputs import harvested
from linrep.errors import RecipeError
from linrep.places import place
from linrep.recipe import Recipe
from linrep.sae.formats import saelens
from linrep.sae.panel.beside import CONTROLS
from linrep.sae.panel.judge import PanelRow, rows_of
from linrep.stats.interval import Interval
from linrep.store.blocks import blocks
from linrep.store.samples import class_values, read_samples
from linrep.vlm.config import ModelConfig
from tests.reading.workspace import write_recipe


@pytest.fixture(scope="module")
def recipe(random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    folder = tmp_path_factory.mktemp("panel")
    found = write_recipe(folder, random_vlm)
    values = found.model_dump(mode="json")
    values["sae"] |= {"rows": 2048, "batch": 64}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder, found


def words(folder: Path, *more: str) -> list[str]:
    brief = ["--seeds", "2", "--resamples", "20", "--layer", "2", "--sae", str(folder / "sae")]
    return ["--workspace", str(folder / "ws"), "--config", str(folder / "recipe.yaml"), *brief, *more]


def test_the_table_has_the_sae_and_its_controls_and_says_who_is_beaten(recipe, capsys, tmp_path):
    folder, found = recipe
    samples = read_samples(harvested(found, place(folder / "ws")).store.samples())
    train, test = int(samples.of("image", "train").sum()), int(samples.of("image").sum() - samples.of("image", "train").sum())
    assert main(words(folder, "--no-model", "--out", str(tmp_path))) == 0
    out, err = capsys.readouterr()
    assert f"of {train} training images" in err
    assert f"of {test} held-out ones" in err
    assert "2 attribute values" in err
    for name in ("sae", *CONTROLS):
        assert f"\n| {name} | " in out
    assert "  interpretable: " in out
    assert "success" not in out
    assert "one seed" in out
    rows = json.loads((tmp_path / "sae-layer-002.json").read_text())
    seeds = {row["sae"]: row["seeds"] for row in rows}
    assert seeds == {"sae": 1, **dict.fromkeys(CONTROLS, 2), "principal": 1}
    assert (tmp_path / "sae-layer-002.png").stat().st_size > 10_000


def test_shared_latents_are_taken_away_beside_private_and_random_ones(recipe, capsys, tmp_path):
    folder, _ = recipe
    more = ["--shared", "--draws", "2", "--questions", "6", "--out", str(tmp_path)]
    assert main(words(folder, *more)) == 0
    out, err = capsys.readouterr()
    assert "test images under 1 questions" in err
    assert "test texts under 1 questions" in err
    assert "Answers about images, latents taken away at image tokens" in out
    assert "isotropic" not in out
    rows = {(r["measure"], r["sae"]): r for r in json.loads((tmp_path / "sae-layer-002-shared.json").read_text())}
    assert rows["image_energy_1", "all latents"]["found"]["value"] == pytest.approx(1)
    assert rows["image_kl_1", "all latents"]["found"]["value"] > 0
    assert rows["image_kl_0.5", "shared"]["seeds"] == 2
    assert rows["image_kl_0.5", "random"]["apart"]["value"] == pytest.approx(
        rows["image_kl_0.5", "shared"]["found"]["value"] - rows["image_kl_0.5", "random"]["found"]["value"]
    )
    assert (tmp_path / "sae-layer-002-shared.png").stat().st_size > 10_000


def test_a_random_sae_does_not_beat_its_controls(recipe, capsys, tmp_path):
    folder, _ = recipe
    assert main(words(folder, "--no-model", "--out", str(tmp_path))) == 0
    rows = {(r["measure"], r["sae"]): r for r in json.loads((tmp_path / "sae-layer-002.json").read_text())}
    assert rows["explained_variance", "isotropic"]["apart"]["low"] < 0.2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--layer", "1"), "no tokens of layer 1"),
        (("--sae", "topk-9"), "no SAE of layer 2 in"),
        (("--sae",), "run jobs/train_sae.py"),
        ((), "names no image's class rightly"),
    ],
)
def test_a_mistake_is_one_line(recipe, capsys, more, said):
    """A model of random weights names nothing, so that there is nothing to turn."""
    folder, _ = recipe
    assert main(words(folder, *more)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert said in line


def test_tokens_are_those_of_their_images(recipe):
    folder, found = recipe
    harvest = harvested(found, place(folder / "ws"))
    rows = read_rows(found, place(folder / "ws"), harvest, 2, 2048)
    table = harvest.store.samples()
    samples, classes = read_samples(table), class_values(table, read_samples(table))
    train = np.flatnonzero(samples.of("image", "train"))
    assert [rows.names[c] for c in rows.of_class] == [classes[i] for i in train]
    number = train[5]
    files = harvest.store.select("tokens", 2, "image").files
    (block,) = blocks(harvest.store, files, "tokens", np.arange(len(table)) == number)
    own = rows.data.train.x[rows.data.train.image == 5]
    torch.testing.assert_close(own, block.x.float())
    few = read_rows(found, place(folder / "ws"), harvest, 2, 20)
    assert few.data.train.n_images == 20
    assert set(few.activations) == {"image", "text"}


def test_saes_of_one_name_but_their_seed_are_one_group(recipe, tmp_path):
    folder, found = recipe
    harvest = harvested(found, place(folder / "ws"))
    sae = saelens.read(place(folder / "sae"))
    for name in ("top-4-s0", "top-4-s1", "top-8-s0"):
        saelens.write(place(tmp_path / name), sae)
    groups = find_saes(place(folder / "ws"), harvest.store, 2, [str(path) for path in sorted(tmp_path.iterdir())])
    assert {stem: list(own) for stem, own in groups.items()} == {"top-4": ["top-4-s0", "top-4-s1"], "top-8": ["top-8-s0"]}


def test_outcomes_are_those_of_cases_that_every_direction_has():
    """Three cases; of the second one direction has no verdict."""
    rows = [
        ("a", "b", "x", "k0", 1.0), ("a", "b", "y", "k0", 0.0), ("b", "a", "z", "k0", 1.0),
        ("a", "b", "x", "k1", 0.0), ("a", "b", "y", "k1", None), ("b", "a", "z", "k1", 0.0),
    ]  # fmt: skip
    frame = pl.DataFrame(rows, ["source", "target", "sample_id", "direction", "value"], orient="row")
    frame = frame.with_columns(measure=pl.lit("success"), edit=pl.lit("add"))
    cases, found = outcomes(frame, ["k1", "k0"])
    assert found.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert (cases.source.tolist(), cases.target.tolist(), cases.image.tolist()) == ([0, 1], [1, 0], [0, 1])
    with pytest.raises(RecipeError, match="names no image"):
        outcomes(frame.filter(pl.col("direction") == "k0"), ["k0", "k1"])


def test_a_given_direction_is_added_as_it_is():
    edit = GivenDirections({("k", "a", "b"): torch.tensor([0.0, 3.0])}).edit("add", "k", 1.5, "image", 2, "a", "b")
    assert edit(torch.tensor([[1.0, 1.0]])).tolist() == [[1.0, 5.5]]  # pyright: ignore[reportCallIssue]


def test_a_verdict_names_the_nearest_control_and_those_that_are_not_beaten():
    def row(measure: str, sae: str, apart: Interval | None) -> PanelRow:
        return PanelRow(measure, sae, Interval(0.5, 0.4, 0.6), 1, 0.5, 0.5, apart)

    rows = [
        row("m", "own", None),
        row("m", "isotropic", Interval(0.3, 0.2, 0.4)),
        row("m", "exemplars", Interval(0.1, -0.1, 0.3)),
    ]
    (line,) = verdicts(rows, ["m"])
    assert line == "  m: not shown to be better than exemplars; nearest is exemplars: +0.10 [-0.10, +0.30]"
    fewer = [row("latents_needed_class", "own", None), row("latents_needed_class", "isotropic", Interval(-3.0, -4.0, -2.0))]
    assert verdicts(fewer, ["latents_needed_class"])[0].startswith("  latents_needed_class: better than every control")


def test_the_judged_sae_is_apart_from_nobody_but_its_controls():
    from linrep.sae.panel.intervals import Resampled

    one = Resampled(np.array([0.5]), np.full((1, 10), 0.5))
    other = Resampled(np.array([0.2]), np.full((1, 10), 0.2))
    own, control = rows_of({"m": {"own": one, "control": other}}, "own")
    assert own.apart is None
    assert control.apart is not None
    assert control.apart.value == pytest.approx(0.3)
