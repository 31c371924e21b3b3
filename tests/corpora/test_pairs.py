"""Laws of image-caption pairs, and of several corpora together."""

import pickle

import pyarrow as pa
import pytest

from linrep.corpora import Corpora
from linrep.corpora.index import build_index
from linrep.corpora.read import read
from linrep.errors import CorpusError


def listing(world, n=6, **more):
    for i in range(n):
        world.bytes(f"coco/images/{i}.jpg", f"image {i}".encode())
    records = [{"id": f"c{i}", "image": f"images/{i}.jpg", "text": f"caption {i}", **more} for i in range(n)]
    return world.jsonl("coco/captions.jsonl", records)


def test_a_pair_comes_whole_and_as_its_caption_alone(world):
    pair, caption = world.samples(pairs={"path": listing(world, 1)})
    assert (pair.id, pair.modality, pair.image, pair.text, pair.uri) == (
        "pairs/c0",
        "pair",
        b"image 0",
        "caption 0",
        "images/0.jpg",
    )
    assert (caption.id, caption.modality, caption.image, caption.text) == ("pairs/c0#caption", "text", None, "caption 0")
    assert pair.pair_id == caption.pair_id == "pairs/c0"
    assert pair.split == caption.split


def test_captions_alone_can_be_left_out(world):
    pairs = {"path": listing(world), "caption_alone": False}
    assert [s.id for s in world.samples(pairs=pairs)] == [f"pairs/c{i}" for i in range(6)]
    assert [chunk.n_samples for chunk in world.chunks(4, pairs=pairs)] == [4, 2]


def test_chunks_count_both_forms(world):
    assert [(c.n_records, c.n_samples) for c in world.chunks(4, pairs={"path": listing(world)})] == [(4, 8), (2, 4)]


def test_images_may_lie_elsewhere(world):
    world.bytes("photos/a.jpg", b"a")
    path = world.jsonl("lists/deep/l.jsonl", [{"image": "a.jpg", "text": "x"}])
    world.bytes("lists/deep/b.jpg", b"b")
    other = world.jsonl("lists/deep/m.jsonl", [{"image": "b.jpg", "text": "x"}])
    assert world.samples(pairs={"path": path, "image_root": str(world.root / "photos")})[0].image == b"a"
    assert world.samples(pairs={"path": other})[0].image == b"b"
    assert world.samples(pairs={"path": str(world.root / "lists/**/m.jsonl")})[0].image == b"b"


@pytest.mark.parametrize("kind", ["bytes", "struct", "path"])
def test_pairs_in_parquet(world, kind):
    world.bytes("1.jpg", b"one")
    images = {"bytes": [b"one"], "struct": [{"bytes": b"one", "path": "1.jpg"}], "path": ["1.jpg"]}[kind]
    path = world.parquet("p.parquet", {"image": images, "text": ["caption"], "id": [3]})
    pair, caption = world.samples(pairs={"path": path})
    assert (pair.id, pair.image, pair.uri) == ("pairs/3", b"one", "p.parquet" if kind == "bytes" else "1.jpg")
    assert caption.text == "caption"


def test_a_pair_that_lacks_a_half_is_skipped_in_both_forms(world):
    world.bytes("ok.jpg", b"ok")
    world.bytes("empty.jpg", b"")
    records = [
        {"id": "fine", "image": "ok.jpg", "text": "x"},
        {"id": "gone", "image": "no.jpg", "text": "x"},
        {"id": "empty", "image": "empty.jpg", "text": "x"},
        {"id": "null", "image": None, "text": "x"},
        {"id": "silent", "image": "ok.jpg", "text": ""},
        {"id": "zero", "image": "a\0b.jpg", "text": "x"},
        {"id": "folder", "image": "", "text": "x"},
    ]
    pairs = {"path": world.jsonl("l.jsonl", records)}
    skipped = world.skipped(pairs=pairs)
    expected = {
        "gone": "no such file",
        "empty": "empty file",
        "null": "no image in column 'image'",
        "silent": "empty text",
        "zero": "cannot be read: embedded null byte",
        "folder": "no image in column 'image'",
    }
    assert skipped == {f"pairs/{name}{form}": reason for name, reason in expected.items() for form in ("", "#caption")}
    assert len(world.outcomes(pairs=pairs)) == 14


