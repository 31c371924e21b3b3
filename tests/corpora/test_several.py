"""Laws of several sources under one corpus: none touches another's samples, weights decide by the id, classes meet by name."""

import hashlib
import json

import pytest
from pydantic import ValidationError

from linrep.config import digest
from linrep.contents.sources import inside_world, moved, write_sources
from linrep.corpora import Corpora
from linrep.corpora.index import Index
from linrep.errors import CorpusError, RecipeError
from linrep.places import place
from linrep.recipe import parse
from tests.cluster.test_harvest import harvest_plainly

SHARE = 2**64


def picked(name: str) -> float:
    """Where the hash of an id lies between 0 and 1, written out: what a weight must not exceed."""
    return int.from_bytes(hashlib.sha256(b"pick\0" + name.encode()).digest()[:8], "big") / SHARE


def texts(world, name: str, n: int) -> str:
    return world.jsonl(name, [{"id": f"t{i}", "text": f"{name} {i}"} for i in range(n)])


def test_a_corpus_of_one_source_keeps_the_digests_that_it_had_before_there_were_several(world):
    for name in ("robin", "wren"):
        for i in range(3):
            world.bytes(f"images/{name}/{i}.jpg", f"{name}{i}".encode())
    world.bytes("text.jsonl", b"".join(b'{"id": "t%d", "text": "words %d"}\n' % (i, i) for i in range(5)))
    world.bytes("pairs.jsonl", b"".join(b'{"image": "images/robin/%d.jpg", "text": "a robin %d"}\n' % (i, i) for i in range(3)))
    index = world.index(
        images={"path": str(world.root / "images"), "per_class": 2},
        text={"path": str(world.root / "text.jsonl"), "max_samples": 3},
        pairs={"path": str(world.root / "pairs.jsonl")},
    )
    assert index.digest == "0f608608b9"  # of the index's third format
    assert {name: digest(parse("", ["--config", f"recipes/{name}.yaml"]).recipe.corpora) for name in RECIPES} == RECIPES


RECIPES = {"demo": "be826b22bb", "imagenette": "466469b97a", "line_of_sight": "8968eafb2e"}
"""Digests of the recipes' corpora, which name the folders of their indices."""


def test_samples_keep_their_ids_texts_and_splits_when_another_source_is_added(world):
    old, new = {"path": texts(world, "old.jsonl", 40)}, {"path": texts(world, "new.jsonl", 30)}
    splits = {"val": 0.3, "test": 0.3}
    alone = world.samples(text=old, splits=splits)
    beside = world.samples(text={"sources": {"a-new": new, "text": old}}, splits=splits)
    assert [one for one in beside if one.id.startswith("text/")] == alone
    assert len({one.id for one in beside}) == 70
    assert {one.id for one in beside} - {one.id for one in alone} == {f"text.a-new/t{i}" for i in range(30)}
    assert {one.corpus for one in beside} == {"text"}
    three = world.samples(text={"sources": {"a-new": new, "text": old, "b": {"path": texts(world, "b.jsonl", 5)}}}, splits=splits)
    assert [one for one in three if not one.id.startswith("text.b/")] == beside


def test_tokens_drawn_of_a_sample_stay_when_another_source_is_added(world, corpora, random_vlm, tmp_path):
    from linrep.harvest.config import HarvestConfig
    from linrep.harvest.plan import plan_harvest

    more = world.jsonl("more.jsonl", [{"id": f"m{i}", "text": "a red house on the water near some tall trees"} for i in range(5)])
    config = HarvestConfig(layers=(1,), views=("tokens",), tokens_per_sample=3, chunk_size=8)
    said = {"images": corpora.images.model_dump(), "text": corpora.text.model_dump()}
    beside = {**said, "text": {"sources": {"text": said["text"], "more": {"path": more}}}}
    drawn = []
    for name, sections in (("alone", said), ("beside", beside)):
        plan = plan_harvest("t", Corpora.model_validate(sections), random_vlm, config, place(tmp_path / name))
        store = harvest_plainly(plan)
        tables = [store.select("tokens", 1, modality).table(["sample_id", "position"]) for modality in ("image", "text")]
        drawn.append({(row["sample_id"], row["position"]) for table in tables for row in table.to_pylist()})
    assert len(drawn[0]) > 22 * 3
    assert {one for one in drawn[1] if not one[0].startswith("text.more/")} == drawn[0]
    assert len({name for name, _ in drawn[1] - drawn[0]}) == 5


