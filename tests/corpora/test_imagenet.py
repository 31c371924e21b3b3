"""Laws of ImageNet: its classes ship with the package, and its layout on the hub is read with their names."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from linrep.corpora.ilsvrc2012 import INSTEAD, listing
from linrep.corpora.names import imagenet_names, is_imagenet, numbered_names, numbers_are_imagenets
from linrep.errors import CorpusError
from tests.corpora.conftest import jpeg

NOUNS = (
    "  1 This database is provided  \n"
    "  2   \n"
    "  3 under a license.  \n"
    "01440764 05 n 02 tench 0 Tinca_tinca 0 002 @ 01439121 n 0000 | a fish  \n"
    "03000684 06 n 0b chain_saw 0 chainsaw 0 001 @ 04140064 n 0000 | a saw  \n"
    "02012849 05 n 01 crane 0 001 @ 02000954 n 0000 | a bird  \n"
    "03126707 06 n 01 crane 4 001 @ 03700963 n 0000 | a machine  \n"
)


def test_a_name_is_the_first_lemma_of_the_synset_that_begins_at_the_wnids_byte():
    lines = listing("n03000684\nn01440764\n", NOUNS).splitlines()
    assert lines[-3:] == ["#", "n01440764 tench", "n03000684 chain saw"]
    assert "# This database is provided" in lines
    assert all(line.startswith("#") for line in lines[:-2])


def test_two_classes_never_share_a_name():
    assert listing("n02012849 n03126707", NOUNS).endswith("n02012849 crane\nn03126707 construction crane\n")
    with pytest.raises(ValueError, match="share a name"):
        listing("n02012849 n03000684", NOUNS.replace("chain_saw", "crane"))
    with pytest.raises(ValueError, match="given twice"):
        listing("n01440764 n01440764", NOUNS)
    with pytest.raises(ValueError, match=r"'n99999999' is no synset .* WordNet 3\.0"):
        listing("n99999999", NOUNS)


def test_what_ships_is_what_wordnet_says(real_data):
    glosses = pq.read_table(real_data / "text/wordnet_glosses.parquet").to_pydict()
    first = {id: text.partition(":")[0].split(", ")[0] for id, text in zip(glosses["id"], glosses["text"], strict=True)}
    for wnid, name in imagenet_names().items():
        assert name == INSTEAD.get(wnid, first[wnid])


def hub_layout(
    world, names: list[str] | None, rows: list[tuple[str, int]], name: str = "data/train-00000-of-00001.parquet"
) -> str:
    """A parquet file as ILSVRC/imagenet-1k has it: a struct of bytes and path, an integer label, names in the schema."""
    images = pa.array(
        [{"bytes": jpeg(i), "path": path} for i, (path, _) in enumerate(rows)],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"} if names else {"_type": "Value"}}
    written = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": images, "label": pa.array([label for _, label in rows], pa.int64())})
    file = world.root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(written), file, row_group_size=2)
    return str(file)


TRAIN = [
    ("n01440764_10026_n01440764.JPEG", 0),
    ("n03000684_7_n03000684.JPEG", 491),
    ("n03126707_1_n03126707.JPEG", 517),
    ("n02012849_9_n02012849.JPEG", 134),
]
"""Numbers as everybody has them, from the ILSVRC-2012 synsets in their order: 134 crane, 491 chain saw, 517 crane (machine)."""

CALLED = ["tench", "chain saw", "construction crane", "crane"]


def written_names() -> list[str]:
    """The 1,000 names as the hub's ClassLabel has them: all words of each synset, and two pairs that are the same."""
    names = [*imagenet_names().values()]
    names[0], names[491], names[517] = "tench, Tinca tinca", "chain saw, chainsaw", "crane"
    names[list(imagenet_names()).index("n03710721")] = "maillot, tank suit"
    return names


