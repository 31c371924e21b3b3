"""Asking about an image or text of one's own: what comes back, where it lies, and one line for each mistake and each lack."""

import json
import re
from pathlib import Path

import pytest
import yaml

from linrep.cluster.asking import Asker, Query, fitted, unknown_words
from linrep.cluster.run_ask import ask_once, run_ask
from linrep.demo import model_folder
from linrep.errors import LinrepError
from linrep.places import place
from linrep.recipe import Recipe, Request
from linrep.vlm.config import ModelConfig
from linrep.vlm.processor import load_processor
from tests.conftest import encoded_image
from tests.reading.workspace import SAMPLE, write_recipe

HOSTILE = '</script><img src=x onerror="window.attacked=1">\u202e\u2028 " \' & a'


@pytest.fixture(scope="module")
def recipe(random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return write_recipe(tmp_path_factory.mktemp("asking"), random_vlm)


@pytest.fixture(scope="module")
def workspace(recipe: Recipe) -> Path:
    return Path(recipe.features.saes[0].path).parent / "ws"


@pytest.fixture(scope="module")
def asker(recipe: Recipe, workspace: Path) -> Asker:
    return Asker(recipe, place(workspace), lambda name: f"run-{name}")


def test_an_answer_holds_all_that_the_workspace_knows(asker):
    asked = asker(Query(SAMPLE.image, "p.jpg", None, ("7=5", "3@2=1"), ("tench:church@2=2", "church:tench"), "image"))
    assert asked.prompt == "a <image> what is it ?"
    assert asked.reading.layers == (0, 2)
    assert {(one.attribute, one.view, one.layer) for one in asked.reading.probes if one.attribute == "class"} == {
        ("class", view, layer) for view in ("pooled", "last") for layer in (0, 2)
    }
    assert {one.value for one in asked.reading.probes if one.attribute == "class"} <= {"tench", "church"}
    assert len(asked.reading.fires) == 1
    assert [one.change.strength for one in asked.changed] == [5, 1, 2, 3.0]
    assert asked.changed[3].change.layer == 2
    assert set(asked.made_from) == {"harvest", "probe", "features"}
    assert asked.missing == ("No explanations of latents: run-interpret",)
    fired = {(2, "sae", latent) for latent in asked.reading.fires[0].strongest.latents.flatten().tolist() if latent >= 0}
    assert fired | {(2, "sae", 7)} <= set(asked.latents) | {(2, "sae", 3)}
    assert all(note.words for note in asked.latents.values())


def test_latents_that_speak_for_the_answer_are_named_beside_their_controls(asker, tmp_path):
    done = ask_once(asker, place(tmp_path), Query(SAMPLE.image, "p.jpg"))
    found = done.asked.attributed
    assert found is not None
    assert found.answer == done.asked.answer.first[0][0]
    assert found.against == done.asked.answer.first[1][0]
    (own,) = found.saes
    assert (own.layer, own.sae) == (2, "sae")
    assert len(own.latents) == 8
    assert {(2, "sae", latent) for latent in own.latents.tolist()} <= set(done.asked.latents)
    (line,) = [
        line for line in str(done).splitlines() if re.match(r"For '.+' over '.+' \(.+ nats\) by latents of sae, layer 2:", line)
    ]
    first = str(done).splitlines()[str(done).splitlines().index(line) + 1]
    assert re.match(rf" +{own.latents[0]}  [+-]\d+\.\d\d, lost [+-]\d+\.\d\d \(another [+-]\d", first), first
    data = json.loads(re.search(r"asked\((.*)\);", (Path(done.page.path).parent / "data.js").read_text())[1])  # pyright: ignore
    assert data["speaking"]["saes"][0]["latents"] == own.latents.tolist()
    assert asker(Query(None, "", "some text")).attributed is not None


def test_an_image_that_was_harvested_is_read_as_in_the_store(asker):
    """The class means that the probes found are the harvest's: the pooled vector of a live image is the stored one."""
    from linrep.reading.read import Reader
    from linrep.reading.stored import read_stored

    ((_, stored),) = read_stored(asker._store, [SAMPLE.id], Reader((), None, asker._probes["image"]))
    live = asker(Query(SAMPLE.image, "p.jpg")).reading
    assert [(p.value, pytest.approx(p.p, abs=1e-4)) for p in stored.probes] == [(p.value, p.p) for p in live.probes]


def test_a_text_alone_is_read_as_the_harvest_reads_texts(asker):
    asked = asker(Query(text="a boat on the water", site="last", edits=("tench:church@2=1",)))
    assert asked.reading.seen is None
    assert int(asked.reading.tokens.of_text.sum()) == asked.reading.n_text > 0
    assert asked.changed[0].n_positions == 1


def test_a_page_is_files_of_its_own_and_text_stays_data(asker, tmp_path):
    done = ask_once(asker, place(tmp_path), Query(SAMPLE.image, HOSTILE, f"{HOSTILE} ?", ("7=5",)))
    folder = Path(done.page.path).parent
    assert folder.parent == tmp_path / "asked"
    assert sorted(p.name for p in folder.iterdir()) == [
        "ask.css", "ask.js", "core.css", "data.js", "image.png", "index.html", "picture.css", "picture.js",
    ]  # fmt: skip
    html, data = (folder / "index.html").read_text(), (folder / "data.js").read_text(encoding="ascii")
    assert "default-src 'none'; script-src 'self' file:;" in html
    assert re.findall(r"<script[^>]*>", html) == [f'<script defer src="{name}">' for name in ("picture.js", "ask.js", "data.js")]
    assert "attacked" not in html
    assert "<" not in data
    assert json.loads(data.removeprefix("LineOfSight.asked(").rstrip(");\n"))["name"] == HOSTILE
    again = ask_once(asker, place(tmp_path), Query(SAMPLE.image, HOSTILE, f"{HOSTILE} ?", ("7=5",)))
    assert again.page == done.page
    assert ask_once(asker, place(tmp_path), Query(SAMPLE.image, HOSTILE, None, ("7=5",))).page != done.page
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", (folder / "picture.js").read_text())


def test_a_terminal_has_25_lines_at_most_and_no_sign_that_moves_it(asker, tmp_path):
    many = tuple(f"{i}=3" for i in range(8))
    done = ask_once(asker, place(tmp_path), Query(SAMPLE.image, HOSTILE, "\x1b[31mwhat\nis ?", many, ("tench:church@2=2",) * 8))
    lines = str(done).splitlines()
    assert len(lines) <= 25
    assert lines[0].startswith("Asked ")
    assert lines[-1] == f"Page     {done.page}"
    assert any("the page has the rest" in line for line in lines)
    assert all(sign.isprintable() for line in lines for sign in line)
    assert "<img" not in done._repr_html_()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "nothing to ask about"),
        ({"image": "gone.jpg"}, "--image gone.jpg: there is no such file"),
        ({"image": "."}, "--image .: it is a folder"),
        ({"image": "broken.jpg"}, "--image broken.jpg: not an image"),
        ({"image": "p.jpg", "text": "<image> a <image>"}, "--text must hold <image> exactly once"),
        ({"image": "p.jpg", "site": "top"}, "--site top: there is no such site"),
        ({"image": "p.jpg", "latents": ("7",)}, "--latent 7: no latent with a value"),
        ({"image": "p.jpg", "edits": ("tench:churchh",)}, "did you mean church"),
        ({"text": "a boat", "latents": ("7=1",)}, "--site image: there is no image"),
    ],
)
def test_a_mistake_is_one_line(recipe, workspace, tmp_path, monkeypatch, asker, options, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("linrep.cluster.run_ask.Asker", lambda *_: asker)
    (tmp_path / "p.jpg").write_bytes(encoded_image(3))
    (tmp_path / "broken.jpg").write_bytes(b"no image at all")
    with pytest.raises(LinrepError, match=re.escape(said)) as caught:
        run_ask(Request(recipe, str(workspace), **options), place(workspace), lambda name: name)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named_with_its_command(recipe, workspace, random_vlm, tmp_path_factory):
    from tests.reading.workspace import HARVEST, harvested

    bare = tmp_path_factory.mktemp("bare")
    harvested(bare, random_vlm, HARVEST, recipe.corpora)
    plain = recipe.model_copy(update={"harvest": HARVEST, "features": recipe.features.model_copy(update={"saes": ()})})
    asker = Asker(plain, place(bare), lambda name: f"run-{name}")
    asked = asker(Query(SAMPLE.image, "p"))
    assert [line.partition(": ")[2] for line in asked.missing] == [
        """run-features --features.saes '[{"layer": 2, "sae": "topk-32-x8-s0"}]'""",
        "run-probe",
    ]
    assert asked.reading.probes == asked.reading.fires == ()
    with pytest.raises(LinrepError, match="no class has a direction"):
        asker(Query(SAMPLE.image, "p", edits=("tench:church",)))


def test_a_vocabulary_of_words_is_met_half_way():
    tokenizer = load_processor(model_folder()).tokenizer
    assert fitted(tokenizer, "<image> What is it? answer :", whole=False) == "<image> what is it ? answer :"
    assert fitted(tokenizer, "what is it ?") == "what is it ?"
    assert unknown_words(tokenizer, "what is xylophone ?") == ["xylophone"]


def test_python_asks_as_the_job_does(recipe, workspace, tmp_path):
    import linrep

    (tmp_path / "p.jpg").write_bytes(encoded_image(0))
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True)))
    done = linrep.ask(str(workspace), str(tmp_path / "p.jpg"), latents=("7=5",), config=str(tmp_path / "t.yaml"))
    assert done.page.is_file()
    assert done.asked.changed[0].change.latent == 7
    request = Request(recipe, str(workspace), image=str(tmp_path / "p.jpg"), latents=("7=5",))
    assert run_ask(request, place(workspace), lambda name: name)[-1] == str(done).splitlines()[-1]
