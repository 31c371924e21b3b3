"""What notebooks show of hostile data: never markup, never long, one line in a terminal."""

import html.parser

import polars as pl
import pytest
from PIL import Image

from linrep.demo import model_folder
from linrep.interpret.views import Latent
from linrep.notebook.explain import Explanations
from linrep.notebook.images import SampleImage
from linrep.notebook.markup import plain, shaded
from linrep.notebook.search import search
from linrep.notebook.sheet import ImageExample, LatentSheet, TextExample, distinct
from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.families import layout
from schemas.interpret import SCORES

HOSTILE = [
    "</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "\u202etxt.exe",
    "line\nbreak\r\x1b[2J\x00", "<!--", "&lt;b&gt;", "x" * 1_000_000,
]  # fmt: skip
ALLOWED = {
    "div",
    "p",
    "b",
    "i",
    "br",
    "bdi",
    "img",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "span",
    "figure",
    "figcaption",
    "small",
}


class Read(html.parser.HTMLParser):
    """What a browser would see: tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        for name, value in attrs:
            assert name != "src" or value.startswith("data:image/")

    def handle_data(self, data):
        self.text += data


def features(name: str) -> pl.DataFrame:
    row = {
        "layer": 4, "sae": name, "latent": 7, "rate_image": 0.1, "rate_text": 0.2, "max_image": 2.0, "max_text": 3.0,
        "modality_score": 0.5, "best_attribute": name, "best_value": f"{name} boat", "f1": 0.9, "words_up": [name, " boat"],
    }  # fmt: skip
    return pl.DataFrame([row])


def everything(name: str):
    """One of each that a notebook shows, with the same text wherever a text can be."""
    image = Image.new("RGB", (72, 72))
    plan = layout((72, 72), describe(ModelConfig(path=str(model_folder()))))
    facts = {"sample_id": name, "class_name": name, "text": name, "split": "test"}
    sample = SampleImage(facts, image, plan).patches()
    row = {"sample_id": name, "activation": 2.0, "n_active": 3, "n_held": 4}
    table = features(name)
    labels = pl.DataFrame({"latent": [7], "value": [f"{name} boat"], "f1": [0.9]})
    texts = (TextExample((name, name, name), (1.0, 0.0, None), row),)
    score = {"layer": 4, "sae": name, "latent": 7, "modality": "image", "task": "detection", "control": "own", "value": 0.5}
    scores = pl.DataFrame([{**dict.fromkeys(SCORES.names), **score}])
    return [
        sample,
        search(table, labels, {(4, name, 7): name}, "boat"),
        LatentSheet(table.row(0, named=True), name, (ImageExample(sample, row),), texts),
        Explanations({Latent(4, name, 7): name}, {}, scores),
    ]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_text(name):
    for shown in everything(name):
        page = shown._repr_html_()
        found = Read(page)
        assert found.tags <= ALLOWED
        assert found.attributes <= {"src", "alt", "width", "height", "style", "title"}
        assert len(page) < 60_000
        assert all(c.isprintable() or c.isspace() for c in found.text)
        lines = repr(shown)
        assert len(lines) < 10_000
        assert all(c.isprintable() or c == "\n" for c in lines)
    assert plain(name)[:3] in Read(everything(name)[0]._repr_html_()).text


def test_shades_follow_values_and_unknown_tokens_are_pale():
    page = shaded([" a", " b", " c", " d"], [4.0, 1.0, 0.0, None], 4.0)
    assert 'rgba(213,94,0,0.90)" title="4"> a<' in page
    assert 'rgba(213,94,0,0.38)" title="1"> b<' in page
    assert "</span> c<span" in page
    assert 'opacity:.55"> d<' in page
    assert Read(page).text == " a b c d"


def test_the_best_label_wins_and_explanations_and_words_add():
    names = {"layer": 4, "sae": "s", "modality_score": None, "best_attribute": None, "best_value": None, "f1": None}
    rows = [{**names, "latent": i, "words_up": words} for i, words in enumerate([[" ship", " boats"], [" boat"], [], [" car"]])]
    table = pl.DataFrame(rows, schema_overrides={"best_value": pl.String, "f1": pl.Float64, "words_up": pl.List(pl.String)})
    labels = pl.DataFrame(
        {"latent": [0, 1, 2, 2, 3], "value": ["car", "boat", "boats", "yellow", "car"], "f1": [0.9, 0.3, 0.6, 0.5, 1.0]}
    )
    found = search(table, labels, {(4, "s", 1): "red boats", (4, "other", 3): "boat"}, "boat")
    # 1: .3 + .5 + .5 / 1; 2: .6; 0 has "boats" second among its words, which is another token; 3 has nothing.
    assert (found.latents, found.frame["score"].to_list()) == ([1, 2], [pytest.approx(1.3), pytest.approx(0.6)])
    both = search(table, labels, {}, "Yellow boat!")
    assert both.latents == [2, 1]
    assert both.frame["score"].to_list() == [pytest.approx((0.5 + 0.6) / 2), pytest.approx((0.3 + 0.5) / 2)]
    with pytest.raises(ValueError, match="holds no word"):
        search(table, labels, {}, "?!")


def test_a_text_stands_once_on_a_sheet():
    said = [TextExample((word,), (1.0,), {}) for word in ("a", "a", "b", "c")]
    assert [one.pieces for one in distinct(said, 2)] == [("a",), ("b",)]
