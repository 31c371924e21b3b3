"""Interchange: a donor's stream acts as the donor's own run would; donors are held out and rightly named, never the recipient."""

import json
from pathlib import Path

import pytest
import torch

from linrep.cluster.run_judge import metrics
from linrep.directions import Directions, DirectionSet
from linrep.errors import RecipeError
from linrep.explorer.dose import interchange_figure
from linrep.explorer.steering import interchange_sentence
from linrep.harvest.config import HarvestConfig
from linrep.places import place
from linrep.steer.cells import cells
from linrep.steer.config import Asking, Dose, ImageTokens, LastToken, Question, SteerConfig
from linrep.steer.donors import Donors, check_donors, donor_notes, read_donors
from linrep.steer.edits import Replace
from linrep.steer.effects import effects
from linrep.steer.steerer import Steerer
from linrep.steer.summary import _exchanged
from linrep.steer.vectors import NoDirection, Vectors
from linrep.store.read import Store, read_store
from linrep.store.samples import class_values, read_samples
from linrep.store.tables import table_of
from linrep.vlm.decode import next_tokens
from schemas.steering import CELLS, DAMAGE, VERDICTS
from tests.steer.conftest import sample
from tests.steering import half_held_out, value_of, write_workspace

PROMPT = "<image> what is it ?"
CONFIG = SteerConfig(
    sites=(ImageTokens(), LastToken()),
    directions=(),
    edits=("interchange",),
    ask=Asking(questions=(Question(prompt=PROMPT),), choice=PROMPT, max_new_tokens=1),
)
LAYERS = (0, 2, 4)
NAMES = ("boat", "tree")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, random_vlm) -> Path:
    folder = tmp_path_factory.mktemp("donors")
    harvest = HarvestConfig(layers=LAYERS, views=("pooled", "last"), chunk_size=16, image_prompt=PROMPT, dtype="float32")
    corpora = half_held_out(folder)
    (folder / "images" / "classes.json").write_text(json.dumps({"n01": "tree", "n02": "boat"}))  # a token each
    return write_workspace(folder, "asked", corpora, random_vlm, harvest)


@pytest.fixture(scope="module")
def store(workspace: Path) -> Store:
    (found,) = (place(workspace) / "harvests").names()
    return read_store(place(workspace) / "harvests" / found)


def of_class(store: Store, modality: str, name: str) -> set[str]:
    table = store.samples()
    samples, classes = read_samples(table), class_values(table, read_samples(table))
    return {samples.ids[i] for i, ok in enumerate(samples.of(modality, "test")) if ok and classes[i] == name}  # pyright: ignore[reportArgumentType]


def number(donor: str) -> int:
    return int(donor.split("/p")[-1].split(".")[0])


def alone(steerer: Steerer, images: list[int]) -> tuple[dict[str, str], dict[str, float]]:
    """Answers and probabilities without an edit."""
    found = steerer.answers([sample(i) for i in images], "boat", "tree").tables
    plain = [{row["sample_id"]: row for row in found[table] if row["edit"] == "none"} for table in ("answers", "cells")]
    return {i: row["text"] for i, row in plain[0].items()}, {i: row["p_target"] for i, row in plain[1].items()}


def test_donors_are_test_samples_of_their_class_in_both_modalities(store):
    donors = read_donors(store, LAYERS, NAMES, {})
    for name in NAMES:
        for modality in ("image", "text"):
            assert set(donors.names[modality, name]) == of_class(store, modality, name)
    assert donors.names["text", "tree"]  # captions are of their images' class
    assert {layer for _, layer in donors.streams} == set(LAYERS)


