"""The steering page: shards hold every answer once, sliders step through what was run, and an address reproduces the view."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from linrep.explorer.site.steering import answer_shard, example
from schemas.steering import VERDICTS
from tests.explorer.site.evidence import HOSTILE, SAMPLES, drive, make_site, table, write_steering
from tests.explorer.site.planted import column, shard
from tests.pages import needs_chromium

KEY = "steering/demo"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("steering")
    write_steering(workspace)
    return make_site(workspace)


def key_of(site: Path) -> str:
    return next(one["key"] for one in shard(site, "site")["artefacts"] if one["stage"] == "steer")


def test_a_shard_holds_the_answers_of_one_pair_image_site_and_question(site: Path) -> None:
    about, own = shard(site, key_of(site)), shard(site, f"{key_of(site)}/1/0/image-0")
    directions = [one["name"] for one in about["directions"]]
    rows = zip(*(column(own[name]) for name in ("edit", "layer", "direction", "strength", "p_target", "left_alone")), strict=True)
    said = [
        (about["edits"][e], layer, None if d == 255 else directions[d], None if s == 255 else about["strengths"][s], p, n)
        for e, layer, d, s, p, n in rows
    ]
    assert own["n"] == 9  # 2 layers, 2 directions, 2 strengths; and one knock-out
    assert said[:2] == [("add", 0, "class_mean", 0.5, 0.25, 3), ("add", 0, "class_mean", 1.0, 0.25, 3)]
    assert said[5] == ("add", 1, "class_mean", 1.0, 0.75, 3)
    assert said[8] == ("zero", 1, None, None, 0.25, 0)
    assert column(own["text"]) == ["a car"] * 5 + ["a boat"] + ["a car"] * 2 + [HOSTILE]
    assert column(own["judged"][0]["score"]) == [-1.0] * 5 + [1.0] + [-1.0] * 2 + [0.0]
    assert own["plain"]["text"] == "a car"
    assert own["plain"]["p_target"] == 0.25


def test_long_answers_of_many_runs_share_the_room_of_a_shard() -> None:
    known = {"edits": ["add"], "directions": [{"name": "random"}], "strengths": [1.0]}
    kinds: dict[str, Any] = dict.fromkeys(("site", "edit", "direction", "error", "text"), pl.String)
    kinds |= {"layer": pl.Int32, "n_high_norm": pl.Int32, "p_target": pl.Float64, "strength": pl.Float64}
    for n, most in ((100, 400), (1000, 250), (20_000, 40)):
        rows = [
            {"site": "last", "layer": i, "edit": "add", "direction": "random", "strength": 1.0, "text": f"{i:06d}" * 200}
            for i in range(n)
        ]
        own = answer_shard(pl.DataFrame(rows, kinds), "last", known, 0)
        assert {len(text) for text in own["text"]["texts"]} == {most + 1}
        assert len(own["text"]["texts"]) == n


def test_effects_stand_by_site_and_measure_with_the_unedited_value(site: Path) -> None:
    about = shard(site, key_of(site))
    (judge,) = about["judges"]
    own = shard(site, f"{key_of(site)}/judge-0/image-{judge['measures'].index('turned')}")
    assert column(own["value"]) == [0, 0, 0, 0, 0, 0.75, 0, 0]
    assert column(own["low"])[5] == 0.5
    assert column(own["high"])[5] == 1.0
    assert own["plain"] == {"value": 0.0, "low": None, "high": None}
    assert [judge["best"][name] for name in ("site", "layer", "direction", "strength")] == ["image", 1, "class_mean", 1.0]
    assert about["lens"][0]["y"] == [0.25, 0.5]
    assert about["unit"] == "of the pair's mean difference"


def test_the_example_is_one_that_the_best_cell_turned() -> None:
    cell = {"site": "image", "layer": 1, "direction": "class_mean", "strength": 1.0}
    rows = [
        {"source": "boat", "target": "car", "sample_id": sample, **cell, "edit": "add", "question": 0, "about": "class",
         "text": "x", "plain": "y", "score": score}
        for sample, score in (("one", -1.0), ("two", 1.0))
    ]  # fmt: skip
    pairs = [("tree", "cup", ["three"]), ("boat", "car", ["one", "two"])]
    assert example(table(rows, VERDICTS), cell, pairs) == (1, 1)
    assert example(table(rows[:1], VERDICTS), cell, pairs) == (1, 0)
    assert example(table(rows, VERDICTS), None, pairs) is None


def test_runs_that_no_judge_has_read_have_a_page(tmp_path: Path) -> None:
    write_steering(tmp_path)
    (judged,) = (tmp_path / "steering").glob("*/judged/*/manifest.json")
    judged.unlink()
    site = make_site(tmp_path)
    about = shard(site, key_of(site))
    assert about["judges"] == []
    assert shard(site, f"{key_of(site)}/0/0/image-0")["judged"] == []


STEP = """
  var before = page.querySelector('[aria-pressed="true"]').textContent;
  var ranges = page.querySelectorAll('input[type="range"]');
  ranges[0].value = 0;
  ranges[0].dispatchEvent(new Event("input", { bubbles: true }));
  await wait(300);
  var after = page.querySelector('[aria-pressed="true"]').textContent;
  var labels = Array.from(ranges, function (one) { return one.closest("label").textContent; });
  var heads = page.querySelectorAll("table").length === page.querySelectorAll("table thead").length;
  return { before: before, after: after, labels: labels, title: document.title, heads: heads, images: document.images.length,
           dose: page.querySelectorAll("svg.chart").length, body: page.textContent };
"""


@pytest.mark.slow
@needs_chromium
def test_the_sliders_step_through_what_was_run_and_no_answer_becomes_markup(site: Path, tmp_path: Path) -> None:
    found = drive(site, tmp_path, "#/steering", STEP)
    value = found["value"]
    assert found["errors"] == []
    assert "a car" in value["before"]
    assert "turned to car" in value["before"]
    assert "a boat" in value["after"]
    assert "still boat" in value["after"]
    assert value["labels"] == ["Layer 0", "Strength 1 × the pair's mean difference"]
    assert "layer=0" in found["hash"]
    assert "strength=1" in found["hash"]
    assert value["heads"]
    assert value["dose"] >= 4
    assert HOSTILE in drive(site, tmp_path, "#/steering?layer=1", "return page.textContent;")["value"]
    assert value["title"].startswith("Steering")
    assert value["images"] == 0


VIEW = """
  return { pressed: page.querySelector('[aria-pressed="true"]').dataset.cell,
           chosen: Array.from(page.querySelectorAll("select"), function (one) { return one.selectedOptions[0].textContent; }),
           beside: page.querySelector("table").textContent };
"""


@pytest.mark.slow
@needs_chromium
def test_an_address_reproduces_the_view(site: Path, tmp_path: Path) -> None:
    sample = SAMPLES[1].replace("/", "%2F").replace(" ", "%20")
    found = drive(
        site,
        tmp_path,
        f"#/steering?source=car&target=boat&sample={sample}&layer=1&strength=0.5&direction=random&measure=damage",
        VIEW,
    )
    assert found["errors"] == []
    assert found["value"]["pressed"] == "effect 1 0"
    assert {"car → boat", f"2: {SAMPLES[1]}", "random (control)", "damage"} <= set(found["value"]["chosen"])
    assert "Layer 1, strength 0.5" in found["value"]["beside"]
