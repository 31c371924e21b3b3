"""The pages of curves in a browser, from disk: numbers, addresses, hostile names, and whatever is missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linrep.explorer.site.build import build_site
from linrep.sharing.artefact import SHARING_KIND, SharingAbout
from tests.explorer.site.planted import HARVEST, planted_features, planted_probes, results, written
from tests.explorer.site.test_sharing_page import LATENTS, ROWS
from tests.pages import CHROMIUM, needs_chromium

PAGES = ("probes", "sharing", "sharing?level=latent", "classes", "class?attribute=class&value=boat")
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for all tests of this module."""
    with pytest.importorskip("playwright.sync_api").sync_playwright() as player:
        own = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield own
        own.close()


def sharing(workspace: Path) -> Any:
    tables = {"sharing": ROWS, "latents": LATENTS}
    return written(SHARING_KIND, workspace, SharingAbout({}, {"trained": 100}, ["boat"]), tables, {"harvest": HARVEST})


def built(workspace: Path, **found: Any) -> str:
    """The address of the site of these results."""
    made = build_site(results(workspace, **{stage: [one] for stage, one in found.items()}), dict, lambda name: name, "planted")
    return f"file://{made.index.path}"


def opened(browser: Any, address: str) -> tuple[Any, list[str]]:
    """A page that is shown, and what went wrong on it."""
    page, wrong = browser.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.wait_for_selector("main[aria-busy=false]")
    wrong += [one.text_content() for one in page.query_selector_all(".trouble:not([hidden])")]
    return page, wrong


STAGES = {"probe": planted_probes, "sharing": sharing, "features": planted_features}


@pytest.mark.parametrize("stages", [(), ("probe",), ("sharing",), ("features",), tuple(STAGES)], ids="+".join)
def test_pages_say_what_is_missing_and_show_what_is_there(tmp_path, browser, stages):
    there = built(tmp_path, **{stage: STAGES[stage](tmp_path) for stage in stages})
    for name in PAGES:
        page, wrong = opened(browser, f"{there}#/{name}")
        assert wrong == []
        assert page.query_selector("main h1") is not None
        stage = name.split("?")[0].removesuffix("s")
        if stage in ("probe", "sharing"):
            assert (page.query_selector("svg.chart") is not None) == (stage in stages)
        page.close()


def chosen(page: Any) -> dict[str, str]:
    return {one.get_attribute("name"): one.input_value() for one in page.query_selector_all(".page form select[name]")}


def test_a_choice_stands_in_the_address_which_shows_the_same_again(tmp_path, browser):
    page, _ = opened(browser, built(tmp_path, probe=planted_probes(tmp_path)) + "#/probes")
    assert chosen(page) == {"attribute": "class", "view": "pooled", "on": "image", "kind": "ridge", "layer": "2"}
    assert page.locator("svg.chart circle title").first.text_content() == "ridge, layer 0: 0.80 [0.70, 0.90]"
    page.focus("select[name=kind]")
    page.select_option("select[name=kind]", "lda")
    page.wait_for_function("location.hash.includes('kind=lda')")
    page.wait_for_function("document.querySelector('svg.chart circle title').textContent.startsWith('lda')")
    assert page.evaluate("document.activeElement.name") == "kind"  # whoever chooses by keyboard goes on where they were
    page.fill("input[type=search]", "sparse")
    page.wait_for_function("document.querySelectorAll('.grid tbody tr[data-row]').length === 1")
    page.click(".grid thead button >> text=/^top1/")
    again, wrong = opened(browser, page.url)
    assert wrong == []
    assert chosen(again) == chosen(page)
    assert again.inner_text("main") == page.inner_text("main")


def test_a_hostile_name_is_text_everywhere_and_its_links_lead_to_its_page(tmp_path, browser):
    page, wrong = opened(browser, built(tmp_path, probe=planted_probes(tmp_path)) + "#/probes")
    page.select_option("select[name=attribute]", "<b>ground</b>")
    page.wait_for_function("location.hash.includes('ground')")
    page.goto(page.url.split("#")[0] + "#/probes?attribute=class&kind=ridge&layer=2")
    page.wait_for_selector("table.matrix")
    cell = page.locator("table.matrix tbody tr").nth(1).locator("td.cell").nth(0)
    assert (cell.text_content(), cell.get_attribute("title")) == ("25", "tree read as boat: 2 of 8")
    page.click("table.matrix tbody th a >> text=tree")
    page.wait_for_selector("h1 >> text=tree")
    assert "read right" in page.inner_text("main")
    assert page.query_selector("main b") is None
    assert wrong == []
