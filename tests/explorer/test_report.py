"""A report says the same in both its forms; what others wrote is data in it; the page needs nothing else and runs nothing."""

import base64
import functools
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from PIL import Image

from linrep.explorer.claims import CLAIMS, Example, Finding, Thumbnail, report_of
from linrep.explorer.drawing import drawing, safe_svg
from linrep.explorer.escaped import code_in_html, in_html, in_markdown
from linrep.explorer.heat import DIM, brightness, thumbnail
from linrep.explorer.report_page import report_page, unfinished_page
from linrep.explorer.report_text import report_text, unfinished_text

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"><svg onload='a'>",
    "' onmouseover='x",
    "]]>",
    "<!--",
    "&lt;b&gt;",
    "![x](http://e.example/p.png)",
    "[a](javascript:alert(1))",
    "[a]: http://e.example",
    "`` ` ``",
    "```\nrm",
    "# head",
    "1. item",
    "- item",
    "| a | b |",
    "*a* _b_ ~~c~~ $d$",
    "\u202eexe.gpj",
    "a\nb\r\nc",
    "nul\x00 bell\x07",
    "\ud800 half",
    "\\",
    "> quote",
    "+ plus",
    "=== ",
    "https://e.example/x",
    "{{7*7}}",
    "%00",
    "A" * 1_000_000,
]
TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "nav",
    "main",
    "section",
    "h1",
    "h2",
    "h3",
    "p",
    "bdi",
    "ol",
    "ul",
}
TAGS |= {
    "li",
    "a",
    "span",
    "figure",
    "figcaption",
    "img",
    "pre",
    "code",
    "div",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}


FIGURE = "probes/t-1/figures/a.png"


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ended: list[str] = []
        self.said = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.ended.append(tag)

    def handle_data(self, data):
        self.said += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data[:50]}")

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@functools.cache
def figure() -> dict[str, bytes]:
    drawn = Figure(figsize=(3, 2))
    drawn.subplots().set_title("a")
    forms = {}
    for form in ("svg", "png"):
        out = io.BytesIO()
        drawn.savefig(out, format=form)
        forms[f"probes/t-1/figures/a.{form}"] = out.getvalue()
    return forms


def command(job: str) -> str:
    return f"python jobs/{job}.py --workspace='a\nb ``` <i>'"


def findings(text: str = "boat") -> dict[str, Finding]:
    image = Thumbnail(thumbnail(Image.new("RGB", (8, 6), "red")), text)
    said = [f"Read everywhere: {text}", f"Best at {text}."]
    return {
        "harvest": Finding("harvest", "harvests/t-0", "t-0", ["10 samples."], facts=[("skipped", text)]),
        "probe": Finding("probe", "probes/t-1", "t-1", said, FIGURE, [Example(text, [image])]),
        "sae": Finding("sae", "saes/t-2", "t-2", ["Use this one."]),
        "interpret": Finding("interpret", f"i/{text[:50]}", "t-3", [text], None, [Example(text)]),
    }


def both(text: str = "boat") -> tuple[str, str]:
    report = report_of("t", command, findings(text), [("recipe", text)])
    return report_text(report), report_page(report, figure().get)


def plain(text: str) -> str:
    """Without what shows as space."""
    return re.sub(r"\s+", "", text)


def test_both_forms_have_a_section_for_each_claim_with_its_headline_first():
    text, page = both()
    shown = Page(page)
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == [*(f"## {claim.title}" for claim in CLAIMS), "## Where this comes from"]
    lines = text.splitlines()
    assert lines[lines.index(heads[0]) + 2] == "**Read everywhere: boat**"
    assert "- Best at boat." in lines
    assert shown.said.count("Best at boat.") == 1  # in its own line, and no part of what a figure or the list of claims says
    assert "![Figure of probe. Read everywhere: boat](probes/t-1/figures/a.png)" in lines
    rendered = Page(MarkdownIt("commonmark").enable("table").render(text))
    for said in (rendered.said, shown.said):
        for expected in (
            "Read everywhere: boat",
            "interpret",
            "Use this one.",
            "jobs/train_sae.py",
            "probes/t-1",
            CLAIMS[2].limits,
        ):
            assert plain(expected) in plain(said)
    assert rendered.said.count("Not measured") == 2
    assert shown.said.count("Not measured") == 4  # in the list of claims, too
    assert [a for a in shown.of("h2") if a.get("id", "").startswith("claim-")] == [{"id": f"claim-{i}"} for i in range(1, 5)]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_others_wrote_is_text_and_never_markup(text):
    as_text, page = both(text)
    shown = Page(page)
    assert {tag for tag, _ in shown.tags} <= TAGS
    assert all(not name.startswith("on") and name != "style" for _, attributes in shown.tags for name in attributes)
    assert all(attributes["href"].startswith("#") for attributes in shown.of("a"))
    assert all(attributes["src"].startswith("data:image/") for attributes in shown.of("img"))
    harmless = Page(both()[1])
    assert [tag for tag, _ in shown.tags] == [tag for tag, _ in harmless.tags]
    assert shown.ended == harmless.ended
    assert len(page) < len(both()[1]) + 40_000
    # Markdown, as the strictest and the most generous readers take it.
    for reader in (MarkdownIt("commonmark", {"html": True}).enable("table"), MarkdownIt("gfm-like", {"linkify": False})):
        rendered, expected = Page(reader.render(as_text)), Page(reader.render(both()[0]))
        assert [tag for tag, _ in rendered.tags] == [tag for tag, _ in expected.tags]
    if len(text) < 100:
        visible = plain(re.sub(r"[\x00-\x1f\u202e\ud800]", "", text))
        for said in (shown.said, rendered.said):
            assert visible in re.sub(r"\\u[0-9a-f]{4}", "", plain(said))
    as_text.encode()
    page.encode()