def test_after_the_last_block_a_donors_stream_gives_the_donors_own_answer_and_before_the_first_changes_nothing(store, steer_vlm):
    """The donor's answer is that of its own unedited run, from its own image."""
    donors = read_donors(store, LAYERS, NAMES, {})
    steerer = Steerer(steer_vlm, CONFIG, LAYERS, Vectors(DirectionSet(()), CONFIG.dose, donors=donors))
    recipients = [number(name) for name in of_class(store, "image", "boat")]
    found = steerer.answers([sample(i) for i in recipients], "boat", "tree").tables
    answers, choices = (
        {(r["sample_id"], r["layer"], r["direction"]): r[column] for r in found[table] if not r.get("error")}
        for table, column in (("answers", "text"), ("cells", "p_target"))
    )
    own, chosen = alone(steerer, [number(name) for name in donors.names["image", "tree"]])
    for i in recipients:
        name = f"s{i}"
        drawn = donors.stream("image", "tree", 4, name, "boat\0tree")
        (donor,) = [d for d in donors.names["image", "tree"] if torch.equal(donors.streams[d, 4], drawn)]
        assert answers[name, 4, "image"] == own[f"s{number(donor)}"]
        assert choices[name, 4, "image"] == pytest.approx(chosen[f"s{number(donor)}"], abs=1e-6)
        (token,) = next_tokens(steer_vlm, drawn[None]).tolist()
        assert steer_vlm.processor.tokenizer.decode([token]).strip() == own[f"s{number(donor)}"]
        assert choices[name, 0, "image"] == choices[name, 0, "same_class"] == pytest.approx(choices[name, None, None], abs=1e-6)
        assert abs(choices[name, 2, "image"] - choices[name, None, None]) > 1e-5
    assert len({round(p, 4) for p in chosen.values()}) > 1


def test_a_donor_that_the_model_calls_something_else_is_left_out(store):
    every = read_donors(store, LAYERS, NAMES, {}).streams
    middle = float(torch.stack([every[donor, 4][0] for donor in of_class(store, "image", "tree")]).median())

    def says(h):  # of the stream after the last block alone
        return (h[:, 0] > middle).long()

    found = read_donors(store, LAYERS, NAMES, {"tree": 1, "boat": 7}, says).names
    named = {donor for donor in of_class(store, "image", "tree") if every[donor, 4][0] > middle}
    assert set() < named < of_class(store, "image", "tree")
    assert {*found["image", "tree"]} == named
    assert found["image", "boat"] == ()
    with pytest.raises(LookupError, match="no test image of boat whose own answer names it"):
        Donors(found, every).stream("image", "boat", 2, "x", "")


def test_a_recipient_is_never_its_own_donor_and_a_donor_is_the_same_at_all_layers():
    streams = {(d, k): torch.tensor([i, float(k)]) for i, d in enumerate("abc") for k in LAYERS}
    donors = Donors({("image", "boat"): ("a", "b", "c")}, streams)
    for recipient in ("a", "b", "c", *(f"x{i}" for i in range(20))):
        drawn = [donors.stream("image", "boat", k, recipient, "pair") for k in LAYERS]
        assert [int(x[1]) for x in drawn] == list(LAYERS)
        assert len({int(x[0]) for x in drawn}) == 1
        assert "abc"[int(drawn[0][0])] != recipient
    assert len({int(donors.stream("image", "boat", 0, f"x{i}", "pair")[0]) for i in range(20)}) == 3
    with pytest.raises(LookupError, match="no stream of a in the view last at layer 7"):
        Donors({("image", "boat"): ("a",)}, streams).stream("image", "boat", 7, "x", "pair")


def at_last(modality, vectors, layer=2):
    return Directions("class_mean", layer, "last", modality, "class", ("boat", "tree"), vectors, 5.0)


def test_a_texts_stream_is_given_whole_or_with_the_images_mean_for_the_texts():
    means = DirectionSet(
        (
            at_last("image", torch.tensor([[1.0, 0.0], [3.0, 2.0]])),  # mean (2, 1)
            at_last("text", torch.tensor([[0.0, 4.0], [2.0, 8.0]])),  # mean (1, 6)
        )
    )
    streams = {("i", 2): torch.tensor([9.0, 9.0]), ("s", 2): torch.tensor([7.0, 7.0]), ("t", 2): torch.tensor([5.0, 8.0])}
    names = {("image", "tree"): ("i",), ("image", "boat"): ("s",), ("text", "tree"): ("t",)}
    vectors = Vectors(means, Dose(), donors=Donors(names, streams))

    def given(kind, **changes):
        edit = vectors.given(kind, 2, "boat", "tree", "x")
        assert isinstance(edit, Replace)
        return edit.value.tolist()

    assert given("image") == [9, 9]
    assert given("same_class") == [7, 7]
    assert given("text") == [5, 8]
    assert given("text_centred") == [6, 3]  # (5, 8) - (1, 6) + (2, 1)
    with pytest.raises(NoDirection, match="the stream of texts at the last token: texts were read under another prompt"):
        Vectors(means, Dose(), one_prompt=False, donors=vectors.donors).given("text", 2, "boat", "tree", "x")
    with pytest.raises(NoDirection, match="no test image of house"):
        vectors.given("image", 2, "boat", "house", "x")
    with pytest.raises(NoDirection, match="text"):
        Vectors(DirectionSet(means.entries[:1]), Dose(), donors=vectors.donors).given("text_centred", 2, "boat", "tree", "x")


