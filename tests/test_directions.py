"""Directions: pairs derive from rows, one file carries them whole, wrong names are one line."""

import pytest
import torch

from linrep.directions import Directions, DirectionSet, read_directions, write_directions
from linrep.errors import StoreError


def directions(kind: str = "class_mean", layer: int = 2, attribute: str = "class") -> Directions:
    vectors = torch.arange(12.0).reshape(3, 4) ** 2 + layer
    return Directions(kind, layer, "pooled", "image", attribute, ("boat", "tree", "key"), vectors, 7.25)


def test_a_pair_is_the_difference_of_its_rows_and_its_reverse_the_negative():
    d = directions()
    assert d.between("boat", "key").tolist() == [64 - 0, 81 - 1, 100 - 4, 121 - 9]
    assert torch.equal(d.between("key", "boat"), -d.between("boat", "key"))
    assert d.vector("tree").tolist() == [16 + 2, 25 + 2, 36 + 2, 49 + 2]


def test_what_was_written_is_read_back(tmp_path):
    written = DirectionSet((directions(), directions("ridge"), directions("ridge", 5), directions(attribute="colour")))
    write_directions(tmp_path / "directions.safetensors", written, {"harvest": "abc"})
    read = read_directions(tmp_path / "directions.safetensors")
    assert read.parents == {"harvest": "abc"}
    assert {entry.key for entry in read.entries} == {entry.key for entry in written.entries}
    for entry in written.entries:
        again = read.select(entry.kind, entry.layer, entry.view, entry.modality, entry.attribute)
        assert torch.equal(again.vectors, entry.vectors)
        assert again.names == entry.names
        assert again.token_norm == entry.token_norm


def test_what_there_is_is_a_line_for_each_attribute_and_kind():
    found = DirectionSet((directions(), directions(layer=5), directions("ridge"), directions(attribute="colour")))
    assert str(found).splitlines() == [
        "class (3 vectors), class_mean: pooled image; layers 2, 5",
        "class (3 vectors), ridge: pooled image; layers 2",
        "colour (3 vectors), class_mean: pooled image; layers 2",
    ]
    assert str(DirectionSet(())) == "no directions"


def test_any_reader_of_safetensors_finds_the_tensors_by_their_names(tmp_path):
    from safetensors import safe_open

    write_directions(tmp_path / "d.safetensors", DirectionSet((directions(),)))
    with safe_open(tmp_path / "d.safetensors", "pt") as file:
        assert list(file.keys()) == ["class/pooled/image/class_mean/layer=2"]
        assert torch.equal(file.get_tensor("class/pooled/image/class_mean/layer=2"), directions().vectors)


def test_equal_directions_are_equal_bytes(tmp_path):
    """What is made from them is named by these bytes; the library shuffles metadata with each call."""
    file, found = tmp_path / "d.safetensors", set()
    for _ in range(20):
        write_directions(file, DirectionSet((directions(), directions("ridge"))), {"harvest": "abc"})
        found.add(file.read_bytes())
    assert len(found) == 1


def test_wrong_questions_are_one_clear_line(tmp_path):
    some = DirectionSet((directions(), directions("ridge", 5)))
    with pytest.raises(ValueError, match=r"no class 'zebra' among the directions: there are boat, tree, key$"):
        directions().between("boat", "zebra")
    with pytest.raises(StoreError, match=r"no directions of layer 3 with .*kind=ridge: there are 5$"):
        some.select("ridge", 3, "pooled", "image", "class")
    with pytest.raises(StoreError, match=r"no directions of attribute 'colour': there are class$"):
        some.select("ridge", 5, "pooled", "image", "colour")
    with pytest.raises(ValueError, match=r"directions stand twice: class/pooled/image/class_mean/layer=2"):
        DirectionSet((directions(), directions()))
    with pytest.raises(ValueError, match="2 names for 3 vectors"):
        Directions("m", 0, "pooled", "image", "class", ("a", "b"), torch.zeros(3, 4), 1.0)
    with pytest.raises(StoreError, match=r"no directions at .*nothing"):
        read_directions(tmp_path / "nothing")
    (tmp_path / "other").write_bytes(b"0123456789")
    with pytest.raises(StoreError, match="holds no directions"):
        read_directions(tmp_path / "other")