@pytest.mark.parametrize("names", [written_names(), None], ids=["names in the schema", "wnids in the paths"])
def test_the_hubs_layout_has_the_names_that_ship_with_the_package(world, names):
    path = hub_layout(world, names, TRAIN)
    found = world.samples(images={"kind": "parquet", "path": path})
    assert [one.class_name for one in found] == CALLED
    assert [one.image for one in found] == [jpeg(i) for i in range(4)]
    assert [one.id for one in found] == [f"images/train-00000-of-00001.parquet:{i}" for i in range(4)]
    chosen = world.samples(images={"kind": "parquet", "path": path, "classes": ["construction crane"]})
    assert [one.id for one in chosen] == ["images/train-00000-of-00001.parquet:2"]


def test_an_images_split_goes_with_its_name_whether_it_comes_from_the_hub_or_from_folders(world):
    for path, _ in TRAIN:
        world.bytes(f"folders/{path[:9]}/{path}", b"x")
    path = hub_layout(world, None, TRAIN)
    splits = {"val": 0.4, "test": 0.3}
    hub = world.samples(images={"kind": "parquet", "path": path}, splits=splits)
    folders = world.samples(images={"path": str(world.root / "folders")}, splits=splits)
    assert {one.class_name: one.split for one in hub} == {one.class_name: one.split for one in folders}


def test_minus_one_in_the_test_split_is_no_label(world):
    rows = [(f"ILSVRC2012_test_0000000{i}.JPEG", -1) for i in range(3)]
    path = hub_layout(world, written_names(), rows)
    index = world.index(images={"kind": "parquet", "path": path})
    assert index.summary()["images"].n_unlabelled == 3
    assert index.classes["images"] == ()
    assert {one.class_name for one in world.samples(images={"kind": "parquet", "path": path})} == {None}


def test_names_can_be_asked_for_where_nothing_says_that_it_is_imagenet(world):
    path = world.parquet("plain.parquet", {"image": [b"1", b"2"], "label": [0, 491]})
    images = {"kind": "parquet", "path": path}
    assert [one.class_name for one in world.samples(images=images)] == ["0", "491"]
    assert [one.class_name for one in world.samples(images={**images, "names": "ilsvrc2012"})] == ["tench", "chain saw"]
    wnids = world.parquet("wnids.parquet", {"image": [b"1"], "label": ["n03000684"]})
    named = world.samples(images={"kind": "parquet", "path": wnids, "names": "ilsvrc2012"})
    assert [one.class_name for one in named] == ["chain saw"]
    with pytest.raises(CorpusError, match=r"cannot read class names from .*ilsvrc2013"):
        world.index(images={**images, "names": "ilsvrc2013"})


def test_numbers_are_imagenets_only_where_every_wnid_beside_them_says_so():
    assert numbers_are_imagenets(["0", None, "491"], [TRAIN[0][0], "n01440764_1.JPEG", TRAIN[1][0]])
    assert numbers_are_imagenets(["134"], ["ILSVRC2012_val_00000293_n02012849.JPEG"])
    assert not numbers_are_imagenets(["0", "1"], [TRAIN[0][0], TRAIN[1][0]])
    assert not numbers_are_imagenets(["0"], ["tench.jpg"])
    assert not numbers_are_imagenets(["0"], ["n01440764/1.jpg"])  # a folder's name is another layout
    assert not numbers_are_imagenets([], [])
    assert not numbers_are_imagenets(["0"], ["n99999999_1.JPEG"])


def test_a_thousand_other_names_are_not_imagenets():
    names = numbered_names()
    assert is_imagenet({**names, **{str(i): f"other {i}" for i in range(10)}})
    assert not is_imagenet({**names, **{str(i): f"other {i}" for i in range(11)}})
    assert not is_imagenet({label: name for label, name in names.items() if label != "7"})
    assert not is_imagenet({})


def test_names_of_other_data_in_the_hubs_layout_stay(world):
    path = hub_layout(world, ["robin", "wren"], [("1.jpg", 1), ("0.jpg", 0)])
    assert [one.class_name for one in world.samples(images={"kind": "parquet", "path": path})] == ["wren", "robin"]
