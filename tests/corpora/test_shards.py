"""Laws of tar shards: neighbours with one key are one record, what is bad is skipped alone, nothing is held whole."""

import io
import json
import shutil
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from linrep.corpora.read import read
from linrep.corpora.shards import STRIDE
from linrep.errors import CorpusError
from linrep.places import place
from linrep.sample import Skipped, split_of, unit_hash

Members = list[tuple[str, bytes]]


def write_tar(file: Path, members: Members, form: int = tarfile.PAX_FORMAT) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz" if file.name.endswith(".gz") else "w", format=form) as archive:
        for name, data in members:
            if name.endswith("/"):
                folder = tarfile.TarInfo(name)
                folder.type = tarfile.DIRTYPE
                archive.addfile(folder)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return str(file)


def image_members(n: int, folder: str = "") -> Members:
    names = [(f"{folder}{i:03d}", i) for i in range(n)]
    return [one for name, i in names for one in ((f"{name}.jpg", b"image %d" % i), (f"{name}.cls", b"%d\n" % (i % 3)))]


@pytest.mark.parametrize("chunk_size", [1, 5, 100])
@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
def test_images_and_classes_come_back_in_order(world, name, chunk_size):
    world.bytes("d/classes.json", json.dumps({"0": "tench", "1": "chain saw", "2": "parachute"}).encode())
    write_tar(world.root / "d" / name, [("./", b""), *image_members(12, "./"), ("./.hidden.jpg", b"x"), ("./README", b"x")])
    images = {"kind": "tar", "path": str(world.root / "d")}
    samples = world.samples(chunk_size, images=images, splits={"val": 0.3, "test": 0.3})
    assert [(s.image, s.label) for s in samples] == [(f"image {i}".encode(), i % 3) for i in range(12)]
    assert (samples[4].id, samples[4].uri, samples[4].class_name) == (f"images/{name}/004", name, "chain saw")
    assert [s.split for s in samples] == [split_of(f"{i:03d}.jpg", 0.3, 0.3) for i in range(12)]
    assert world.index(images=images).summary()["images"].classes == {"tench": 4, "chain saw": 4, "parachute": 4}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("chunk_size", [STRIDE, 50])
def test_a_shard_can_be_entered_in_its_middle_whatever_its_names(world, form, chunk_size):
    folder = f"{'long/' * 19}" if form == tarfile.USTAR_FORMAT else f"{'é' * 60}/{'long/' * 40}"
    path = write_tar(world.root / "s.tar", image_members(3 * STRIDE + 5, folder), form)
    corpora = world.corpora(images={"kind": "tar", "path": path})
    chunks = world.chunks(chunk_size, images={"kind": "tar", "path": path})
    for chunk in reversed(chunks):
        first = chunk.number * chunk_size
        assert [s.image for s in world.read(chunk, corpora)] == [
            f"image {i}".encode() for i in range(first, first + chunk.n_records)
        ]


def test_labels_are_taken_from_json_where_there_is_no_cls(world):
    members = [("a.png", b"1"), ("a.json", b'{"kind": "boat"}'), ("b.jpeg", b"2"), ("b.json", b'{"kind": 7}'), ("c.jpg", b"3")]
    source = {"kind": "tar", "path": write_tar(world.root / "s.tar", members), "label_column": "kind"}
    found = [(s.id, s.image, s.class_name) for s in world.samples(images=source)]
    assert found == [("images/s.tar/a", b"1", "boat"), ("images/s.tar/b", b"2", "7"), ("images/s.tar/c", b"3", None)]
    chosen = world.samples(images={**source, "classes": ["boat"]})
    assert [(s.id, s.label) for s in chosen] == [("images/s.tar/a", 0)]


def test_a_bad_member_is_skipped_alone_with_its_reason(world):
    members = [
        ("good.jpg", b"1"), ("good.cls", b"3"),
        ("words.jpg", b"2"), ("words.cls", b"\xff"),
        ("broken.jpg", b"3"), ("broken.json", b"{"),
        ("list.jpg", b"4"), ("list.json", b"[1]"),
        ("deep.jpg", b"5"), ("deep.json", b'{"label": [1]}'),
        ("mask.seg.png", b"6"), ("mask.cls", b"3"),
        ("empty.jpg", b""),
        ("fine.JPG", b"7"),
        ("last.jpg", b"8" * 2000),
    ]  # fmt: skip
    path = write_tar(world.root / "s.tar", members)
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: whole.index(b"8" * 2000) + 1000])
    images = {"kind": "tar", "path": path}
    assert [s.id for s in world.outcomes(images=images) if not isinstance(s, Skipped)] == [
        "images/s.tar/good",
        "images/s.tar/fine",
    ]
    reasons = world.skipped(images=images)
    assert reasons.pop("images/s.tar/broken").startswith("broken.json is not JSON: ")
    assert reasons == {
        "images/s.tar/words": "words.cls is not UTF-8: invalid start byte at byte 0",
        "images/s.tar/list": "list.json is not a JSON object",
        "images/s.tar/deep": "field 'label' of deep.json holds list, not a class",
        "images/s.tar/mask": "no image (.jpg, .png, ...) under key 'mask'",
        "images/s.tar/empty": "empty file",
        "images/s.tar/last": "last.jpg is cut short: 1000 of 2000 bytes",
    }


