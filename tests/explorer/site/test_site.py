"""The site in a real browser, opened from disk: tables, heat maps, addresses, hostile data, small screens, keyboards."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from linrep.explorer.site.build import NAV
from linrep.sample import Sample
from linrep.vlm.prepare import Preparer
from tests.explorer.site.painted import (
    BOX,
    HOSTILE,
    OBJECT,
    SIZES,
    encoded,
    example,
    go,
    make,
    opened,
    write_explanations,
    write_features,
    write_harvest,
)
from tests.pages import needs_chromium

pytestmark = [pytest.mark.slow, needs_chromium]
LATENT = "latents/t-{}/sae-00"


def seen_by_the_model(kind: str, config) -> list[tuple[int, int, int, float]]:
    """Patches whose pixels, as the model's own processor cut them, are mostly the object's: tile, row, column, share."""
    prepared = Preparer.from_path(config)(Sample(kind, "c", "image", "u", "train", image=encoded(kind)))
    card, found = Preparer.from_path(config).card, []
    side, pixels = card.tile_size // card.patch_size, np.moveaxis(prepared.pixels, 1, -1)
    # Rows and columns of the crops count from the first patch that the model keeps.
    crops = [(r, c) for t, r, c in zip(prepared.tile, prepared.row, prepared.col, strict=True) if t > 0]
    wide = {2: 1, 3: 2 if SIZES[kind][1] > SIZES[kind][0] else 1}[len(pixels)]
    high = (len(pixels) - 1) // wide
    first = (high * side - 1 - max(r for r, _ in crops)) // 2, (wide * side - 1 - max(c for _, c in crops)) // 2
    for tile, row, col in zip(prepared.tile.tolist(), prepared.row.tolist(), prepared.col.tolist(), strict=True):
        if tile < 0:
            continue
        down, across = (row, col) if tile == 0 else ((row + first[0]) % side, (col + first[1]) % side)
        p = card.patch_size
        patch = pixels[tile, down * p : (down + 1) * p, across * p : (across + 1) * p].astype(int)
        share = float((np.abs(patch - OBJECT).sum(-1) < 120).mean())
        if share > 0.5:
            found.append((tile, row, col, share))
    return found


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[Path, str]:
    """A site of 131,072 latents, the first of which fires on the object; and the SAE's key."""
    from linrep.demo import model_folder
    from linrep.vlm.config import ModelConfig

    workspace = tmp_path_factory.mktemp("w") / "what? a 100% \u202e<place>"
    write_harvest(workspace)
    config = ModelConfig(path=str(model_folder()))
    features = write_features(workspace, 131_072, [example(0, kind, seen_by_the_model(kind, config)) for kind in SIZES])
    write_explanations(workspace, features)
    make(workspace)
    return workspace / "explorer", LATENT.format(features.digest)


@pytest.fixture(scope="module")
def browser(planted) -> Iterator:
    with opened() as (page, said):
        yield page, said


def addresses(key: str) -> list[str]:
    return [*(f"#/{page}" for page, _ in NAV), f"#/latent?sae={key}&latent=0", f"#/latents?sae={key}&q=boat", "#/search?q=boat",
            "#/nothing", "#/latent?latent=x"]  # fmt: skip


def test_every_page_loads_without_a_complaint_and_hostile_data_stays_text(planted, browser):
    site, key = planted
    page, said = browser
    for address in [*addresses(key), f"#/latent?sae={key}&latent=1", f"#/latent?sae={key}&latent=4"]:
        go(page, site, address)
        assert said == [], address
        assert page.evaluate("window.broken === undefined")
        assert page.evaluate("document.querySelectorAll('main script, main b, main img[src=x]').length") == 0
        assert page.locator("h1").count() == 1
    go(page, site, f"#/latent?sae={key}&latent=0")
    assert HOSTILE[0] in page.locator("main").inner_text()


def test_no_page_but_the_table_loads_more_than_a_megabyte(planted, browser):
    site, key = planted
    page, _ = browser
    sizes: list[int] = []
    page.on("requestfinished", lambda request: sizes.append(Path(unquote(urlsplit(request.url).path)).stat().st_size))
    for address in addresses(key):
        sizes.clear()
        go(page, site, address)
        if not address.startswith("#/latents"):
            assert sum(sizes) < 1_000_000, address


def test_the_table_of_131072_latents_opens_and_sorts_at_once(planted, browser):
    site, key = planted
    page, _ = browser
    go(page, site, "#/overview")
    script = "new Promise(d => { const t = performance.now(); location.hash = '#/latents?sae=%s'; const look = () => "
    script += "document.querySelector('.grid tbody tr[data-row]') ? d(performance.now() - t) : setTimeout(look, 5); look(); })"
    opening = page.evaluate(script % key)
    assert opening < 2000
    for head in ("F1", "modality", "explanation", "best label"):
        press = (
            f"() => {{ const b = [...document.querySelectorAll('.grid th button')].find(x => x.textContent.startsWith('{head}'));"
        )
        took = page.evaluate(press + " const t = performance.now(); b.click(); return performance.now() - t; }")
        assert took < 300, head
    took = page.evaluate(
        "() => { const i = document.querySelector('input[type=search]'); i.value = 'thing 77'; const t = performance.now();"
        " i.dispatchEvent(new Event('input')); return performance.now() - t; }"
    )
    assert took < 300
    n = sum("77" in f"thing {i % 999}" for i in range(131_072))
    assert page.locator("[role=status]").inner_text().startswith(f"{n:,} of 131,072 latents")


