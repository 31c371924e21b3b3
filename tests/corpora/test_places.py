"""Laws of places, on local disks and in an object store."""

import pickle
from dataclasses import replace

import pytest
from pyarrow import OSFile

from linrep import places
from linrep.corpora.find import find_files
from linrep.corpora.index import Index
from linrep.errors import CorpusError, PlaceError
from linrep.places import place


def test_a_local_path_and_its_file_uri_are_the_same(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x y.txt").write_bytes(b"here")
    for where in (str(tmp_path), f"file://{tmp_path}"):
        folder = place(where)
        assert folder.local
        assert (folder / "a").is_folder()
        assert (folder / "a/x y.txt").read_bytes() == b"here"
        assert list(folder.walk()) == [("a/x y.txt", 4)]
        assert (folder / "a/x y.txt").parent.name == "a"


def test_writing_makes_folders_and_replaces_whole_files(tmp_path):
    target = place(str(tmp_path)) / "new/deep/file.bin"
    for data in (b"first", b"2"):
        target.write_bytes(data)
        assert target.read_bytes() == data
    assert [name for name, _ in place(str(tmp_path)).walk()] == ["new/deep/file.bin"]
    assert len(list((tmp_path / "new/deep").iterdir())) == 1


@pytest.mark.parametrize("name", ["a.tar.gz", "b.txt"])
@pytest.mark.parametrize("local", [True, False])
def test_a_file_holds_the_bytes_that_were_written_whatever_its_name(tmp_path, name, local):
    target = replace(place(tmp_path), local=local) / name
    target.write_bytes(b"just these")
    assert (tmp_path / name).read_bytes() == target.read_bytes() == b"just these"
    with target.open() as file:
        assert (file.read(5), file.seek(2), file.read()) == (b"just ", 2, b"st these")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    target = place(str(tmp_path)) / "file"
    target.write_bytes(b"old")
    with pytest.raises(TypeError):
        target.write_bytes("no bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_also_fails_to_close_hides_no_cause_and_keeps_no_file(tmp_path, monkeypatch):
    class Full(OSFile):
        def close(self) -> None:
            super().close()
            raise OSError("no space left to close")

    monkeypatch.setattr(places, "OSFile", Full)
    with pytest.raises(RuntimeError, match="the cause"), (place(tmp_path) / "file").writing():
        raise RuntimeError("the cause")
    with pytest.raises(OSError, match="no space left to close"):  # nothing else is wrong: then it is the cause
        (place(tmp_path) / "file").write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.txt", ["1.txt"]),
        ("**/*.txt", ["1.txt", "a/2.txt", "a/b/3.txt"]),
        ("a/**", ["2.txt", "b/3.txt"]),
        ("*/?.txt", ["a/2.txt"]),
        ("a/b", ["3.txt"]),
        ("a/b/3.txt", ["3.txt"]),
    ],
)
def test_globs(tmp_path, glob, expected):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("1.txt", "a/2.txt", "a/b/3.txt", "a/.hidden"):
        (tmp_path / name).write_bytes(b"x")
    assert [name for name, _ in find_files(f"{tmp_path}/{glob}", lambda path: None).files] == expected


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://AKIA:top%2Fsecret@work/a%20b?region=eu&scheme=http&endpoint_override=h:9", "s3://work/a%20b/x?region=eu&scheme=http&endpoint_override=h:9"),
        ("s3://work/a?region=eu", "s3://work/a/x?region=eu"),
        ("gs://anonymous@work/a", "gcs://work/a/x"),
    ],
)  # fmt: skip
def test_a_place_in_an_object_store_keeps_its_key_and_options_and_shows_no_secret(uri, shown):
    inside = place(uri) / "x"
    again = place(inside.uri)
    assert (again, again.key) == (inside, inside.key)
    assert str(inside) == shown
    assert "secret" not in f"{inside} {inside!r}"
    without_key = place(str(inside))
    assert (without_key.path, without_key.key) == (inside.path, "")


