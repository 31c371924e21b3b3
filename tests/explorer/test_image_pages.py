"""Pages of images: what they hold is what the SAE and the probes give on the store's rows, and a browser shows it."""

import json
import re
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pytest

from linrep.cluster.regions import label_plainly
from linrep.contents.stored import open_contents
from linrep.explorer.site.build import Limits, build_site
from linrep.explorer.site.results import open_results
from linrep.places import place
from linrep.reading.latents import NONE
from linrep.reading.read import Reader, ReadSae
from linrep.reading.stored import read_stored
from linrep.regions.artefact import finish, plan_regions
from linrep.regions.config import RegionsConfig
from linrep.regions.study import plan_study
from linrep.sae.formats import read as read_sae
from linrep.vlm.config import ModelConfig
from tests.pages import browse, needs_chromium
from tests.reading.workspace import write_recipe

DRIVE = Path(__file__).with_name("drive_image.js")


@pytest.fixture(scope="module")
def site(random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site of images")
    write_recipe(folder, random_vlm)
    write_regions(folder)
    results = open_results(place(folder / "ws"))
    contents = {key: open_contents(store) for key, store in results.harvests.items()}
    build_site(results, lambda: contents, lambda name: name, "t", Limits(latents=24, images=12))
    return folder / "ws" / "explorer"


def write_regions(folder: Path) -> None:
    """A boat on the left half of every image, and on it a crowd."""
    store = next(iter(open_results(place(folder / "ws")).harvests.values()))
    rows = [row for row in store.samples().to_pylist() if row["modality"] == "image"]
    held = {
        "images": [
            {"id": i, "file_name": row["uri"], "height": row["height"], "width": row["width"]} for i, row in enumerate(rows)
        ],
        "categories": [{"id": 0, "name": "<b>boat"}],
        "annotations": [
            {"image_id": i, "category_id": 0, "bbox": [0, 0, row["width"] / side, row["height"]], "iscrowd": int(side > 2)}
            for i, row in enumerate(rows)
            for side in (2, 4)
        ],
    }
    (folder / "c.json").write_text(json.dumps(held))
    config = RegionsConfig.model_validate({"source": {"path": str(folder / "c.json")}})
    study = plan_study(store, config, place(folder / "c.json"))
    here = plan_regions(place(folder / "ws"), "t", study).begun()
    list(label_plainly(study, here.todo(), here))
    here.closing(**finish(here, study)).close()


def shard(site: Path, name: str) -> dict:
    text = (site / "data" / f"{name}.js").read_text(encoding="ascii")
    return json.loads(text[text.index(",") + 1 :].rstrip(");\n"))


def test_a_page_holds_what_the_sae_gives_on_the_stores_rows(site):
    (own,) = shard(site, "site")["images"]
    listed = shard(site, own["key"])
    names = [one["name"] for one in listed["pictures"]]
    assert own["pages"] == len(names) == sum(listed["paged"]) == 12
    results = open_results(place(site.parent))
    (store,) = results.harvests.values()
    sae = read_sae(str(site.parent.parent / "sae"))
    live = dict(read_stored(store, names, Reader([ReadSae(2, "sae", sae)], n_latents=8)))
    labels = {row["sample_id"]: row for row in store.samples().to_pylist()}
    for i, name in enumerate(names):
        page, reading = shard(site, f"{own['key']}/{i}"), live[name]
        assert page["truth"]["class"] == page["facts"]["class"] == labels[name]["class_name"]
        data, strongest = page["data"], reading.fires[0].strongest
        at = {int(p): k for k, p in enumerate(reading.tokens.position)}
        n_read = 0
        for token, fires, active in zip(data["tokens"], data["saes"][0]["fires"], data["saes"][0]["active"], strict=True):
            k = at[token["position"]]
            if active < 0:
                assert token["kind"] == "prompt"
                continue
            n_read += 1
            assert active == int(strongest.n_active[k])
            assert fires[::2] == [latent for latent in strongest.latents[k].tolist() if latent != NONE]
            assert np.allclose(fires[1::2], strongest.values[k][: len(fires) // 2].numpy(), rtol=1e-3)
        assert n_read == int((reading.tokens.role == 2).sum()) > 0
        assert {one["attribute"] for one in data["probes"]} >= {"class"}
        assert all(str(latent) in data["about"][0] for row in data["saes"][0]["fires"] for latent in row[::2])


def test_captions_are_those_of_pairs_that_show_the_same_file(site):
    (own,) = shard(site, "site")["images"]
    pages = [shard(site, f"{own['key']}/{i}") for i in range(12)]
    pairs = {p["facts"]["file"].rsplit("/")[-1]: p["caption"] for p in pages}
    assert all((caption is not None) == (file in ("p000.JPEG", "p001.JPEG")) for file, caption in pairs.items())


def test_regions_are_outlines_the_largest_first(site):
    (own,) = shard(site, "site")["images"]
    boat, crowd = shard(site, f"{own['key']}/0")["data"]["regions"]
    assert (boat["category"], boat["left"], boat["top"]) == ("<b>boat", 0, 0)
    assert boat["outline"] == [[0, 0, 0.5, 0, 0.5, 1, 0, 1]]
    assert crowd["category"] is None
    assert crowd["outline"] == [[0, 0, 0.25, 0, 0.25, 1, 0, 1]]


@needs_chromium
@pytest.mark.slow
def test_the_address_reproduces_a_view_and_links_lead_to_latents(site, tmp_path):
    (own,) = shard(site, "site")["images"]
    name = shard(site, own["key"])["pictures"][2]["name"]
    page = shard(site, f"{own['key']}/2")
    number = next(i for i, token in enumerate(page["data"]["tokens"]) if token["kind"] == "patch")
    latent = page["data"]["saes"][0]["fires"][number][0]
    (site / "assets" / "drive.js").write_text(DRIVE.read_text())
    html = (site / "index.html").read_text()
    (site / "driven.html").write_text(html.replace("<script ", '<script src="assets/drive.js"></script>\n<script ', 1))
    address = (
        f"#/image?sample={quote(name, safe='')}&at={page['data']['tokens'][number]['position']}&by=0&latent={latent}&regions=1"
    )
    dom = browse((site / "driven.html").as_uri() + address, tmp_path, "--dump-dom")
    found = re.search(r"<title>seen ([^<]+)</title>", dom)
    assert found is not None, dom[:2000]
    seen = json.loads(unquote(found[1]))
    assert seen["errors"] == []
    assert seen["pressed"] == 1
    assert seen["hot"] >= 1
    assert f"latent={latent}" in seen["links"][0]
    assert re.search(r"#/latent\?sae=latents%2F", seen["links"][0])
    assert f"latent={latent}" in seen["address"]
    assert "at=" in seen["address"]
    assert seen["outlines"] == seen["stages"] * 4  # a dark and a light line of two regions, in each view
    assert seen["names"] == ["<b>boat", "unknown"] * seen["stages"]
    assert seen["checked"] is True
