"""The law of accounts: what is read, what is skipped and what is left out add up to what lies there, in every kind of corpus."""

import json
import os
import random
import tarfile

import pytest

from linrep.corpora.junk import HIDDEN, JUNK, junk
from linrep.errors import CorpusError
from linrep.places import place
from linrep.sample import IMAGE_ENDINGS, Skipped
from tests.corpora.conftest import jpeg
from tests.corpora.test_shards import write_tar

JUNK_PATHS = (
    "__MACOSX/a.jpg", "__MACOSX/boat/._a.jpg", "boat/._a.jpg", ".DS_Store", "boat/.DS_Store",
    "Thumbs.db", "boat/thumbs.DB", "desktop.ini",
    ".ipynb_checkpoints/a-checkpoint.jpg", "boat/.ipynb_checkpoints/b.jpg",
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "lost+found/a.jpg",
    "$RECYCLE.BIN/S-1/a.jpg", "System Volume Information/a.jpg",
    ".git/objects/a.jpg", ".svn/a.jpg", "boat/a.jpg.part", "boat/a.jpg~",
    "boat/a.jpg.crdownload", "boat/.a.jpg.swp", "boat/a.jpg.tmp", "boat/~$a.jpg", "boat/.#a.jpg", "boat/#a.jpg#",
    ".Trash-1000/a.jpg",
    ".Spotlight-V100/a.jpg", ".fseventsd/a.jpg", "#recycle/a.jpg", "__pycache__/a.jpg", "boat/a.jpg.bak", "boat/.nfs0000a1",
)  # fmt: skip
HIDDEN_PATHS = ("boat/.mine.jpg", ".mine/a.jpg")
NOT_READ = ("boat/a.heic", "boat/a.HEIF", "boat/a.eps", "boat/a.svg", "boat/a.txt", "boat/README", "boat/a.jpg.zip", "labels.csv")
DATA = (
    "boat/a.jpg",
    "git/a.jpg",
    "boat~x/a.jpg",
    "CVS/a.jpg",
    "tmp/a.jpg",
    "boat/Icon.png",
    "part/a b.JPG",
    "boat/a (1).jpg",
    "a#b/c.jpg",
)


@pytest.mark.parametrize("path", JUNK_PATHS)
def test_junk_is_no_data(path):
    assert junk(path) == JUNK


@pytest.mark.parametrize("path", DATA)
def test_data_is_no_junk(path):
    assert junk(path) is None
    assert junk(f"./{path}") is None


def test_hidden_files_are_told_apart():
    assert [junk(path) for path in HIDDEN_PATHS] == [HIDDEN] * 2


def all_files(folder):
    return sum(len(files) for _, _, files in os.walk(folder))


def test_a_folder_of_images_accounts_for_every_file(world):
    for i, path in enumerate((*JUNK_PATHS, *HIDDEN_PATHS, *NOT_READ, *DATA)):
        world.bytes(f"d/{path}", jpeg(i))
    world.bytes("d/boat/empty.jpg", b"")
    images = {"path": str(world.root / "d")}
    found = world.outcomes(images=images)
    summary = world.index(images=images).summary()["images"]
    assert len(found) == summary.n_records == len(DATA) + 1
    assert sum(isinstance(one, Skipped) for one in found) == 1
    left_out = summary.left_out["files"]
    assert summary.n_records + sum(left_out.values()) == all_files(world.root / "d")
    assert left_out[JUNK] == len(JUNK_PATHS)
    assert left_out[HIDDEN] == len(HIDDEN_PATHS)
    assert left_out["of an image format that is not decoded (.heic)"] == 1
    assert set(summary.classes) == {path.partition("/")[0] for path in DATA}


def test_what_is_not_chosen_is_counted_too(world):
    path = world.image_folder()
    (world.root / "photos/train/loose.jpg").write_bytes(b"x")
    for choice in ({"classes": ["tench"]}, {"per_class": 2}, {"max_samples": 5}):
        summary = world.index(images={"path": path, **choice}).summary()["images"]
        assert summary.n_records + summary.left_out["records"]["not chosen"] == 13
    assert world.index(images={"path": path}).summary()["images"].n_unlabelled == 1


@pytest.mark.parametrize("ending", IMAGE_ENDINGS)
def test_every_ending_of_a_format_that_is_decoded_is_taken(world, ending):
    world.bytes(f"d/boat/a{ending}", b"1")
    world.bytes(f"d/boat/b{ending.upper()}", b"2")
    assert len(world.samples(images={"path": str(world.root / "d")})) == 2
    path = write_tar(world.root / "s.tar", [(f"a{ending}", b"1"), (f"b{ending.upper()}", b"2")])
    assert len(world.samples(images={"kind": "tar", "path": path})) == 2


def test_a_folder_without_an_image_says_what_lies_there(world):
    world.bytes("d/a.heic", b"x")
    with pytest.raises(CorpusError, match=r"no image in .*; there are 1 of an image format that is not decoded \(.heic\)"):
        world.index(images={"path": str(world.root / "d")})