def test_a_size_that_cannot_be_does_not_fill_the_memory(world):
    member = tarfile.TarInfo("huge.jpg")
    member.size = 1 << 40
    (world.root / "s.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
    (reason,) = world.skipped(images={"kind": "tar", "path": str(world.root / "s.tar")}).values()
    assert reason == f"huge.jpg has {1 << 40} bytes: more than {256 << 20} are not read"


def test_a_damaged_shard_is_refused_and_named_before_anything_is_lost(world):
    path = write_tar(world.root / "d/s.tar", image_members(5))
    data = bytearray(Path(path).read_bytes())
    data[4 * 1024 : 4 * 1024 + 8] = b"\xffdamage\xff"  # the header of the third image
    Path(path).write_bytes(data)
    with pytest.raises(CorpusError, match=r"s\.tar is damaged at byte 4096 .*what follows cannot be found"):
        world.index(images={"kind": "tar", "path": path})
    world.bytes("n.tar", b"no tar at all" * 100)
    with pytest.raises(CorpusError, match=r"n\.tar is not a tar file"):
        world.index(images={"kind": "tar", "path": str(world.root / "n.tar")})
    world.bytes("e.tar", b"\0" * 10240)
    with pytest.raises(CorpusError, match=r"no record in .*e\.tar"):
        world.index(images={"kind": "tar", "path": str(world.root / "e.tar")})


def test_shards_may_repeat_each_others_keys_but_not_their_own(world):
    for name in ("1.tar", "2.tar"):
        write_tar(world.root / "d" / name, image_members(2))
    images = {"kind": "tar", "path": str(world.root / "d/*.tar")}
    ids = [s.id for s in world.samples(images=images)]
    assert ids == ["images/1.tar/000", "images/1.tar/001", "images/2.tar/000", "images/2.tar/001"]
    write_tar(world.root / "d/2.tar", [*image_members(2), ("000.png", b"again")])
    with pytest.raises(CorpusError, match=r"id '2\.tar/000' as a key is given twice: in 2\.tar record 0 and 2\.tar record 2"):
        world.index(images=images)


def test_pairs_take_their_caption_from_txt_or_json_and_give_it_alone_too(world):
    members = [("a.jpg", b"1"), ("a.txt", b"a boat"), ("b.jpg", b"2"), ("b.json", b'{"caption": "a tree"}')]
    members += [("c.jpg", b"3"), ("d.txt", b"alone"), ("e.jpg", b"5"), ("e.json", b'{"caption": 5}')]
    pairs = {"kind": "tar", "path": write_tar(world.root / "s.tar", members)}
    found = [one for one in world.outcomes(2, pairs=pairs) if not isinstance(one, Skipped)]
    assert [(s.id, s.modality, s.image, s.text, s.uri) for s in found] == [
        ("pairs/s.tar/a", "pair", b"1", "a boat", "s.tar/a.jpg"),
        ("pairs/s.tar/a#caption", "text", None, "a boat", "s.tar"),
        ("pairs/s.tar/b", "pair", b"2", "a tree", "s.tar/b.jpg"),
        ("pairs/s.tar/b#caption", "text", None, "a tree", "s.tar"),
    ]
    reasons = world.skipped(pairs=pairs)
    assert {key: reasons[f"pairs/s.tar/{key}"] for key in "cde"} == {
        "c": "no text in column 'caption'",
        "d": "no image (.jpg, .png, ...) under key 'd'",
        "e": "column 'caption' holds int, not a text",
    }


def test_a_changed_class_changes_the_digest_and_a_copy_does_not(world):
    write_tar(world.root / "one/s.tar", image_members(4))
    shutil.copytree(world.root / "one", world.root / "two")
    write_tar(world.root / "three/s.tar", [*image_members(4)[:-1], ("003.cls", b"9\n")])
    one, two, three = (
        world.index(images={"kind": "tar", "path": str(world.root / name)}).digest for name in ("one", "two", "three")
    )
    assert one == two != three


def test_images_in_shards_are_chosen_by_hash(world):
    images = {"kind": "tar", "path": write_tar(world.root / "s.tar", image_members(30)), "max_samples": 7}
    by_hash = sorted(range(30), key=lambda i: unit_hash(f"images/s.tar/{i:03d}", "pick"))
    assert [s.image for s in world.samples(3, images=images)] == [f"image {i}".encode() for i in sorted(by_hash[:7])]


def test_a_shard_is_never_held_whole(world):
    members = [(f"{i:04d}.jpg", bytes([i % 256]) * 100_000) for i in range(200)]
    images = {"kind": "tar", "path": write_tar(world.root / "s.tar", members)}
    corpora, (chunk,) = world.corpora(images=images), world.chunks(1000, images=images)
    tracemalloc.start()
    try:
        assert sum(len(s.image) for s in read(chunk, corpora)) == 20_000_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000  # a buffer of 1 MiB, and one image now and then twice


def test_shards_in_an_object_store_give_the_same_index_and_samples(world, bucket):
    for name in ("1.tar", "2.tar.gz"):
        write_tar(world.root / "d" / name, image_members(9))
        place(bucket(f"shards/{name}")).write_bytes((world.root / "d" / name).read_bytes())
    here = {"images": {"kind": "tar", "path": str(world.root / "d")}}
    there = {"images": {"kind": "tar", "path": bucket("shards")}}
    assert world.index(**here).digest == world.index(**there).digest
    assert world.samples(4, **here) == world.samples(4, **there)
