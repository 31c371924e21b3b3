"""The SAEs' page: each layer's shard holds what was measured there, and every SAE of a workspace is known once."""

from pathlib import Path

import pytest

from linrep.explorer.site.results import open_results
from linrep.explorer.site.saes import REPORTS, curves, named_saes, training
from linrep.places import place
from schemas.saes import QUALITY, TRAINING
from tests.explorer.site.evidence import HOSTILE, drive, make_site, table, write_saes
from tests.explorer.site.planted import column, shard
from tests.pages import needs_chromium


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("saes")
    write_saes(workspace)
    return make_site(workspace)


def key_of(site: Path) -> str:
    return next(one["key"] for one in shard(site, "site")["artefacts"] if one["stage"] == "sae")


def test_a_layers_shard_holds_its_quality_and_no_other_layers(site: Path) -> None:
    (evaluation,) = shard(site, key_of(site))["evaluations"]
    own = shard(site, f"{evaluation['key']}/layer-1")["quality"]
    assert own["n"] == 12
    assert column(own["columns"]["layer"]) == [1.0] * 12
    assert column(own["columns"]["measure"])[:2] == ["fvu", "l0"]
    assert column(own["columns"]["value"])[:2] == [0.5, 8.0]
    assert column(own["columns"]["control"])[2] is None
    truth = shard(site, f"{evaluation['key']}/layer-1-truth-1")
    assert column(truth["columns"]["class_name"]) == ["boat", HOSTILE]
    assert column(truth["columns"]["latent"]) == [7.0, 7.0]


def test_curves_run_over_layers_with_intervals_and_controls() -> None:
    rows = [
        {"layer": layer, "sae": "a", "modality": "text", "measure": "fvu", "value": layer / 8, "control": 1.0} for layer in (3, 1)
    ]
    rows.append({"layer": 1, "sae": "a", "modality": "text", "measure": "cosine", "value": 0.5})
    (curve,) = curves(table(rows, QUALITY))
    assert curve == {
        "measure": "fvu", "modality": "text", "sae": "a", "x": [1, 3], "y": [0.125, 0.375], "low": [None, None],
        "high": [None, None], "control": [1.0, 1.0],
    }  # fmt: skip


def test_a_long_training_is_thinned_evenly_and_keeps_both_ends() -> None:
    rows = [{"layer": 0, "sae": "a", "step": step, "measure": "loss", "value": float(step)} for step in range(1000)]
    (curve,) = training(table(rows, TRAINING))
    steps = [after - before for before, after in zip(curve["x"], curve["x"][1:], strict=False)]
    assert len(curve["x"]) == REPORTS
    assert (curve["x"][0], curve["x"][-1]) == (0, 999)
    assert set(steps) == {8, 9}
    assert curve["y"] == [float(step) for step in curve["x"]]


def test_saes_that_are_not_evaluated_are_listed_and_have_a_page(tmp_path: Path) -> None:
    write_saes(tmp_path, evaluated=False)
    site = make_site(tmp_path)
    assert shard(site, key_of(site))["evaluations"] == []
    saes = named_saes(open_results(place(tmp_path)))
    assert [(one.layer, one.name) for one in saes] == [(0, "topk-8"), (0, "topk-16"), (1, "topk-8"), (1, "topk-16")]
    assert all(one.evaluation is None and one.latents is None for one in saes)
    assert len(shard(site, f"{key_of(site)}/training-0")[0]["x"]) == REPORTS


VIEW = """
  return { heads: Array.from(page.querySelectorAll("h2"), function (one) { return one.textContent; }),
           charts: page.querySelectorAll("svg.chart").length, images: document.images.length,
           front: page.querySelector("figure table").textContent, body: page.textContent };
"""


@pytest.mark.slow
@needs_chromium
def test_the_page_shows_the_layer_of_the_address(site: Path, tmp_path: Path) -> None:
    found = drive(site, tmp_path, "#/saes?layer=1&sae=topk-16", VIEW)
    assert found["errors"] == []
    assert {"Sparsity against loss, layer 1", "Labels that latents separate: topk-16", "Training"} <= set(found["value"]["heads"])
    assert "trained in full80.50" in found["value"]["front"]
    assert "trained in full160.25" in found["value"]["front"]
    assert HOSTILE in found["value"]["body"]
    assert found["value"]["images"] == 0
