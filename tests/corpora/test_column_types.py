"""Laws of parquet's types: every type of text and bytes is read wherever it can stand, and any other is refused by name."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from linrep.corpora.read import read
from linrep.errors import CorpusError
from linrep.sample import Skipped
from tests.corpora.conftest import jpeg

TEXTS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "binary_view": pa.binary_view(),
    "fixed_size_binary": pa.binary(12),
    "dictionary of string": pa.dictionary(pa.int32(), pa.string()),
    "dictionary of large_string": pa.dictionary(pa.int32(), pa.large_string()),
    "dictionary of binary": pa.dictionary(pa.int8(), pa.binary()),
}
BYTES = {name: kind for name, kind in TEXTS.items() if "binary" in name and "fixed" not in name}


def column(texts, kind):
    held = kind.value_type if pa.types.is_dictionary(kind) else kind
    values = texts
    if "binary" in str(held):
        values = [None if text is None else text.encode() if isinstance(text, str) else text for text in texts]
    if pa.types.is_fixed_size_binary(held):
        values = [None if value is None else value.ljust(held.byte_width, b"\0") for value in values]
    array = pa.array(values, held)
    return array.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else array


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("chunk_size", [1, 100])
def test_texts_and_captions_of_every_type_are_read(world, kind, chunk_size):
    texts = ["naïve", None, "boat", "boat", "船"]
    world.bytes("1.jpg", b"one")
    path = world.parquet("t.parquet", {"text": column(texts, TEXTS[kind]), "image": ["1.jpg"] * 5}, row_group_size=2)
    for corpora in ({"text": {"path": path}}, {"pairs": {"path": path, "caption_alone": False}}):
        found = world.outcomes(chunk_size, **corpora)
        assert [None if isinstance(one, Skipped) else one.text for one in found] == texts
        assert [one.reason for one in found if isinstance(one, Skipped)] == ["no text in column 'text'"]


@pytest.mark.parametrize("kind", [*BYTES, "fixed_size_binary", "struct", "struct of large_binary"])
def test_images_of_every_type_of_bytes_are_read(world, kind):
    images = [jpeg(0), jpeg(1), jpeg(0)]
    if kind.startswith("struct"):
        held = pa.binary() if kind == "struct" else pa.large_binary()
        fields = pa.struct({"bytes": held, "path": pa.string()})
        array = pa.array([{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(images)], fields)
    elif kind == "fixed_size_binary":
        images = [image.ljust(2000, b"\0") for image in images]
        array = pa.array(images, pa.binary(2000))
    else:
        array = column(images, BYTES[kind])
    path = world.parquet("p.parquet", {"image": array, "text": ["a", "b", "c"]}, row_group_size=2)
    assert [s.image for s in world.samples(images={"kind": "parquet", "path": path})] == images
    assert [s.image for s in world.samples(pairs={"path": path, "caption_alone": False})] == images


@pytest.mark.parametrize("kind", [name for name in TEXTS if "string" in name])
def test_paths_of_images_of_every_type_of_text_are_read(world, kind):
    world.bytes("1.jpg", b"one")
    path = world.parquet("p.parquet", {"image": column(["1.jpg", "1.jpg"], TEXTS[kind]), "text": ["a", "b"]})
    assert [s.image for s in world.samples(pairs={"path": path, "caption_alone": False})] == [b"one", b"one"]


@pytest.mark.parametrize("kind", [name for name in TEXTS if "fixed" not in name])
def test_ids_of_every_type_are_used(world, kind):
    path = world.parquet("t.parquet", {"text": ["a", "b"], "id": column(["x", "y"], TEXTS[kind])})
    assert [s.id for s in world.samples(text={"path": path})] == ["text/x", "text/y"]


def test_ids_that_are_integral_or_missing_or_not_utf8(world):
    path = world.parquet("t.parquet", {"text": ["a", "b", "c"], "id": [2.0, None, float("nan")]})
    assert [s.id for s in world.samples(text={"path": path})] == ["text/2", "text/t.parquet:1", "text/t.parquet:2"]
    raw = pa.array([b"good", b"b\xffd"]).view(pa.string())
    path = world.parquet("u.parquet", {"text": ["a", "b"], "id": raw})
    assert [s.id for s in world.samples(text={"path": path})] == ["text/good", "text/u.parquet:1"]


OTHERS = {
    "int64": pa.array([1]),
    "double": pa.array([1.5]),
    "bool": pa.array([True]),
    "date32": pa.array([1], pa.date32()),
    "list": pa.array([["a"]]),
    "fixed_size_list": pa.array([[1, 2]], pa.list_(pa.uint8(), 2)),
    "struct": pa.array([{"a": "b"}]),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_type_is_refused_with_file_column_and_type(world, kind):
    path = world.parquet("p.parquet", {"odd": OTHERS[kind], "text": ["a"], "image": [b"1"]})
    for corpora in (
        {"text": {"path": path, "column": "odd"}},
        {"images": {"kind": "parquet", "path": path, "image_column": "odd"}},
        {"pairs": {"path": path, "image_column": "odd"}},
        {"pairs": {"path": path, "text_column": "odd"}},
    ):
        with pytest.raises(CorpusError, match=rf"column 'odd' of .*p.parquet should hold .*, not {kind}") as caught:
            world.index(**corpora)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"bytes": pa.int64()}, {"bytes": pa.string()}, {"path": pa.int64()}, {"bytes": pa.list_(pa.uint8())}]
)
def test_a_struct_whose_parts_are_no_bytes_is_refused(world, fields):
    path = world.parquet("p.parquet", {"image": pa.array([None], pa.struct(fields)), "text": ["a"]})
    with pytest.raises(CorpusError, match=r"column 'image' of .* should hold .*bytes, not struct<"):
        world.index(images={"kind": "parquet", "path": path})


def test_a_column_given_twice_is_refused(world):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, world.root / "t.parquet")
    with pytest.raises(CorpusError, match="column 'text' is given 2 times"):
        world.index(text={"path": str(world.root / "t.parquet")})


def test_extension_types_are_read_as_what_they_store(world):
    texts = pa.array([json.dumps("a"), json.dumps("b")], pa.json_())
    path = world.parquet("t.parquet", {"text": texts})
    corpora = world.corpora(text={"path": path})
    (chunk,) = world.chunks(text={"path": path})
    assert [one.text for one in read(chunk, corpora)] == ['"a"', '"b"']