def test_a_weight_takes_the_ids_whose_hash_lies_below_it_whatever_else_is_there(world):
    few, many = texts(world, "few.jsonl", 100), texts(world, "many.jsonl", 1000)
    for weight in (0.1, 0.5):
        for path, n in ((few, 100), (many, 1000)):
            found = {one.id for one in world.samples(text={"path": path, "weight": weight})}
            assert found == {f"text/t{i}" for i in range(n) if picked(f"text/t{i}") < weight}
    halved = {one.id for one in world.samples(text={"sources": {"many": {"path": many, "weight": 0.5}, "few": {"path": few}}})}
    assert halved == {f"text.many/t{i}" for i in range(1000) if picked(f"text.many/t{i}") < 0.5} | {
        f"text.few/t{i}" for i in range(100)
    }
    assert 440 < len(halved) - 100 < 560  # four standard errors
    assert world.index(text={"path": few, "weight": 1.0}).digest == world.index(text={"path": few}).digest
    assert world.index(text={"path": few, "weight": 0.1}).left_out["text"]["records"] == {
        "not chosen": sum(picked(f"text/t{i}") >= 0.1 for i in range(100))
    }


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_a_weight_goes_before_the_limits(world, kind):
    if kind == "folder":
        for name in ("robin", "wren"):
            for i in range(50):
                world.bytes(f"b/{name}/{i}.jpg", b"x")
        source, ids = {"path": str(world.root / "b")}, [f"images/{c}/{i}.jpg" for c in ("robin", "wren") for i in range(50)]
        of_class = [ids[:50], ids[50:]]
    else:
        path = world.parquet("b.parquet", {"image": [b"x"] * 100, "id": list(range(100)), "label": ["robin", "wren"] * 50})
        source, ids = {"kind": "parquet", "path": path}, [f"images/{i}" for i in range(100)]
        of_class = [ids[::2], ids[1::2]]
    light = [sorted((one for one in own if picked(one) < 0.3), key=picked) for own in of_class]
    found = {one.id for one in world.samples(images={**source, "weight": 0.3, "per_class": 5})}
    assert found == {*light[0][:5], *light[1][:5]}
    assert {one.id for one in world.samples(images={**source, "weight": 0.3, "per_class": 40})} == {*light[0], *light[1]}
    found = {one.id for one in world.samples(images={**source, "weight": 0.3, "max_samples": 7})}
    assert found == set(sorted([*light[0], *light[1]], key=picked)[:7])


def two_kinds(world) -> dict:
    """Three wnids in folders, and two labels of the hub, one of which has the name of a wnid."""
    world.image_folder()
    names = world.bytes("names.json", b'{"0": "tench", "1": "zebra"}')
    hub = world.parquet("hub.parquet", {"image": [b"1", b"2", b"3"], "label": [1, 0, 1]})
    return {"a": {"path": str(world.root / "photos/train")}, "hub": {"kind": "parquet", "path": hub, "names": names}}


def test_classes_of_one_name_are_one_class_and_a_later_source_changes_no_label(world):
    sources = two_kinds(world)
    alone = world.samples(images={"sources": {"a": sources["a"]}})
    both = world.samples(images={"sources": sources})
    assert both[: len(alone)] == alone
    label = {one.class_name: one.label for one in both}
    assert label == {"tench": 0, "chain saw": 1, "parachute": 2, "zebra": 3}
    assert [(one.id, one.class_name) for one in both[len(alone) :]] == [
        ("images.hub/hub.parquet:0", "zebra"), ("images.hub/hub.parquet:1", "tench"), ("images.hub/hub.parquet:2", "zebra"),
    ]  # fmt: skip
    assert all(label[one.class_name] == one.label for one in both)
    summary = world.index(images={"sources": sources}).summary()
    assert summary["images.a"].classes == {"tench": 4, "chain saw": 4, "parachute": 4}
    assert summary["images.hub"].classes == {"tench": 1, "zebra": 2}


def test_a_number_that_is_a_class_of_two_sources_is_refused_until_it_has_a_name(world):
    columns = {"image": [b"1", b"2"], "label": [0, 1]}
    paths = [world.parquet(f"{name}.parquet", columns) for name in "ab"]
    sources = {name: {"kind": "parquet", "path": path} for name, path in zip("ab", paths, strict=True)}
    message = r"class 0 of corpora\.images\.sources\.a and of corpora\.images\.sources\.b is only a number"
    with pytest.raises(CorpusError, match=message):
        world.index(images={"sources": sources})
    named = {name: {**one, "names": world.bytes("n.json", b'{"0": "tench", "1": "boat"}')} for name, one in sources.items()}
    assert {one.class_name for one in world.samples(images={"sources": named})} == {"tench", "boat"}


