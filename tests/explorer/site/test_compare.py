"""The comparing page: rows that may be subtracted, differences with their intervals, and no claim that these do not carry."""

from pathlib import Path
from urllib.parse import quote

import polars as pl
import pytest

from linrep.explorer.site.compare import BINS, best_latents, distributions
from linrep.explorer.site.measured import of_quality, of_scores
from linrep.stats.wilson import of_sum
from schemas.features import FEATURE_LABELS
from schemas.interpret import SCORES
from schemas.saes import QUALITY
from tests.explorer.site.evidence import drive, make_site, table, write_saes, write_steering
from tests.explorer.site.planted import column, shard
from tests.pages import needs_chromium


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("compare")
    write_saes(workspace)
    write_steering(workspace)
    return make_site(workspace)


def test_quartiles_are_no_intervals_and_counts_are_no_quantities() -> None:
    rows = [
        {"layer": 2, "sae": "a", "modality": "both", "measure": measure, "value": 3.0, "low": 2.0, "high": 4.0}
        for measure in ("kl_spliced", "latents_needed_0.8/class", "n_texts", "ce", "ce_zero", "ce_spliced", "kl_resample")
    ]
    found = of_quality(table(rows, QUALITY))
    assert found["curve"].to_list() == ["kl_spliced, both: a", "latents_needed_0.8/class, both: a"]
    assert found["low"].to_list() == [2.0, None]
    assert found["high"].to_list() == [4.0, None]


def test_mean_scores_stand_beside_those_of_random_directions() -> None:
    def row(sae: str, latent: int, value: float) -> dict[str, object]:
        which = {
            "layer": 4,
            "sae": sae,
            "latent": latent,
            "modality": "image",
            "task": "detection",
            "control": "own",
            "source": "x",
        }
        counts = dict.fromkeys(("n_positive", "n_negative"), 10) | dict.fromkeys(("n_hard", "n_unanswered"), 0)
        return {**which, "value": value, **counts}

    rows = [row("a", 0, 0.5), row("a", 1, 1.0), row("a/random", 0, 0.25)]
    (found,) = of_scores(table(rows, SCORES), named=False).to_dicts()
    assert (found["curve"], found["value"], found["control"]) == ("explanations: detection in image", 0.75, 0.25)
    assert found["low"] < 0.75 < found["high"]


def test_the_best_latent_of_a_label_is_chosen_on_the_half_that_is_not_shown() -> None:
    def row(latent: int, chosen: float, f1: float) -> dict[str, object]:
        which = {"layer": 0, "sae": "a", "latent": latent, "modality": "image", "attribute": "class", "value": "boat"}
        return {**which, "threshold": 1.0, "f1_chosen": chosen, "f1": f1, "n": 5}

    (best,) = best_latents(table([row(0, 0.5, 0.9), row(1, 0.75, 0.25)], FEATURE_LABELS), {1: {"explanation": "boats"}})
    assert (best["latent"], best["f1"], best["explanation"]) == (1, 0.25, "boats")


def test_distributions_leave_out_what_never_fires() -> None:
    own = pl.DataFrame(
        {"latent": [0, 1, 2], "samples_image": [1, 1, 0], "samples_text": [0, 0, 0], "modality_score": [0.0, 1.0, 0.5]},
    ).with_columns(**{name: pl.lit(None, pl.Float64) for name in ("f1", "monosemanticity", "uniqueness")})
    (found,) = distributions(own, {})
    assert found == {"name": "modality score", "n": 2, "shares": [0.5, *[0.0] * (BINS - 2), 0.5]}
    assert distributions(own.filter(pl.col("latent") == 2), {}) == []  # not one latent is alive


def test_a_recipe_has_the_numbers_of_its_verdicts_and_evaluations(site: Path) -> None:
    (recipe,) = shard(site, "compare")["recipes"]
    stages = {one["stage"]: one["shard"] for one in recipe["stages"]}
    assert list(stages) == ["steer", "sae"]
    steered = shard(site, stages["steer"])
    rows = list(
        zip(
            column(steered["columns"]["curve"]),
            column(steered["columns"]["layer"]),
            column(steered["columns"]["at"]),
            strict=True,
        )
    )
    at = rows.index(("turned at image: add, class_mean", 1.0, 1.0))
    assert [column(steered["columns"][name])[at] for name in ("value", "low", "high")] == [0.75, 0.5, 1.0]


VIEW = """
  var rows = Array.from(page.querySelectorAll(".grid tbody tr[data-row]"), function (row) {
    return Array.from(row.querySelectorAll("td"), function (cell) { return cell.textContent; });
  });
  return { rows: rows, charts: page.querySelectorAll("svg.chart").length,
           heads: Array.from(page.querySelectorAll("h2"), function (one) { return one.textContent; }) };
"""


@pytest.mark.slow
@needs_chromium
def test_differences_have_intervals_and_claim_nothing_without(site: Path, tmp_path: Path) -> None:
    left, right = (quote(one["key"], safe="") for one in shard(site, "compare")["saes"][:2])
    found = drive(site, tmp_path, f"#/compare?what=sae&left={left}&right={right}", VIEW)
    assert found["errors"] == []
    rows = {row[0]: row[1:5] for row in found["value"]["rows"]}
    low, high = of_sum([(1.0, 0.9, 0.8, 0.95), (-1.0, 0.5, 0.4, 0.55)])
    difference = f"0.40 [{low:.2f}, {high:.2f}]"
    assert difference == "0.40 [0.29, 0.51]"  # 0.4 -+ sqrt(0.1 ** 2 + 0.05 ** 2)
    assert rows["ce_recovered, both"] == ["0.50 [0.40, 0.55]", "0.90 [0.80, 0.95]", difference, "right is higher"]
    assert rows["kl_spliced, both"] == ["0.50 [0.40, 0.60]", "0.50 [0.40, 0.60]", "0 [-0.14, 0.14]", "no difference shown"]
    assert rows["fvu, image"][2:] == ["-0.25", "no interval: not decided"]
    assert rows["latents_needed_0.8/class, image"] == ["3", "3", "0", "equal"]
    assert found["value"]["heads"][:2] == ["Left: topk-8, layer 0", "Right: topk-16, layer 0"]


@pytest.mark.slow
@needs_chromium
def test_two_layers_are_compared_at_the_stage_of_the_address(site: Path, tmp_path: Path) -> None:
    found = drive(site, tmp_path, "#/compare?what=layer&left=0&right=1&stage=steer&q=turned", VIEW)
    assert found["errors"] == []
    assert found["value"]["charts"] == 1
    rows = {(row[0], row[1]): row[2:6] for row in found["value"]["rows"]}
    assert len(rows) == 4  # the search leaves damage out
    assert rows["turned at image: add, class_mean", "1"][2:] == ["0.75 [0.40, 1.10]", "right is higher"]
    assert rows["turned at image: add, random", "1"][3] == "no difference shown"