def test_a_missing_column_is_named(world):
    with pytest.raises(CorpusError, match=r"no column 'caption' in .*captions.jsonl: it has id, image, text"):
        world.index(pairs={"path": listing(world), "text_column": "caption"})
    path = world.parquet("p.parquet", {"image": pa.array([1]), "text": ["x"]})
    with pytest.raises(CorpusError, match=r"column 'image' of .* should hold a path or bytes, not int64"):
        world.index(pairs={"path": path})


def everything(world) -> Corpora:
    folder = world.image_folder(per_class=7)
    world.parquet("text/1.parquet", {"text": [f"t{i}" for i in range(23)]}, row_group_size=6)
    world.parquet("text/2.parquet", {"text": [f"u{i}" for i in range(11)]}, row_group_size=4)
    return world.corpora(
        images={"path": folder, "max_samples": 19},
        text={"path": str(world.root / "text"), "max_samples": 30},
        pairs={"path": listing(world, 13)},
        splits={"val": 0.25, "test": 0.25},
    )


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 7, 16, 19, 1000])
def test_every_sample_is_read_exactly_once_whatever_the_chunk_size(world, chunk_size):
    corpora = everything(world)
    index = build_index(corpora)
    chunks = index.chunks(chunk_size)
    parts = [world.read(pickle.loads(pickle.dumps(chunk)), corpora) for chunk in chunks]
    ids = [one.id for part in parts for one in part]
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert [len(part) for part in parts] == [chunk.n_samples for chunk in chunks]
    assert all({one.corpus for one in part} == {chunk.corpus} for chunk, part in zip(chunks, parts, strict=True))
    assert len(ids) == len(set(ids)) == index.n_samples == 19 + 30 + 2 * 13
    whole = [one for chunk in index.chunks(10**6) for one in world.read(chunk, corpora)]
    assert [one for part in parts for one in part] == whole


def test_a_chunk_carries_only_its_own_runs(world):
    path = world.image_folder(per_class=500)
    chunks = world.chunks(10, images={"path": path})
    assert len(pickle.dumps(chunks[70])) < 6000


def test_an_image_falls_on_one_side_through_either_corpus(world):
    folder = world.image_folder(per_class=40)
    images = [f"{name[:9]}/{name}" for name in (f"n01440764_{i}.JPEG" for i in range(40))]
    path = world.jsonl("captions.jsonl", [{"image": image, "text": "a tench"} for image in images])
    corpora = world.corpora(images={"path": folder}, pairs={"path": path, "image_root": folder}, splits={"val": 0.3, "test": 0.3})
    sides: dict[str, set[str]] = {}
    by_pair: dict[str, set[str]] = {}
    for chunk in build_index(corpora).chunks(50):
        for one in world.read(chunk, corpora):
            if one.image is not None:
                sides.setdefault(one.uri, set()).add(one.split)
            if one.pair_id is not None:
                by_pair.setdefault(one.pair_id, set()).add(one.split)
    assert len(sides) == 120
    assert len(by_pair) == 40
    assert all(len(side) == 1 for side in [*sides.values(), *by_pair.values()])
    assert {side for one in sides.values() for side in one} == {"train", "val", "test"}


def test_a_chunk_of_an_absent_corpus_is_refused(world):
    [chunk] = world.chunks(pairs={"path": listing(world)})
    with pytest.raises(CorpusError, match=r"corpora\.pairs, which this recipe does not have"):
        read(chunk, world.corpora(images={"path": world.image_folder()}))


def test_a_recipe_needs_a_corpus_and_something_to_train_on(world):
    with pytest.raises(ValueError, match="at least one of images, text, pairs and documents"):
        world.corpora()
    with pytest.raises(ValueError, match="leave nothing to train on"):
        world.corpora(text={"path": "x"}, splits={"val": 0.5, "test": 0.5})
