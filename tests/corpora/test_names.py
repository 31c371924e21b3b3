"""Laws of class names: those of ILSVRC-2012 are known, and what is no word is found."""

import json

import pytest

from linrep.corpora.names import default_name, imagenet_names, is_word, not_words

WORDS = (
    "tench", "chain saw", "chain_saw", "French horn", "Old English sheepdog", "black-and-tan coonhound", "jack-o'-lantern",
    "bull's eye", "T-shirt", "iPod", "ox", "CD player",
    "Boeing 747", "Audi S4 Sedan 2012", "18-wheeler", "3D glasses", "crane (134)",
    "4-wheel drive car", "église", "Straßenbahn", "船", "собака",
    "कुत्ता", "facade", "decade", "added face", "class", "sports category",
    "9-spotted ladybug", "cat (animal)", "other", "background",
    "rhythm", "image of a dog", "St. Bernard", "1950s car", "group of 7 people",
)  # fmt: skip
NO_WORDS = (
    "", " ", "7", "-1", "007", "3.5", "1e9",
    "1,000", "n03000684", "N03000684", "n03000684 (2)", "n02085620-Chihuahua", "class 7", "class_7",
    "class-007", "Class7", "label_3", "category 12", "c17", "id_42",
    "img 0001", "n01", "x9", "a1b2c3", "9f86d081", "9f86d081884c7d659a2f",
    "deadbeef-c0ffee12", "123e4567-e89b-12d3-a456-426614174000", "deadbeef-dead-dead-dead-deadbeef0000",
    "nan", "NaN", "None", "null",
    "N/A", "<NA>", "undefined", "001.Black_footed_Albatross", "7_tench", "?",
    "---", "_", "x", "xkqzwrtp", "٣", "tench\u200b\x00", "\x07",
)  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_words_are_words(name):
    assert is_word(name)


@pytest.mark.parametrize("name", NO_WORDS)
def test_numbers_codes_and_placeholders_are_no_words(name):
    assert not is_word(name)


def test_those_that_are_no_words_are_named_in_their_order():
    assert not_words(["tench", "n03000684", "boat", "7"]) == ["n03000684", "7"]


def test_every_name_of_imagenet_is_a_word_and_no_wnid_is():
    names = imagenet_names()
    assert len(names) == len(set(names.values())) == 1000
    assert list(names) == sorted(names)
    assert not_words(names.values()) == []
    assert not_words(names) == list(names)
    assert (names["n01440764"], names["n03000684"], names["n15075141"]) == ("tench", "chain saw", "toilet tissue")


@pytest.mark.parametrize(
    ("class_id", "name"),
    [
        ("n03000684", "chain saw"),
        ("n02085620-Chihuahua", "Chihuahua"),
        ("n99999999_red_boat", "red boat"),
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("chain_saw", "chain saw"),
        ("n99999999", "n99999999"),
        ("class_7", "class_7"),
        ("12", "12"),
        ("", ""),
    ],
)
def test_a_class_without_a_name_is_called_by_the_words_of_its_id(class_id, name):
    assert default_name(class_id) == name


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_wnids_without_a_list_have_the_names_of_imagenet(world, kind):
    from tests.corpora.test_shards import write_tar

    wnids = ["n01440764", "n03000684", "n03888257"]
    if kind == "folder":
        path = world.image_folder()
        (world.root / "photos/classes.json").unlink()
    elif kind == "tar":
        members = [one for w in wnids for one in ((f"{w}_1.jpg", b"x"), (f"{w}_1.cls", w.encode()))]
        path = write_tar(world.root / "t/s.tar", members)
    else:
        path = world.parquet("p.parquet", {"image": [b"1", b"2", b"3"], "label": wnids})
    images = {"kind": kind, "path": path}
    assert list(world.index(images=images).summary()["images"].classes) == ["tench", "chain saw", "parachute"]
    assert {s.class_name for s in world.samples(images={**images, "classes": ["chain saw"]})} == {"chain saw"}


def test_a_list_of_names_goes_before_those_of_imagenet(world):
    path = world.image_folder()
    world.bytes("photos/classes.json", json.dumps({"n01440764": "doctor fish", "n03000684": "n04004767"}).encode())
    assert list(world.index(images={"path": path}).summary()["images"].classes) == ["doctor fish", "printer", "n03888257"]


def test_two_classes_of_one_default_name_keep_their_ids(world):
    for folder in ("001.crane", "002.crane", "boat_house"):
        world.bytes(f"d/{folder}/1.jpg", b"x")
    assert list(world.index(images={"path": str(world.root / "d")}).summary()["images"].classes) == [
        "001.crane", "002.crane", "boat house",
    ]  # fmt: skip
