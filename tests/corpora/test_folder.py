"""Laws of images in class folders."""

import json
import os
import shutil

import pytest

from linrep.corpora.index import Index
from linrep.corpora.read import read
from linrep.errors import CorpusError
from linrep.sample import Skipped, split_of, unit_hash


def test_labels_are_ranks_of_the_sorted_folders_and_names_come_from_the_list_beside_them(world):
    samples = world.samples(images={"path": world.image_folder()})
    assert [(s.id, s.label, s.class_name) for s in samples[3:5]] == [
        ("images/n01440764/n01440764_3.JPEG", 0, "tench"),
        ("images/n03000684/n03000684_0.JPEG", 1, "chain saw"),
    ]
    assert samples[0].image == (world.root / "photos/train/n01440764/n01440764_0.JPEG").read_bytes()
    assert {s.modality for s in samples} == {"image"}
    assert samples[0].uri == "n01440764/n01440764_0.JPEG"


def test_a_copy_elsewhere_has_the_same_digest_and_bytes(world):
    path = world.image_folder()
    shutil.copytree(world.root / "photos", world.root / "far" / "away")
    for file in (world.root / "far").rglob("*"):
        os.utime(file, (1, 1))
    one, other = world.index(images={"path": path}), world.index(images={"path": str(world.root / "far/away/train")})
    one.write(str(world.root / "a"))
    other.write(str(world.root / "b"))
    assert one.digest == other.digest
    for name in ("index.json", "index.parquet"):
        assert (world.root / "a" / name).read_bytes() == (world.root / "b" / name).read_bytes()
    assert str(world.root) not in (world.root / "a/index.json").read_text()


@pytest.mark.parametrize("change", ["size", "name", "gone", "class name", "splits", "classes"])
def test_any_change_of_content_or_choice_changes_the_digest(world, change):
    path = world.image_folder()
    before = world.index(images={"path": path}).digest
    file = world.root / "photos/train/n01440764/n01440764_0.JPEG"
    more, images = {}, {"path": path}
    if change == "size":
        file.write_bytes(file.read_bytes() + b"x")
    elif change == "name":
        file.rename(file.with_name("other.JPEG"))
    elif change == "gone":
        file.unlink()
    elif change == "class name":
        world.bytes("photos/classes.json", json.dumps({"n01440764": "fish"}).encode())
    elif change == "splits":
        more = {"splits": {"val": 0.2, "test": 0.1}}
    else:
        images["classes"] = ["tench"]
    assert world.index(images=images, **more).digest != before


def test_the_order_of_listing_does_not_matter(world, monkeypatch):
    path = world.image_folder()
    before = world.index(images={"path": path})
    real = os.scandir

    class Backwards:
        def __init__(self, folder):
            with real(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Backwards)
    after = world.index(images={"path": path})
    assert after.digest == before.digest
    assert after.runs["images"].equals(before.runs["images"])


def test_classes_are_taken_by_wnid_or_name_and_numbered_after_the_choice(world):
    samples = world.samples(images={"path": world.image_folder(), "classes": ["Parachute", "n03000684"]})
    assert {(s.class_name, s.label) for s in samples} == {("chain saw", 0), ("parachute", 1)}
    assert len(samples) == 8


def test_an_unknown_class_is_named_with_its_near_matches(world):
    with pytest.raises(CorpusError, match=r"no class 'chainsaw' in .*: did you mean 'chain saw'\?"):
        world.index(images={"path": world.image_folder(), "classes": ["chainsaw"]})


def test_a_name_of_two_classes_needs_the_id(world):
    path = world.image_folder()
    world.bytes("photos/classes.json", json.dumps({"n01440764": "crane", "n03000684": "crane"}).encode())
    with pytest.raises(CorpusError, match="'crane' is the name of n01440764, n03000684"):
        world.index(images={"path": path, "classes": ["crane"]})
    assert list(world.index(images={"path": path}).summary()["images"].classes) == ["n01440764", "n03000684", "n03888257"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca\nn03000684 chain saw, chainsaw\n"),
        ("imagenet_class_index.json", json.dumps({"0": ["n01440764", "tench"], "491": ["n03000684", "chain_saw"]})),
    ],
)
def test_the_lists_of_imagenet_are_understood(world, name, content):
    path = world.image_folder()
    (world.root / "photos/classes.json").unlink()
    world.bytes(f"photos/{name}", content.encode())
    assert list(world.index(images={"path": path}).summary()["images"].classes) == ["tench", "chain saw", "n03888257"]


