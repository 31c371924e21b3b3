"""The pages of curves in a browser, from disk: numbers, addresses, hostile names, and whatever is missing."""

from pathlib import Path
from typing import Any

import pytest

from linrep.explorer.site.build import build_site
from linrep.records import SUMMARY
from linrep.sharing.artefact import SHARING_KIND, SharingAbout
from linrep.sharing.trends import trends
from tests.explorer.site.evidence import drive
from tests.explorer.site.planted import HARVEST, planted_features, planted_probes, results, written
from tests.explorer.site.test_sharing_page import LATENTS, ROWS
from tests.pages import needs_chromium

pytestmark = [pytest.mark.slow, needs_chromium]

ABSENT = {
    "probes": "No probes were fitted in this workspace",
    "sharing": "was not measured in this workspace",
    "classes": "have no classes and no attributes",
    "class?attribute=class&value=boat": "names no value of an attribute",
}
SHOWN = {
    "probes": "Class of image samples",
    "probes?attribute=%3Cb%3Eground%3C%2Fb%3E": "2 classes",
    "sharing": "Rises from layer 0 to 4: 0.10 to 0.50, +0.40 [+0.39, +0.41]; beyond the untrained model +0.30 [+0.28, +0.32]",
    "sharing?level=latent": "The strongest bridges of layer 4",
    "classes": "3 of 3 values",
    "class?attribute=class&value=boat": "Latents that separate it",
    "class?attribute=class&value=key": "No SAE of this workspace was looked into",
}
OPEN = """
  async function open(address) {
    location.hash = "#/" + address;
    do { await wait(60); } while (document.getElementById("main").getAttribute("aria-busy") === "true");
    var main = document.getElementById("main");
    var trouble = main.querySelectorAll(".trouble:not([hidden])");
    return { main: main, trouble: Array.from(trouble, function (one) { return one.textContent; }) };
  }
"""
WALK = """
  var found = {};
  for (var address of ADDRESSES) {
    var page = await open(address);
    found[address] = { text: page.main.textContent, trouble: page.trouble, markup: page.main.querySelectorAll("b").length };
  }
  return found;
"""


def planted_sharing(workspace: Path) -> Any:
    tables = {"sharing": ROWS, "latents": LATENTS, "trends": trends([{"note": None, **one} for one in ROWS], [], 0)}
    return written(SHARING_KIND, workspace, SharingAbout({}, {"trained": 100}, ["boat"]), tables, {"harvest": HARVEST})


def made(workspace: Path, **found: Any) -> Path:
    """The site of these results."""
    build_site(results(workspace, **{stage: [one] for stage, one in found.items()}), dict, lambda name: name, "planted")
    return workspace / "explorer"


@pytest.mark.parametrize(
    ("stages", "expected"), [((), ABSENT), (("probe", "sharing", "features"), SHOWN)], ids=["nothing", "all"]
)
def test_pages_say_what_is_missing_and_show_what_is_there(tmp_path, stages, expected):
    plant = {"probe": planted_probes, "sharing": planted_sharing, "features": planted_features}
    there = {stage: plant[stage](tmp_path) for stage in stages}
    if there:
        (there["probe"].place / SUMMARY).write_bytes(b"Class of image samples is read.\n\n  numbers\n")
    site = made(tmp_path, **there)
    found = drive(site, tmp_path, "#/search", OPEN + WALK.replace("ADDRESSES", str(list(expected))))
    assert found["errors"] == []
    for address, page in found["value"].items():
        assert (page["trouble"], page["markup"]) == ([], 0), address
        assert expected[address] in page["text"], (address, page["text"][:800])


CHOOSE = """
  function chosen() {
    var selects = Array.from(document.querySelectorAll(".page select[name]"));
    return Object.fromEntries(selects.map(function (one) { return [one.name, one.value]; }));
  }
  function first() { return document.querySelector("svg.chart circle title").textContent; }
  function cell() { return document.querySelector("table.matrix tbody tr:nth-child(2) td.cell"); }
  var found = { before: chosen(), number: first(), cell: cell().textContent, title: cell().title };
  found.link = document.querySelector("table.matrix tbody tr:nth-child(2) th a").getAttribute("href");
  var select = document.querySelector("select[name=kind]");
  select.focus();
  select.value = "lda";
  select.dispatchEvent(new Event("change"));
  while (!first().startsWith("lda")) { await wait(20); }
  found.focus = document.activeElement.name;
  var search = document.querySelector("input[type=search]");
  search.value = "sparse";
  search.dispatchEvent(new Event("input"));
  Array.from(document.querySelectorAll(".grid thead button")).find(function (one) { return one.textContent === "top1"; }).click();
  found.address = location.hash.slice(2);
  found.text = document.getElementById("main").innerText;
  found.rows = document.querySelectorAll(".grid tbody tr[data-row]").length;
  await open("classes");
  await open(found.address);
  return Object.assign(found, { after: chosen(), again: document.getElementById("main").innerText });
"""


def test_a_choice_stands_in_the_address_which_shows_the_same_again(tmp_path):
    site = made(tmp_path, probe=planted_probes(tmp_path))
    found = drive(site, tmp_path, "#/probes", OPEN + CHOOSE)
    assert found["errors"] == []
    seen = found["value"]
    assert seen["before"] == {"attribute": "class", "view": "pooled", "on": "image", "kind": "ridge", "layer": "2"}
    assert seen["number"] == "ridge, layer 0: 0.80 [0.70, 0.90]"
    assert (seen["cell"], seen["title"], seen["link"]) == (
        "25",
        "tree read as boat: 2 of 8",
        "#/class?attribute=class&value=tree",
    )
    assert seen["focus"] == "kind"  # whoever chooses by keyboard goes on where they were
    assert seen["rows"] == 1
    chosen = "attribute=class&view=pooled&on=image&kind=lda&layer=2&q=sparse&sort=top1&descending=1"
    assert seen["address"] == f"probes?{chosen}"
    assert seen["after"] == {**seen["before"], "kind": "lda"}
    assert seen["again"] == seen["text"]