def test_rows_are_sorted_filtered_and_remembered_in_the_address(planted, browser):
    site, key = planted
    page, _ = browser
    go(page, site, f"#/latents?sae={key}&silent=1&q=thing 7&sort=f1&descending=1")
    column = [page.locator(f".grid tbody tr[data-at='{i}'] td").all_inner_texts() for i in range(5)]
    heads = [text.rstrip(" ▾▴") for text in page.locator(".grid thead th").all_inner_texts()]
    latents = [int(row[0].replace(",", "")) for row in column]
    n = 131_072
    wanted = [i for i in range(n) if "7" in f"thing {i % 999}"]
    wanted.sort(key=lambda i: -np.float32((i * 7919 % n) / n))
    assert latents == wanted[:5]
    assert all(row[heads.index("F1")] == f"{(i * 7919 % n) / n:.2f}" for i, row in zip(wanted[:5], column, strict=True))
    page.get_by_role("button", name="AUROC").click()
    page.get_by_role("button", name="AUROC").click()
    address = page.evaluate("location.hash")
    assert "sort=auroc" in address
    first = page.locator(".grid tbody tr[data-at='0']").inner_text()
    go(page, site, address)
    assert page.locator(".grid tbody tr[data-at='0']").inner_text() == first


def test_the_keyboard_walks_the_table_and_opens_a_latent(planted, browser):
    site, key = planted
    page, _ = browser
    go(page, site, f"#/latents?sae={key}&sort=score&descending=1")
    page.locator(".grid tbody tr[data-at='0']").focus()
    for press in ("ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(press)
    assert page.evaluate("document.activeElement.getAttribute('data-at')") == "1"
    page.keyboard.press("End")
    assert int(page.evaluate("document.activeElement.getAttribute('data-at')")) == 131_071
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Latent 5')")


def test_from_the_overview_one_search_finds_the_latent(planted, browser):
    site, _ = planted
    page, _ = browser
    go(page, site, "#/overview")
    page.get_by_role("searchbox").fill("yellow")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Search')")
    page.get_by_role("link", name="5", exact=True).first.click()
    page.wait_for_selector("h1:has-text('Latent 5')")
    assert "yellow boats on water" in page.locator("main").inner_text()


@pytest.mark.parametrize("view", ["base", "crops"])
@pytest.mark.parametrize("kind", list(SIZES))
def test_heat_lies_on_the_object(planted, browser, kind, view):
    """What the overlay changes on the screen lies in the object's box, but for patches on its edge, and covers most of it."""
    site, key = planted
    page, _ = browser
    go(page, site, f"#/latent?sae={key}&latent=0&view={view}")
    place = page.locator(".pictures:not(.strip) .picture").nth(list(SIZES).index(kind))
    place.evaluate("e => e.querySelector('img').decode()")
    place.evaluate("e => { e.style.width = '400px'; e.id = 'looked-at'; document.querySelector('main').prepend(e); }")
    place = page.locator("#looked-at")
    shown = [np.asarray(Image.open(io.BytesIO(place.screenshot())).convert("RGB")).astype(int)]
    place.evaluate("e => { e.querySelector('svg').style.display = 'none'; }")
    shown.append(np.asarray(Image.open(io.BytesIO(place.screenshot())).convert("RGB")).astype(int))
    heat = np.abs(shown[0] - shown[1]).sum(-1) > 30
    height, width = heat.shape
    assert width / height == pytest.approx(SIZES[kind][1] / SIZES[kind][0], rel=0.02)
    left, top, right, bottom = (round(share * side) for share, side in zip(BOX, (width, height) * 2, strict=True))
    inside = np.zeros_like(heat)
    inside[top:bottom, left:right] = True
    assert (heat & inside).sum() / inside.sum() > 0.6
    assert (heat & inside).sum() / heat.sum() > 0.7
    # A patch that is half the object reaches half a patch beyond it: of the base view a twelfth of the image.
    reach = [int(side / 12) + 2 for side in (height, width)]
    wide = np.zeros_like(heat)
    wide[max(0, top - reach[0]) : bottom + reach[0], max(0, left - reach[1]) : right + reach[1]] = True
    assert heat[~wide].sum() == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(planted, dark):
    site, key = planted
    with opened(dark=dark) as (page, _):
        for address in addresses(key):
            go(page, site, address)
            found = Axe().run(page).response["violations"]
            serious = [
                f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], address


def test_a_small_screen_needs_no_scrolling_sideways(planted):
    site, key = planted
    with opened(width=380) as (page, said):
        for address in addresses(key):
            go(page, site, address)
            assert page.evaluate("document.documentElement.scrollWidth") <= 380, address
        assert said == []


@pytest.mark.parametrize("what", ["harvest alone", "no latent fires", "one latent", "nothing explained"])
def test_pages_show_partial_results(tmp_path, what):
    write_harvest(tmp_path)
    if what != "harvest alone":
        features = write_features(tmp_path, 1 if what == "one latent" else 40, alive=what != "no latent fires")
        key = LATENT.format(features.digest)
    else:
        key = "x"
    make(tmp_path)
    with opened() as (page, said):
        for address in addresses(key):
            go(page, tmp_path / "explorer", address)
            assert said == [], address
            assert page.locator("h1").count() == 1


def test_a_second_call_finds_the_site_and_another_result_makes_it_anew(tmp_path):
    write_harvest(tmp_path)
    assert make(tmp_path).new
    assert not make(tmp_path).new
    write_features(tmp_path, 3)
    assert make(tmp_path).new
    index = (tmp_path / "explorer/index.html").read_text()
    assert "Content-Security-Policy" in index
    assert not re.search(r"<script>|<style|\bon\w+=|https?:", index)
    made = json.loads((tmp_path / "explorer/made.json").read_text())
    assert made["files"] > 10
