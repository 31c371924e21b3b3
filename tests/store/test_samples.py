"""Who is drawn together, whose class is whose: images that share a file name stay apart, captions stay with theirs."""

import pytest

from linrep.store.samples import class_values, read_samples
from linrep.store.write import samples_table

CLASSES = ("boat", "tree", "key")


def image_row(folder: str, name: str, label: int | None = None, class_name: str | None = None) -> dict:
    uri = f"{folder}/{name}"
    own = {"label": label, "class_name": class_name, "n_image_tokens": 4, "n_text_tokens": 0}
    return {"sample_id": f"images/{uri}", "corpus": "images", "modality": "image", "uri": uri, "split": "test", **own}


def pair(number: int, uri: str, file: str = "captions.jsonl") -> list[dict]:
    name = f"pairs/{number}"
    own = {"corpus": "pairs", "pair_id": name, "text": "a boat", "split": "test", "n_image_tokens": 4, "n_text_tokens": 2}
    shown = {**own, "sample_id": name, "modality": "pair", "uri": uri}
    return [shown, {**own, "sample_id": f"{name}#caption", "modality": "text", "uri": file}]


def clusters(rows: list[dict]) -> dict[str, int]:
    samples = read_samples(samples_table(rows))
    return dict(zip(samples.ids, samples.clusters.tolist(), strict=True))


def test_images_of_one_file_name_in_different_folders_are_drawn_apart():
    rows = [image_row(CLASSES[c], f"{i:04d}.jpg", c, CLASSES[c]) for i in range(22) for c in range(3)]
    assert len(set(clusters(rows).values())) == 66


def test_captions_of_one_image_are_drawn_together_and_those_of_another_apart():
    rows = [*pair(0, "images/boat/0001.jpg"), *pair(1, "images/boat/0001.jpg"), *pair(2, "images/tree/0001.jpg")]
    found = clusters(rows)
    assert found["pairs/0#caption"] == found["pairs/1#caption"] != found["pairs/2#caption"]
    assert found["pairs/0#caption"] != found["pairs/0"]  # image rows and text rows never count as one


def test_captions_whose_images_lie_in_one_container_are_drawn_by_their_pair():
    found = clusters([*pair(0, "a.parquet", "a.parquet"), *pair(1, "a.parquet", "a.parquet")])
    assert found["pairs/0#caption"] != found["pairs/1#caption"]


@pytest.mark.parametrize("beside", [[], [image_row("boat", "0001.jpg", 0, "boat")], pair(0, "a.jpg")], ids=len)
def test_a_document_takes_no_part_whatever_lies_beside_it(beside):
    own = {"sample_id": "documents/d", "corpus": "documents", "modality": "document", "uri": "images/boat/0001.jpg"}
    own |= {"split": "test", "text": "a <image>", "n_image_tokens": 4, "n_text_tokens": 2}
    samples = read_samples(table := samples_table([*beside, own]))
    assert (samples.role[-1], samples.image_path[-1], samples.drawn_as[-1]) == ("", "", "documents/d")
    assert class_values(table, samples)[-1] is None
    assert not any(samples.of(m)[-1] for m in ("image", "text"))


@pytest.mark.parametrize("shift", ["images/", "/data/", ""])
def test_a_caption_has_the_class_of_the_image_whose_path_ends_like_its_own(shift):
    rows = [image_row(CLASSES[c], "0001.jpg", c, CLASSES[c]) for c in range(3)]
    rows += pair(0, f"{shift}tree/0001.jpg") + pair(1, "0001.jpg") + pair(2, "tree/0002.jpg")
    samples = read_samples(table := samples_table(rows))
    named = dict(zip(samples.ids, class_values(table, samples), strict=True))
    assert named["pairs/0#caption"] == named["pairs/0"] == "tree"
    assert named["pairs/1#caption"] is None  # one of three: nobody knows which
    assert named["pairs/2#caption"] is None


def test_two_classes_of_one_name_are_told_apart_by_their_numbers():
    rows = [image_row(f"n{c}", f"{c}.jpg", c, name) for c, name in ((134, "crane"), (517, "crane"), (2, "boat"))]
    table = samples_table(rows)
    assert class_values(table, read_samples(table)) == ["crane (134)", "crane (517)", "boat"]