def test_the_page_carries_all_that_it_needs_and_its_policy_allows_nothing_else():
    _, page = both()
    shown = Page(page)
    (policy,) = [a["content"] for a in shown.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    seal = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'sha256-{seal}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"<(script|link|iframe|object|embed|form|base)\b", page)
    assert all(a["alt"] for a in shown.of("img"))
    assert all(a.get("scope") for a in shown.of("th"))
    assert shown.of("html") == [{"lang": "en"}]
    (drawn,) = [a for a in shown.of("img") if a["src"].startswith("data:image/svg+xml")]
    assert "Read everywhere" in (drawn["alt"] or "")


def test_the_same_report_is_the_same_bytes():
    assert both() == both()


def test_while_stages_work_both_forms_say_how_to_go_on():
    for said in (unfinished_text("<t>", "go on"), Page(unfinished_page("<t>", "go on")).said):
        assert "Not finished" in said
        assert "go on" in said
    assert "<t>" in Page(unfinished_page("<t>", "go on")).said


def test_a_command_stays_as_it_is_pasted():
    assert Page(f"<code>{code_in_html(command('probe'))}</code>").said == command("probe")


def test_a_drawing_keeps_its_lines_and_loses_what_could_act():
    svg = (
        '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "x" "http://e.example/x.dtd"><svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" width="72pt" height="36pt" onload="a()"><script>a()</script>'
        '<style>*{stroke-linecap: butt}</style><style>@import url(http://e.example)</style><foreignObject><p>x</p></foreignObject>'
        '<a xlink:href="http://e.example"><path d="M 0 0"/></a><image xlink:href="http://e.example/p.png"/>'
        '<use xlink:href="#m" onclick="a()"/><path id="m" d="M 1 1" style="fill: url(http://e.example)"/>'
        '<g clip-path="url(#c)"/></svg>'
    )  # fmt: skip
    kept = safe_svg(svg.encode())
    assert kept is not None
    assert (kept.width, kept.height) == (96, 48)
    text = kept.data.decode()
    for bad in ("script", "e.example", "onload", "onclick", "foreignObject", "import", "DOCTYPE", "<a"):
        assert bad not in text
    for good in ('d="M 1 1"', "#m", "stroke-linecap", "url(#c)"):
        assert good in text
    assert (
        safe_svg(b'<!DOCTYPE s [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg" width="1" height="1">&a;</svg>') is None
    )
    assert safe_svg(b"<html></html>") is None
    forms = figure()
    svg_form, png_form = forms["probes/t-1/figures/a.svg"], forms["probes/t-1/figures/a.png"]
    assert getattr(drawing(svg_form, png_form), "kind", "") == "image/svg+xml"
    assert getattr(drawing(b"broken", png_form), "kind", "") == "image/png"
    assert drawing(None, b"broken") is None
    own = safe_svg(svg_form)
    assert own is not None
    assert own.data.count(b"<path") == svg_form.count(b"<path")


def test_an_image_is_brightest_where_the_latent_fires_most():
    found = brightness([(0, 0, 2, 2), (4, 2, 6, 4)], [1.0, 0.5], 2.0, (8, 12))
    assert found[:4, :4].min() == 1.0
    assert found[4:8, 8:12] == pytest.approx(DIM + (1 - DIM) / 2)
    assert found[0:4, 4:] == pytest.approx(DIM)
    shown = thumbnail(Image.new("RGB", (4, 2), "white"), [(0, 0, 1, 2)], [3.0])
    assert (shown.kind, shown.width, shown.height) == ("image/png", 176, 88)
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    photo = thumbnail(Image.fromarray(noise))
    assert (photo.kind, photo.height) == ("image/jpeg", 176)
    assert photo.data == thumbnail(Image.fromarray(noise)).data


def test_texts_show_unchanged_in_both_forms():
    for text in ("topk_16_x8, mean_difference [.85, .90]", "50% of 3 < 4 & 5 > 2", "a boat ."):
        assert Page(f"<p>{in_html(text)}</p>").said == text
        assert Page(MarkdownIt("commonmark").render(in_markdown(text))).said.strip() == text