def test_pipes_devices_and_folders_that_may_not_be_opened(world):
    path = world.image_folder()
    os.mkfifo(world.root / "photos/train/n01440764/pipe.jpg")
    os.symlink("/dev/zero", world.root / "photos/train/n01440764/zero.jpg")
    summary = world.index(images={"path": path}).summary()["images"]
    assert (summary.n_records, summary.left_out["files"]) == (12, {"no regular file": 2})


def test_folders_that_may_not_be_opened_are_junk_or_one_clear_error(world, monkeypatch):
    path = world.image_folder()
    real = os.scandir

    def closed(folder):
        if str(folder).endswith(("lost+found", "n0closed")):
            raise PermissionError(13, "Permission denied", folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", closed)
    (world.root / "photos/train/lost+found").mkdir()
    assert world.index(images={"path": path}).summary()["images"].left_out["files"] == {JUNK: 1}
    (world.root / "photos/train/n0closed").mkdir()
    with pytest.raises(CorpusError, match=r"the folder .*n0closed/ may not be opened"):
        world.index(images={"path": path})


def test_a_file_name_that_is_not_utf8_is_left_out_and_counted(world):
    path = world.image_folder()
    with open(os.fsencode(path) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"x")
    summary = world.index(images={"path": path}).summary()["images"]
    assert (summary.n_records, summary.left_out["files"]) == (12, {"name is not UTF-8": 1})


@pytest.mark.parametrize("form", ["jsonl", "parquet", "txt"])
def test_a_folder_of_texts_accounts_for_every_file_and_record(world, form):
    for i in range(3):
        texts = [f"text {i} {j}" for j in range(4)] + [" "] * (form != "txt")
        if form == "parquet":
            world.parquet(f"d/{i}.parquet", {"text": texts})
        elif form == "jsonl":
            world.jsonl(f"d/{i}.jsonl", [{"text": text} for text in texts])
        else:
            world.bytes(f"d/{i}.txt", "\n".join(texts).encode())
    world.bytes(f"d/empty.{form}", b"") if form != "parquet" else world.parquet("d/empty.parquet", {"text": []})
    for path in ("._0." + form, "__MACOSX/._1." + form, f"0.{form}~", "notes.md", "a.csv"):
        world.bytes(f"d/{path}", b"x")
    text = {"path": str(world.root / "d"), "max_samples": 7}
    summary = world.index(text=text).summary()["text"]
    assert summary.n_records + summary.left_out["records"]["not chosen"] == (12 if form == "txt" else 15)
    assert summary.n_files + sum(summary.left_out["files"].values()) == all_files(world.root / "d") == 9
    assert summary.left_out["files"][JUNK] == 3


@pytest.mark.parametrize("kind", ["images", "pairs"])
def test_a_shard_accounts_for_every_member(world, kind):
    rng = random.Random(3)
    n_used = n_members = 0
    members = []
    for i in range(60):
        text = rng.choice(["cls" if kind == "images" else "txt", "json", ""])
        own = [(f"{i:03d}.{rng.choice(['jpg', 'PNG', 'avif', 'jfif'])}", b"x")]
        if text:
            content = b"3" if text != "json" else json.dumps({"label": "3", "caption": "three"}).encode()
            own.append((f"{i:03d}.{text}", content))
        n_used += len(own)
        own += [(f"{i:03d}.{ending}", b"x") for ending in rng.sample(["webp", "npy", "seg.png", "md"], rng.randint(0, 2))]
        own += [
            (path, b"x") for path in rng.sample([f"__MACOSX/._{i}.jpg", f"._{i}.jpg", f".h{i}.jpg", f"README{i}", f"{i}.jpg~"], 2)
        ]
        members += own
        n_members += len(own)
    with tarfile.open(write_tar(world.root / "s.tar", [("folder/", b""), *members]), "a") as archive:
        pipe = tarfile.TarInfo("pipe.jpg")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
    source = {kind: {"kind": "tar", "path": str(world.root / "s.tar")}}
    summary = world.index(**source).summary()[kind]
    assert summary.n_records == 60
    assert n_used + sum(summary.left_out["members"].values()) == n_members + 1
    assert summary.left_out["members"]["a device or a pipe"] == 1


def test_names_with_more_dots_than_keys_may_have_are_explained(world):
    path = write_tar(world.root / "s.tar", [("photo.001.jpg", b"1"), ("photo.002.jpg", b"2")])
    (reason,) = world.skipped(images={"kind": "tar", "path": path}).values()
    assert reason.endswith("a key ends at the first dot of a name, and here follows 001.jpg, 002.jpg")


def test_junk_neither_changes_a_digest_nor_hides_in_a_bucket(world, bucket):
    world.image_folder()
    before = world.index(images={"path": str(world.root / "photos/train")})
    for path in JUNK_PATHS:
        world.bytes(f"photos/train/{path}", b"x")
    after = world.index(images={"path": str(world.root / "photos/train")})
    assert before.digest == after.digest
    for name, _ in place(str(world.root / "photos")).walk(everything=True):
        (place(bucket("junk")) / name).write_bytes((world.root / "photos" / name).read_bytes())
    there = world.index(images={"path": bucket("junk/train")})
    assert (there.digest, there.left_out) == (after.digest, after.left_out)