def test_per_class_takes_those_with_the_smallest_hash(world):
    path = world.image_folder(per_class=9)
    expected = set()
    for wnid in ("n01440764", "n03000684", "n03888257"):
        ids = [f"images/{wnid}/{wnid}_{i}.JPEG" for i in range(9)]
        expected |= set(sorted(ids, key=lambda name: unit_hash(name, "pick"))[:2])
    assert {s.id for s in world.samples(images={"path": path, "per_class": 2})} == expected


def test_a_larger_choice_holds_the_smaller(world):
    path = world.image_folder(per_class=9)
    chosen = [{s.id for s in world.samples(images={"path": path, "max_samples": n})} for n in (5, 11, 500)]
    assert [len(one) for one in chosen] == [5, 11, 27]
    assert chosen[0] < chosen[1] < chosen[2]


def test_images_without_a_class_folder_have_no_label(world):
    world.bytes("flat/a.png", b"1")
    world.bytes("flat/b.jpg", b"2")
    assert [(s.id, s.label, s.class_name) for s in world.samples(images={"path": str(world.root / "flat")})] == [
        ("images/a.png", None, None),
        ("images/b.jpg", None, None),
    ]


def test_other_and_hidden_files_are_no_images(world):
    path = world.image_folder()
    for name in ("README.md", ".hidden.jpg", "n01440764/notes.txt", ".cache/n1/a.jpg"):
        world.bytes(f"photos/train/{name}", b"x")
    assert len(world.samples(images={"path": path})) == 12


def test_a_bad_file_is_skipped_with_its_reason_and_its_id(world):
    path = world.image_folder()
    folder = world.root / "photos/train/n01440764"
    (folder / "n01440764_1.JPEG").write_bytes(b"")
    (folder / "n01440764_9.JPEG").symlink_to(folder / "nowhere")
    corpora = world.corpora(images={"path": path})
    [chunk] = world.chunks(images={"path": path})
    (folder / "n01440764_2.JPEG").unlink()
    (folder / "n01440764_3.JPEG").write_bytes(b"short")
    found = list(read(chunk, corpora))
    skipped = {one.sample.id[-6:-5]: one.reason for one in found if isinstance(one, Skipped)}
    assert len(found) == chunk.n_samples == 13
    assert skipped.pop("3").startswith("has 5 bytes, the index says ")
    assert skipped == {"1": "empty file", "2": "no such file", "9": "no such file"}


def test_links_are_followed_and_circles_end(world):
    path = world.image_folder()
    outside = world.root / "outside"
    outside.mkdir()
    (outside / "z.jpg").write_bytes(b"z")
    (world.root / "photos/train/n09").symlink_to(outside)
    (outside / "back").symlink_to(world.root / "photos/train")
    ids = [s.id for s in world.samples(images={"path": path})]
    assert "images/n09/z.jpg" in ids
    assert len(ids) == 13


def test_splits_follow_the_file_name_not_the_folder(world):
    world.bytes("one/a/x_1.jpg", b"1")
    world.bytes("two/deep/b/x_1.jpg", b"1")
    splits = {"val": 0.3, "test": 0.3}
    found = [world.samples(images={"path": str(world.root / folder)}, splits=splits)[0].split for folder in ("one", "two")]
    assert found == [split_of("x_1.jpg", 0.3, 0.3)] * 2


@pytest.mark.parametrize(("name", "message"), [("missing", "no folder of images at"), ("empty", "no image in")])
def test_a_missing_or_empty_folder_is_one_clear_error(world, name, message):
    (world.root / "empty").mkdir()
    with pytest.raises(CorpusError, match=f"{message} {world.root / name}"):
        world.index(images={"path": str(world.root / name)})


def test_an_index_survives_its_folder(world):
    index = world.index(images={"path": world.image_folder(), "per_class": 3})
    index.write(str(world.root / "index"))
    back = Index.read(str(world.root / "index"))
    assert back.digest == index.digest
    assert back.summary() == index.summary()
    assert back.chunks(4) == index.chunks(4)


def test_no_index_and_a_damaged_one_are_clear_errors(world):
    with pytest.raises(CorpusError, match="no index in"):
        Index.read(str(world.root))
    world.index(images={"path": world.image_folder()}).write(str(world.root / "i"))
    (world.root / "i/index.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorpusError, match="damaged"):
        Index.read(str(world.root / "i"))
