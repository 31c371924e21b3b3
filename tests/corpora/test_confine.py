"""Laws of a list of pairs: it cannot lead out of its corpus, and nothing that a record says ends more than that record."""

import json
import os
import random
from pathlib import Path

import pytest

from linrep.corpora.confine import Fence, Outside
from linrep.corpora.read import read
from linrep.errors import CorpusError
from linrep.places import place
from linrep.sample import Skipped


def lists(world, images, **more):
    records = [{"id": str(i), "image": image, "text": "a boat"} for i, image in enumerate(images)]
    return {"path": world.jsonl("corpus/lists/l.jsonl", records), "caption_alone": False, **more}


ADDRESSES = (
    "https://example.invalid/a.jpg", "http://example.invalid/a.jpg",
    "HTTPS://example.invalid/a.jpg", "ftp://example.invalid/a.jpg",
    "data:image/png;base64,iVBORw0KGgo=", "hf://datasets/a/b/c.jpg",
    "s3://other-bucket/a.jpg", "gs://other-bucket/a.jpg", "nope://x/a.jpg",
    "hdfs://host/a.jpg", "abfs://a@b/c.jpg",
    "s3://key:secret@bucket/a.jpg?endpoint_override=evil.invalid", "file://other-host/etc/a.jpg",
    "s3://", "://", "http://[", "file://", "mock://a", "viewfs://x",
)  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_skipped_alone_and_nothing_is_contacted(world, address, monkeypatch):
    def opened(where):
        assert "://" not in where, "a place that is opened may be contacted"
        return place(where)

    monkeypatch.setattr("linrep.corpora.confine.place", opened)
    world.bytes("corpus/lists/a.jpg", b"a")
    pairs = lists(world, ["a.jpg", address, "a.jpg"])
    found = world.outcomes(pairs=pairs)
    assert [isinstance(one, Skipped) for one in found] == [False, True, False]
    assert "\n" not in found[1].reason
    assert found[1].reason
    assert "secret" not in found[1].reason


@pytest.mark.parametrize(
    "path",
    ["../../secret.jpg", "../../corpus2/b.jpg", "{root}/secret.jpg", "file://{root}/secret.jpg",
     "x/../../../secret.jpg", "link.jpg", "away/secret.jpg", "/etc/hostname", "file:{root}/secret.jpg", "//etc/hostname"]
)  # fmt: skip
def test_a_path_that_leads_out_is_skipped_unless_the_recipe_says_otherwise(world, path):
    world.bytes("secret.jpg", b"secret")
    world.bytes("corpus2/b.jpg", b"secret")
    world.bytes("corpus/lists/a.jpg", b"a")
    (world.root / "corpus/lists/link.jpg").symlink_to(world.root / "secret.jpg")
    (world.root / "corpus/lists/away").symlink_to(world.root)
    path = path.format(root=world.root)
    pairs = lists(world, ["a.jpg", path])
    good, bad = world.outcomes(pairs=pairs)
    assert good.image == b"a"
    assert isinstance(bad, Skipped)
    assert "outside the corpus" in bad.reason
    assert "corpora.pairs.outside" in bad.reason
    if "etc" not in path:
        assert world.samples(pairs={**pairs, "outside": True})[1].image == b"secret"


def test_paths_that_stay_inside_are_read_however_they_are_written(world):
    world.bytes("corpus/lists/images/a b.jpg", b"a")
    inside = world.root / "corpus/lists/images/a b.jpg"
    (world.root / "corpus/lists/link.jpg").symlink_to("images/a b.jpg")
    address = inside.as_uri()
    images = [
        "images/a b.jpg",
        "./images/a b.jpg",
        "images/../images/a b.jpg",
        str(inside),
        address,
        "link.jpg",
        "images//a b.jpg",
    ]
    assert [s.image for s in world.samples(pairs=lists(world, images))] == [b"a"] * len(images)
    (world.root / "linked").symlink_to(world.root / "corpus")  # the corpus itself may be reached over a link
    pairs = {**lists(world, images), "path": str(world.root / "linked/lists/l.jsonl")}
    assert [s.image for s in world.samples(pairs=pairs)] == [b"a"] * len(images)


def test_the_fence_is_the_folder_of_the_corpus_or_of_the_images(world):
    world.bytes("corpus/images/a.jpg", b"a")
    pairs = lists(world, ["../images/a.jpg"])
    assert world.samples(pairs={**pairs, "path": str(world.root / "corpus")})[0].image == b"a"
    assert list(world.skipped(pairs=pairs)) == ["pairs/0"]
    pairs = lists(world, ["a.jpg", "../lists/l.jsonl"], image_root=str(world.root / "corpus/images"))
    assert [isinstance(one, Skipped) for one in world.outcomes(pairs=pairs)] == [False, True]
    with pytest.raises(CorpusError, match=r"no folder of images at .*/nowhere"):
        world.index(pairs={**pairs, "image_root": str(world.root / "nowhere")})


def test_another_folder_of_images_is_another_corpus(world):
    for folder in ("one", "two"):
        world.bytes(f"{folder}/a.jpg", folder.encode())
    digests = {
        world.index(pairs=lists(world, ["a.jpg"], image_root=str(world.root / folder))).digest for folder in ("one", "two")
    }
    assert len(digests) == 2