def test_interchanges_act_at_the_last_token_alone():
    found = [cell for cell in cells(CONFIG, LAYERS) if cell.edit == "interchange"]
    assert {(cell.site_kind, cell.layer, cell.direction) for cell in found} == {
        ("last", layer, donor) for layer in LAYERS for donor in ("image", "text", "text_centred", "same_class")
    }
    with pytest.raises(ValueError, match="interchange acts at the last token: name the site last"):
        SteerConfig(sites=(ImageTokens(),), edits=("interchange",))


def test_streams_that_are_not_there_or_of_another_prompt_are_refused(store):
    check_donors(CONFIG, store)
    assert donor_notes(CONFIG, store) == []
    other = CONFIG.model_copy(update={"ask": Asking(questions=(Question(prompt="<image> and this ?"),))})
    with pytest.raises(RecipeError, match="harvested under '<image> what is it \\?', and no question about the class is that"):
        check_donors(other, store)


def measured():
    """Three images in each of two pairs: texts turn two of three, other images one of three, the same class none."""
    turned = {"text": (1, 1, 0), "image": (1, 0, 0), "text_centred": (0, 0, 0), "same_class": (0, 0, 0)}
    runs, verdicts = [], []
    for source, target in (("boat", "tree"), ("key", "star")):
        for i in range(3):
            who = {"source": source, "target": target, "sample_id": f"{source}{i}"}
            plain = {"edit": "none", "site": None, "layer": None, "direction": None}
            which = [{"edit": "interchange", "site": "last", "layer": 3, "direction": d} for d in turned]
            for cell, score in ((plain, -1), *((w, 2 * turned[w["direction"]][i] - 1) for w in which)):
                runs.append({**who, **cell, "p_target": 0.5, "logp_source": -1.0, "logp_target": -1.0})
                verdicts.append({**who, **cell, "question": 0, "about": "class", "text": "", "plain": "", "score": float(score)})
    return table_of(runs, CELLS), table_of(verdicts, VERDICTS)


def test_what_donors_turn_is_said_by_layer():
    runs, verdicts = measured()
    found = effects(runs, verdicts, DAMAGE.empty_table(), CONFIG)
    lines = _exchanged([row for row in found.to_pylist() if row["edit"] == "interchange"])
    assert "interval" in lines[0]
    assert [cell.split()[0] for cell in lines[2].split("  ") if cell.strip()] == ["3", "0.33", "0.67", "0.00", "0.00", "0.33"]
    assert interchange_sentence(found) == [
        "The last token's stream, taken from a text, turns 0.67 of the answers at layer 3; taken from another image 0.33; "
        "from one of the image's own class at most 0.00."
    ]
    assert interchange_sentence(found.slice(0, 0)) == []
    assert metrics(found)["turned/interchange_text"] == {3: pytest.approx(2 / 3)}
    figure = interchange_figure(found)
    assert figure is not None
    shares, difference = figure.axes
    assert {line.get_label() for line in shares.lines} >= {"text", "image", "same class"}
    assert difference.get_ylabel() == "share turned, minus other images'"
    assert interchange_figure(found.slice(0, 0)) is None


def test_texts_are_compared_with_images_image_by_image():
    runs, verdicts = measured()
    found = effects(runs, verdicts, DAMAGE.empty_table(), CONFIG)

    def value(measure, direction):
        return [row["value"] for row in value_of(found, measure, direction=direction)]

    assert value("turned", "text") == pytest.approx([2 / 3])
    assert value("turned_over_image", "text") == pytest.approx([1 / 3])
    assert value("turned_over_image", "image") == []
    assert value("turned_over_random", "image") == pytest.approx([1 / 3])  # over another image of the source class
    (row,) = value_of(found, "turned_over_image", direction="text")
    assert row["low"] < 1 / 3 < row["high"]
    assert {r["direction"]: r["control"] for r in found.to_pylist() if r["edit"] == "interchange"} == {
        "image": False,
        "text": False,
        "text_centred": False,
        "same_class": True,
    }
