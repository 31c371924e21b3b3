"""Pages of evidence in workspaces that hold little: each says what is missing, and none fails."""

from pathlib import Path

import pytest

from tests.explorer.site.evidence import drive, make_site, write_saes, write_steering
from tests.pages import needs_chromium

WALK = """
  var found = {};
  for (var address of ["steering", "saes", "compare?what=sae", "compare?what=layer", "compare?what=recipe"]) {
    location.hash = "#/" + address;
    do { await wait(60); } while (document.getElementById("main").getAttribute("aria-busy") === "true");
    var main = document.getElementById("main");
    var trouble = Array.from(main.querySelectorAll("[role=alert]"), function (one) { return one.textContent; });
    found[address] = { text: main.textContent, trouble: trouble };
  }
  return found;
"""
ABSENT = {
    "steering": "Nothing was steered",
    "saes": "No SAE was trained",
    "compare?what=sae": "no SAE yet",
    "compare?what=layer": "No stage has numbers",
    "compare?what=recipe": "no recipe with results yet",
}


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("held", ["nothing", "unevaluated", "unjudged"])
def test_each_page_says_what_is_missing(held: str, tmp_path: Path) -> None:
    expected = dict(ABSENT)
    if held == "unevaluated":
        write_saes(tmp_path, evaluated=False)
        expected |= {
            "saes": "not evaluated yet",
            "compare?what=sae": "Nothing is measured of these",
            "compare?what=layer": "no numbers by layer",
        }
        expected |= {"compare?what=recipe": "This workspace has one recipe"}
    if held == "unjudged":
        write_steering(tmp_path)
        (judged,) = (tmp_path / "steering").glob("*/judged/*/manifest.json")
        judged.unlink()
        expected |= {"steering": "No judge has read these answers", "compare?what=layer": "no numbers by layer"}
        expected |= {"compare?what=recipe": "This workspace has one recipe"}
    found = drive(make_site(tmp_path), tmp_path, "#/search", WALK)
    assert found["errors"] == []
    for address, page in found["value"].items():
        assert page["trouble"] == []
        assert expected[address] in page["text"], (address, page["text"][:600])
