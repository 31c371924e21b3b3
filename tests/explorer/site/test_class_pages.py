"""Class pages: what is chosen on one half of the data is reported from the other, and chance and controls stand beside it."""

from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from linrep.explorer.site.class_latents import latents_by_value
from linrep.explorer.site.class_steering import of_pairs
from linrep.explorer.site.classes import SHOWN, reads_by_value, write_classes
from linrep.explorer.site.pictures import Pictures
from linrep.explorer.site.shards import Site
from linrep.places import place
from linrep.sample import unit_hash
from linrep.stats.wilson import wilson
from linrep.store.write import samples_table
from schemas.steering import CELLS, VERDICTS
from tests.explorer.site.planted import (
    CLASSES,
    HARVEST,
    column,
    label,
    planted_features,
    planted_probes,
    probe_tables,
    results,
    same,
    shard,
)


def read(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said of how a class is read, and its one curve."""
    probes, classes, confusions = (
        pl.DataFrame(probe_tables()[of], infer_schema_length=None) for of in ("probes", "classes", "confusions")
    )
    found = reads_by_value(probes, classes, confusions)[("class", name)]
    (curve,) = found["curves"]
    return found, curve


def test_a_class_stands_beside_how_often_the_probe_says_it_of_any_row():
    found, curve = read("key")
    assert (curve["layers"], curve["accuracy"], curve["n"]) == ([0, 2], [1.0, 1.0], [4, 4])
    assert curve["chance"] == [4 / 20, 7 / 20]  # at layer 2 it says key of two boats and a tree, too
    assert found["first"] == {"image": {"view": "pooled", "kind": "ridge"}}


def test_confusions_are_of_the_layer_that_validation_chose_not_of_the_best_on_test_rows():
    curve = read("boat")[1]
    assert curve["layer"] == 2  # layer 0 is right of every boat
    assert curve["as"] == [["key", 2, 0.25]]
    assert curve["of"] == [["tree", 2, 0.25]]
    assert read("key")[1]["of"] == [["boat", 2, 0.25], ["tree", 1, 0.125]]


def test_a_class_that_no_test_row_is_said_to_be_has_a_chance_of_none():
    tables = probe_tables()
    never = [row | {"predicted": "boat"} for row in tables["confusions"] if row["layer"] == 2]
    frames = (pl.DataFrame(rows, infer_schema_length=None) for rows in (tables["probes"], tables["classes"], never))
    (curve,) = reads_by_value(*frames)[("class", "key")]["curves"]
    assert curve["chance"] == [None, 0.0]  # layer 0 has no confusions here, so nothing is known of it


def test_latents_are_ranked_by_one_half_and_reported_from_the_other_beside_the_best_random_direction(tmp_path):
    """On the reported half latent 2 looks best and the control's latent 6 better than 5: neither was chosen for it."""
    labels = [
        label(1, "boat", 0.8, 0.7), label(2, "boat", 0.6, 0.95), label(3, "tree", 0.9, 0.9),
        label(1, "boat", 0.5, 0.4, modality="text"), label(5, "boat", 0.5, 0.3, "sae/random"),
        label(6, "boat", 0.4, 0.8, "sae/random"),
    ]  # fmt: skip
    found = latents_by_value(results(tmp_path, features=[planted_features(tmp_path, labels)]))
    assert found.keys() == {("class", "boat"), ("class", "tree")}
    (sae,) = found["class", "boat"]
    image, text = sae["parts"]
    assert (sae["sae"], sae["layer"], image["modality"], text["modality"]) == ("sae", 4, "image", "text")
    assert [(own["latent"], own["f1"]) for own in image["best"]] == [(1, 0.7), (2, 0.95)]
    assert (image["random"]["latent"], image["random"]["f1"], image["n"], image["n_random"]) == (5, 0.3, 2, 2)
    assert (text["best"][0]["f1"], text["random"]) == (0.4, None)


def cell(source: str, target: str, sample: str, p: float, edit: str = "add", direction: str | None = "class_mean") -> dict:
    where = {"site": "image", "layer": 4, "direction": direction, "strength": 1.0} if edit == "add" else {}
    which = {name: where.get(name) for name in ("site", "layer", "direction", "strength")}
    return {"source": source, "target": target, "sample_id": sample, "edit": edit, "p_target": p, **which}


def verdict(run: dict, score: float, plain: str, text: str) -> dict:
    return {name: value for name, value in run.items() if name != "p_target"} | {
        "question": 0, "about": "class", "text": text, "plain": plain, "score": score,
    }  # fmt: skip


def test_steering_by_pair_is_counted_by_hand_beside_the_random_direction():
    """Of three boats two are called so without an edit: only they can be turned. Boat is in the half that chooses."""
    runs, said = [], []
    for source, target in (("boat", "tree"), ("tree", "key")):
        for i, before in enumerate((-1.0, -1.0, 0.0)):
            name = f"{source}-{i}"
            plain, edited = cell(source, target, name, 0.1, "none", None), cell(source, target, name, 0.7 + 0.1 * i)
            random = cell(source, target, name, 0.2, direction="random")
            runs += [plain, edited, random, cell(source, target, name, 0.99) | {"strength": 2.0}]
            said += [
                verdict(plain, before, "a boat", "a boat"),
                verdict(edited, 1.0, "a boat", "a tree"),
                verdict(random, -1.0, "a boat", "a boat"),
            ]
    cells, verdicts = (pl.DataFrame(rows, infer_schema_length=None) for rows in (runs, said))
    boat, tree = of_pairs(cells, verdicts, {"site": "image", "layer": 4, "direction": "class_mean", "strength": 1.0})
    assert (boat["source"], boat["target"], boat["chosen"], tree["chosen"]) == ("boat", "tree", True, False)
    assert boat["before"][0] == pytest.approx(0.1)
    assert boat["edit"]["p"][0] == pytest.approx(0.8)
    assert boat["random"]["p"][0] == pytest.approx(0.2)
    assert boat["edit"]["turned"] == [1.0, pytest.approx(wilson(1.0, 2)[0], abs=1e-4), 1.0, 2]
    assert boat["random"]["turned"][0] == 0.0
    assert (boat["plain"], boat["text"]) == ("a boat", "a tree")
    names = {"source", "target", "sample_id", "site", "layer", "edit", "direction", "strength"}
    assert names < set(CELLS.names) & set(VERDICTS.names)


class Drawn(Pictures):
    """What class pages ask of the pictures of a harvest, without its images."""

    def __init__(self, samples: pa.Table) -> None:
        self._samples = samples

    def facts(self, name: str) -> dict[str, Any]:
        return {"sample_id": name, "text": f"text of {name}"}

    def draw(self, names: Any) -> dict[str, dict[str, Any]]:
        return {name: {"name": name, "label": "x", "file": f"{name}.png", "width": 9, "height": 9, "base": 0} for name in names}


HOSTILE = '</script><b>"x"\u2028'


def samples() -> pa.Table:
    """A harvest of images of two classes, one of a hostile name, and a caption of an image."""
    given = {"corpus": "images", "split": "test", "n_image_tokens": 1, "n_text_tokens": 1}
    rows = [
        {**given, "sample_id": f"images/{name}-{i}", "modality": "image", "uri": f"{name}/{i}.JPEG", "label": at,
         "class_name": name}
        for at, name in enumerate(("boat", HOSTILE)) for i in range(2)
    ]  # fmt: skip
    caption = {"sample_id": "pairs/0#caption", "modality": "text", "uri": "c.jsonl", "pair_id": "pairs/0", "text": "a boat"}
    pair = {"sample_id": "pairs/0", "modality": "pair", "uri": "images/boat/0.JPEG", "pair_id": "pairs/0", "text": "a boat"}
    return samples_table([*rows, {**given, **pair}, {**given, **caption}])


def test_of_a_harvest_alone_every_class_has_a_page_with_its_samples(tmp_path):
    pictures = {HARVEST: Drawn(samples())}
    write_classes(Site(place(tmp_path)), results(tmp_path), pictures, {HARVEST: ["images/boat-1"]})
    listed = shard(tmp_path, "classes")
    assert column(listed["columns"]["value"]) == ["boat", HOSTILE]
    assert column(listed["columns"]["n_image"]) == [2, 2]
    assert column(listed["columns"]["n_text"]) == [1, None]
    assert column(listed["columns"]["accuracy_image"]) == [None, None]
    assert [shard(tmp_path, f"classes/{row}")["value"] for row in range(2)] == ["boat", HOSTILE]
    page = shard(tmp_path, "classes/0")
    assert {image["name"]: image["page"] for image in page["images"]} == {"images/boat-0": False, "images/boat-1": True}
    assert page["texts"] == [{"sample": "pairs/0#caption", "text": "text of pairs/0#caption"}]
    assert (page["probes"], page["latents"], page["steering"]) == ([], [], [])


def test_a_page_draws_fairly_from_the_probes_labels_and_the_list_says_what_validation_chose(tmp_path):
    one = planted_probes(tmp_path)
    labels = [label(1, "boat", 0.8, 0.7), label(2, "boat", 0.6, 0.95)]
    found = results(tmp_path, probe=[one], features=[planted_features(tmp_path, labels)])
    pictures = {HARVEST: Drawn(samples())}
    write_classes(Site(place(tmp_path / "site")), found, pictures)
    listed = shard(tmp_path / "site", "classes")
    rows = dict(zip(column(listed["columns"]["value"]), range(4), strict=True))
    assert set(rows) == {*CLASSES, HOSTILE}
    assert same([column(listed["columns"]["accuracy_image"])[rows[name]] for name in CLASSES], [0.75, 0.625, 1.0])
    assert same([column(listed["columns"]["f1"])[rows[name]] for name in ("boat", "tree")], [0.7, None])
    page = shard(tmp_path / "site", f"classes/{rows['boat']}")
    own = one.frame("labels").filter(pl.col("class_name") == "boat")["sample_id"].to_list()
    assert [image["name"] for image in page["images"]] == sorted(own, key=unit_hash)[:SHOWN]
    assert page["n"] == {"image": 20, "text": 1}