def test_an_unknown_scheme_is_a_clear_error_without_its_password():
    with pytest.raises(PlaceError, match="cannot open 'nope://host/x'") as caught:
        place("nope://user:secret@host/x?key=secret")
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def bucket(s3_address):
    boto3 = pytest.importorskip("boto3")
    patch = pytest.MonkeyPatch()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "test")
    host, port = s3_address
    try:
        boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="corpora")
        yield lambda path: f"s3://corpora/{path}?region=us-east-1&scheme=http&endpoint_override={host}:{port}"
    finally:
        patch.undo()


def test_an_object_store_gives_the_same_index_and_samples(world, bucket):
    world.image_folder()
    world.parquet("text/1.parquet", {"text": [f"t{i}" for i in range(9)]}, row_group_size=4)
    world.jsonl("pairs/l.jsonl", [{"image": "../photos/train/n01440764/n01440764_0.JPEG", "text": "a tench"}])
    for name, _ in place(str(world.root)).walk():
        place(bucket(name)).write_bytes((world.root / name).read_bytes())
    place(bucket("pairs/a.jpg")).write_bytes(b"a")
    world.bytes("pairs/a.jpg", b"a")

    def sections(where):
        return {
            "images": {"path": where("photos/train")},
            "text": {"path": where("text/*.parquet")},
        }

    here, there = sections(lambda path: str(world.root / path)), sections(bucket)
    assert world.index(**here).digest == world.index(**there).digest
    assert world.samples(5, **here) == world.samples(5, **there)
    listing = [{"image": "a.jpg", "text": "x"}, {"image": "gone.jpg", "text": "x"}]
    place(bucket("pairs/l.jsonl")).write_bytes((world.root / world.jsonl("pairs/l.jsonl", listing)).read_bytes())
    there = {"pairs": {"path": bucket("pairs/l.jsonl")}}
    assert world.skipped(**there) == {"pairs/l.jsonl:1": "no such file", "pairs/l.jsonl:1#caption": "no such file"}
    index = world.index(**there)
    index.write(bucket("index"))
    assert Index.read(bucket("index")).digest == index.digest
    assert pickle.loads(pickle.dumps(place(bucket("pairs/a.jpg")))).read_bytes() == b"a"
    with pytest.raises(CorpusError, match="nothing at s3://corpora/none"):
        world.index(text={"path": bucket("none")})


@pytest.mark.parametrize("refused", [None, OSError(18, "another disk"), PermissionError("no links here")])
def test_a_copy_on_a_disk_is_another_name_or_another_file_and_appears_whole(tmp_path, monkeypatch, refused):
    def link(*_: object) -> None:
        raise refused

    if refused is not None:
        monkeypatch.setattr("os.link", link)
    source, target = place(tmp_path) / "old/file.bin", place(tmp_path) / "new/deep/file.bin"
    source.write_bytes(b"rows")
    target.write_bytes(b"what was there")
    for _ in range(2):  # and where it is there already
        source.copy_to(target)
        assert target.read_bytes() == b"rows"
        assert (tmp_path / "old/file.bin").samefile(tmp_path / "new/deep/file.bin") == (refused is None)
    # What is written to one name leaves the other as it is.
    target.write_bytes(b"another")
    assert source.read_bytes() == b"rows"
    with pytest.raises(FileNotFoundError):
        (place(tmp_path) / "none").copy_to(target)
    assert target.read_bytes() == b"another"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["file.bin", "file.bin"]


def test_a_copy_in_an_object_store_is_made_there_unless_it_is_too_large(bucket, tmp_path, monkeypatch):
    here, there = place(tmp_path) / "file.bin", place(bucket("copies")) / "a/file.bin"
    here.write_bytes(b"rows" * 1000)
    here.copy_to(there)  # from a disk
    for largest in (10**9, 100):
        monkeypatch.setattr(places, "_LARGEST_COPY", largest)
        there.copy_to(there.parent / f"copy-{largest}")
        assert (there.parent / f"copy-{largest}").read_bytes() == there.read_bytes() == b"rows" * 1000
    there.copy_to(place(tmp_path) / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == b"rows" * 1000
    with pytest.raises(FileNotFoundError):
        (there.parent / "none").copy_to(there)
    assert there.read_bytes() == b"rows" * 1000