def test_in_an_object_store_the_fence_is_the_bucket(world, bucket):
    where = bucket("fence/lists")
    root = place(where)
    for name in ("images/a.jpg", "lists/a.jpg"):
        (root.parent / name).write_bytes(b"a")
    images = ["a.jpg", "../images/a.jpg", f"s3://{root.path.split('/')[0]}/fence/images/a.jpg", "/a.jpg"]
    outside = [
        "../../../other/a.jpg",
        "s3://other/a.jpg",
        "/etc/hostname",
        Path("/etc/hostname").as_uri(),
        "https://example.invalid/a.jpg",
    ]
    records = [{"image": image, "text": "a boat"} for image in [*images, *outside]]
    (root / "l.jsonl").write_bytes("".join(json.dumps(one) + "\n" for one in records).encode())
    found = world.outcomes(pairs={"path": where, "caption_alone": False})
    assert [isinstance(one, Skipped) for one in found] == [False] * 4 + [True] * 5


def test_an_address_in_a_bucket_brings_no_key_and_no_endpoint_of_its_own(world, bucket):
    inside = place(bucket("fence"))
    name = inside.path.split("/")[0]
    found = Fence(inside).find(inside, f"s3://thief:secret@{name}/a.jpg?endpoint_override=evil.invalid")
    assert found.files is inside.files
    with pytest.raises(Outside):
        Fence(inside).find(inside, "s3://elsewhere/a.jpg?endpoint_override=evil.invalid")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "closed", "loop", "long", "backslash"])
def test_what_is_no_file_is_skipped_with_its_reason(world, kind, monkeypatch):
    folder = world.root / "corpus/lists"
    pairs = lists(world, [{"long": "x" * 5000, "backslash": "images\\a.jpg"}.get(kind, "odd.jpg")], outside=True)
    if kind == "pipe":
        os.mkfifo(folder / "odd.jpg")
    elif kind == "device":
        (folder / "odd.jpg").symlink_to("/dev/zero")
    elif kind == "folder":
        (folder / "odd.jpg").mkdir()
    elif kind == "loop":
        (folder / "odd.jpg").symlink_to("odd.jpg")
    elif kind == "closed":
        world.bytes("corpus/lists/odd.jpg", b"x")

        def closed(self):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("linrep.places.Place.read_bytes", closed)
    (reason,) = world.skipped(pairs=pairs).values()
    assert {"pipe": "no regular", "device": "no regular", "folder": "no regular", "closed": "Permission denied"}.get(
        kind, ""
    ) in reason


ODD = [
    None, "", " ", "a.jpg", "no.jpg", "/", ".", "..", "~", "~root/a.jpg",
    "a\0b", "a\ud800b", "é/船.jpg", "https://x", "data:,", "C:\\a.jpg", 7, -1,
    2.5, float("nan"), True, [], ["a.jpg"], {}, {"path": "a.jpg"},
    {"path": None}, {"bytes": "x", "path": 7}, {"bytes": None}, "x" * 300,
    10**400, "s3://b/k", Path("/a").as_uri(), "//host/share", "%00", "a.jpg?x=1", "a.jpg#b", "hf://a",
    "://", ":", "a:b", "\n", "\u202e",
]  # fmt: skip


def test_no_record_ends_more_than_itself(world):
    """A fuzz: any JSON in any field is one outcome for its record, and good records among them are read."""
    rng = random.Random(0)
    world.bytes("corpus/lists/a.jpg", b"a")
    lines = []
    for i in range(400):
        record = {"id": f"i{i}", "image": rng.choice(ODD), "text": rng.choice(ODD)}
        if i % 10 == 0:
            record |= {"image": "a.jpg", "text": "good"}
        line = json.dumps(record).encode()
        lines.append(line if rng.random() < 0.9 or i % 10 == 0 else line[: rng.randrange(1, len(line))])
    (world.root / "corpus/lists/l.jsonl").write_bytes(b"\n".join(lines))
    pairs = {"path": str(world.root / "corpus/lists/l.jsonl"), "caption_alone": False}
    corpora = world.corpora(pairs=pairs)
    found = [one for chunk in world.chunks(37, pairs=pairs) for one in read(chunk, corpora)]
    assert len(found) == 400
    assert all(one.image == b"a" for one in found[::10])
    reasons = [one.reason for one in found if isinstance(one, Skipped)]
    assert all(reason and "\n" not in reason and "Traceback" not in reason for reason in reasons)
    texts = {"path": pairs["path"]}
    assert len(world.outcomes(text=texts)) == 400


def test_an_object_that_may_not_be_read_is_skipped_alone_and_a_store_that_does_not_answer_is_tried_again(
    world, bucket, monkeypatch
):
    root = place(bucket("denied"))
    for name in ("a.jpg", "b.jpg"):
        (root / name).write_bytes(b"a")
    (root / "l.jsonl").write_bytes(b"".join(json.dumps({"image": f"{n}.jpg", "text": "x"}).encode() + b"\n" for n in "aba"))
    message = "When reading information for key 'b.jpg': AWS Error ACCESS_DENIED during HeadObject operation: No response body."
    real = type(root).read_bytes

    def denied(self):
        if self.name == "b.jpg":
            raise OSError(message)
        return real(self)

    monkeypatch.setattr(type(root), "read_bytes", denied)
    pairs = {"path": bucket("denied"), "caption_alone": False}
    assert [isinstance(one, Skipped) for one in world.outcomes(pairs=pairs)] == [False, True, False]
    message = "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 28, Timeout was reached"
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        world.outcomes(pairs=pairs)