def test_an_index_of_several_sources_is_stored_whole_and_no_chunk_mixes_them(world, tmp_path):
    world.image_folder()
    sections = {
        "images": {"sources": two_kinds(world)},
        "text": {"sources": {"z": {"path": texts(world, "z.jsonl", 5)}, "text": {"path": texts(world, "t.jsonl", 4)}}},
    }
    index = world.index(**sections)
    assert list(index.runs) == ["images.a", "images.hub", "text", "text.z"]
    index.write(str(tmp_path / "index"))
    again = Index.read(str(tmp_path / "index"))
    assert (again.digest, again.summary(), again.chunks(3)) == (index.digest, index.summary(), index.chunks(3))
    assert [(chunk.source, chunk.corpus, chunk.n_records) for chunk in again.chunks(3)] == [
        *[("images.a", "images", 3)] * 4, ("images.hub", "images", 3),
        ("text", "text", 3), ("text", "text", 1), ("text.z", "text", 3), ("text.z", "text", 2),
    ]  # fmt: skip
    backwards = {corpus: {"sources": dict(reversed(one["sources"].items()))} for corpus, one in sections.items()}
    assert world.index(**backwards).digest == index.digest


def test_pairs_of_several_sources_are_pairs_of_their_own(world):
    world.bytes("a.jpg", b"a")
    one, two = (world.jsonl(f"{n}.jsonl", [{"id": "p", "image": "a.jpg", "text": n}]) for n in ("one", "two"))
    found = world.samples(pairs={"sources": {"one": {"path": one}, "two": {"path": two, "caption_alone": False}}})
    assert [(s.id, s.text, s.pair_id) for s in found] == [
        ("pairs.one/p", "one", "pairs.one/p"), ("pairs.one/p#caption", "one", "pairs.one/p"),
        ("pairs.two/p", "two", "pairs.two/p"),
    ]  # fmt: skip


def test_sources_in_the_embedded_world_are_found_there_and_all_are_recorded_whole(world, monkeypatch):
    monkeypatch.chdir(world.root)
    corpora = world.corpora(text={"sources": {"demo": {"path": "demo://text.jsonl"}, "own": {"path": "own.jsonl"}}})
    assert list(inside_world(corpora)) == ["text.demo"]
    found = moved(corpora, place("/there")).sources
    assert [found["text.demo"].path, found["text.own"].path] == ["/there/text.jsonl", "own.jsonl"]
    write_sources(place(world.root), corpora, None)
    record = place(world.root / "sources.json").read_json()
    assert record["corpora"]["text"]["sources"]["own"]["path"] == str(world.root / "own.jsonl")
    assert record["corpora"]["text"]["sources"]["demo"]["path"] == "demo://text.jsonl"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"sources": {"wiki": {"pth": "x"}}}, "wiki.pth: there is no such field; did you mean corpora.text.sources.wiki.path?"),
        ({"sources": {"a.b": {"path": "x"}}}, "text.sources: holds a source called 'a.b': give each a name of lower"),
        ({"sources": {}}, "text.sources: holds no source: give each a name"),
        ({"sources": {"wiki": {"path": "x", "weight": 0}}}, "sources.wiki.weight: must be greater than 0, got 0"),
        ({"sources": {"wiki": {"path": "x", "weight": 3}}}, "sources.wiki.weight: must be less than or equal to 1, got 3"),
        ({"sources": {"wiki": {"kind": "tar", "path": "x"}}}, "corpora.text.sources.wiki.kind"),
        ({"sources": {"wiki": {"sources": {}}}}, "corpora.text.sources.wiki"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_source_is_named(tmp_path, section, said):
    recipe = tmp_path / "r.json"
    recipe.write_text(json.dumps({"name": "t", "corpora": {"text": section}, "model": {"path": "m"}}))
    with pytest.raises(RecipeError) as caught:
        parse("", ["--config", str(recipe)])
    assert said in str(caught.value)


def test_a_source_is_changed_on_the_command_line(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("{name: t, model: {path: m}, corpora: {text: {sources: {a: {path: x}, b: {path: y}}}}}")
    words = ["--config", str(recipe), "--corpora.text.sources", '{"a": {"weight": 0.5}, "c": {"path": "z"}}']
    found = parse("", words).recipe.corpora.sources
    assert {key: (one.path, one.weight) for key, one in found.items()} == {
        "text.a": ("x", 0.5), "text.b": ("y", 1.0), "text.c": ("z", 1.0),
    }  # fmt: skip
    with pytest.raises(ValidationError):
        Corpora.model_validate({"text": {"sources": {}}})
