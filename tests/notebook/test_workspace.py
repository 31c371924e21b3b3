"""A workspace as a notebook opens it: sheets hold the SAE's own activations, chosen latents are explained beside controls."""

import json

import numpy as np
import pytest
import yaml

import linrep
from linrep.errors import StoreError
from linrep.places import place
from linrep.sae.formats import saelens
from tests.chat import serving
from tests.interpret.test_job import answer
from tests.interpret.workspace import write_recipe


@pytest.fixture(scope="module")
def made(random_vlm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    return folder, write_recipe(folder, random_vlm)


@pytest.fixture
def ws(made):
    return linrep.open(made[0] / "ws")


def most_active(ws, modality: str) -> int:
    frame = ws.features.frame().filter(ws.features.frame()["sae"] == "sae")
    return int(frame.sort(f"samples_{modality}", descending=True)["latent"][0])


def test_a_sheet_shows_the_activations_that_the_sae_has_on_the_stored_rows(ws, made):
    latent, sae = most_active(ws, "image"), saelens.read(place(made[0] / "sae"))
    sheet = ws.features.sheet(latent, images=3, texts=3)
    assert 1 <= len(sheet.images) <= 3
    rows = ws.store.select("tokens", 2)
    frame, z = rows.polars(), sae.encode(rows.torch().float())[:, latent].numpy()
    values = dict(zip(zip(frame["sample_id"], frame["position"], strict=True), z.tolist(), strict=True))
    strongest = frame["sample_id"].to_numpy()[(frame["tile"].is_not_null()).to_numpy() & (z > 0)]
    assert {one.row["sample_id"] for one in sheet.images} <= set(strongest)
    for one in sheet.images:
        at = zip(one.row["positions"], one.row["tiles"], one.row["rows"], one.row["cols"], strict=True)
        patches = [position for position, tile, row, col in at if tile >= 0 and col >= 0 and row >= 0]
        expected = [values[one.row["sample_id"], position] for position in patches]
        assert one.sample.values == pytest.approx(expected, rel=1e-3)
        assert len(one.sample.boxes) == len(patches)
        encoded = np.asarray(one.sample)
        assert encoded.shape[:2] == (one.sample.facts["height"], one.sample.facts["width"])
    for one in sheet.texts:
        assert max(value or 0.0 for value in one.values) == pytest.approx(one.row["activation"], rel=1e-3)
    order = [one.row["activation"] for one in sheet.images]
    assert order == sorted(order, reverse=True)
    assert str(latent) in repr(sheet)


def test_images_are_those_of_the_store_and_a_wrong_name_is_said(ws):
    samples = ws.store.samples().to_pylist()
    row = next(row for row in samples if row["modality"] == "image")
    image = ws.store.image(row["sample_id"])
    assert image.image.size == (row["width"], row["height"])
    assert row["class_name"] in repr(image)
    assert image._repr_png_().startswith(b"\x89PNG")
    grid = tuple(int(n) for n in row["grid"].split("x"))
    assert len(image.patches("crops").boxes) == grid[0] * grid[1]
    text = next(row["sample_id"] for row in samples if row["modality"] == "text")
    for name, said in (("none", "no sample 'none'"), (text, "no image")):
        with pytest.raises(StoreError, match=said):
            ws.store.image(name)
    with pytest.raises(StoreError, match="it has 24 latents"):
        ws.features.sheet(24)


def test_chosen_latents_are_explained_and_scored_beside_their_controls(made, tmp_path):
    folder, recipe = made
    with serving() as server:
        server.script = [answer, answer]
        backend = recipe.interpret.backend.model_copy(update={"url": f"http://127.0.0.1:{server.server_port}/v1"})
        asking = recipe.model_copy(update={"interpret": recipe.interpret.model_copy(update={"backend": backend})})
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(asking.model_dump(mode="json")))
        ws = linrep.open(folder / "ws", recipe=str(file))
        latents = [most_active(ws, "text"), *(n for n in ws.features.frame().sort("samples_text")["latent"].tail(8).to_list())]
        chosen = list(dict.fromkeys(latents))[:2]
        found = ws.explain(latents=chosen)
        asked = len(server.asked)
        assert list(map(str, found.texts.values())) == [found[latent] for latent in chosen]
        assert ws.explain(latents=chosen).texts == found.texts
        assert len(server.asked) == asked  # kept replies are not asked for twice
    assert all(said.startswith("samples of kind") for said in found.texts.values())
    assert set(found.scores["latent"]) == set(chosen)  # the others are there for their explanations alone
    own = found.scores.filter(found.scores["control"] == "own")
    beside = found.scores.filter(found.scores["control"] == "shuffled")
    assert set(own["task"]) == {"detection", "fuzzing"}
    assert len(beside) == len(own)
    page = found._repr_html_()
    assert page.count("shuffled") == len(own)
    assert not (folder / "ws" / "interpretations").exists()


def test_a_workspace_says_what_it_holds_and_what_it_lacks(ws, tmp_path):
    assert "features   t-" in repr(ws)
    assert "make demo" in repr(linrep.open(tmp_path))
    with pytest.raises(StoreError, match=r"no probes at .*run jobs/probe\.py"):
        _ = ws.probes
    assert ws.features.search("tench church boat", n=3).frame.height <= 3
    assert "t-" in json.dumps(ws.features._repr_html_())
