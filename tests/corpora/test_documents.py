"""Laws of texts as folders of plain files: a file is a document and stands for itself, whatever lies beside it."""

import bz2
import gzip
import lzma
import os
import random

import pyarrow as pa
import pytest

from linrep.corpora.fetch import fetch
from linrep.corpora.index import Index
from linrep.corpora.read import read
from linrep.errors import CorpusError
from linrep.sample import Skipped, split_of, unit_hash

COMPRESS = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}  # fmt: skip


def of(world, folder: str = "notes", **more) -> dict:
    return {"path": str(world.root / folder), "documents": "files", **more}


def many(world, n: int) -> list[str]:
    names = [f"{'abc'[i % 3]}/{i:03d}.{'txt' if i % 2 else 'md'}" for i in range(n)]
    for name in names:
        world.bytes(f"notes/{name}", f"the words of {name}\non two lines\n".encode())
    return sorted(names)


@pytest.mark.parametrize("chunk_size", [1, 7, 100])
def test_every_file_is_one_document_under_its_path(world, chunk_size):
    names = many(world, 20)
    samples = world.samples(chunk_size, text=of(world), splits={"val": 0.3, "test": 0.3})
    assert [(s.id, s.text, s.uri) for s in samples] == [
        (f"text/{name}", f"the words of {name}\non two lines", name) for name in names
    ]
    assert [s.split for s in samples] == [split_of(f"text/{name}", 0.3, 0.3) for name in names]
    assert {(s.corpus, s.modality, s.label, s.image) for s in samples} == {("text", "text", None, None)}


def test_ids_texts_and_splits_stay_when_files_come_and_go(world):
    many(world, 12)
    before = world.samples(text=of(world))
    world.bytes("notes/a/000b.txt", b"between the others")
    world.bytes("notes/0.md", b"before the others")
    (world.root / "notes/b/001.txt").unlink()
    after = world.samples(text=of(world))
    gone = {"text/b/001.txt"}
    assert [s for s in after if s.id not in ("text/a/000b.txt", "text/0.md")] == [s for s in before if s.id not in gone]
    assert len(after) == 13


def test_a_line_is_a_document_unless_the_recipe_says_otherwise(world):
    world.bytes("notes/a.txt", b"one\ntwo\n")
    world.bytes("notes/read.md", b"no document of lines")
    path = str(world.root / "notes")
    for source in ({"path": path}, {"path": path, "documents": "lines"}):
        assert [(s.id, s.text) for s in world.samples(text=source)] == [("text/a.txt:0", "one"), ("text/a.txt:1", "two")]
        assert "documents" not in world.corpora(text=source).model_dump(mode="json")["text"]
    assert [(s.id, s.text) for s in world.samples(text=of(world))] == [
        ("text/a.txt", "one\ntwo"), ("text/read.md", "no document of lines"),
    ]  # fmt: skip
    assert world.corpora(text=of(world)).model_dump(mode="json")["text"]["documents"] == "files"


@pytest.mark.parametrize("where", ["notes/b/2.txt", "notes/**/*.txt", "notes/?/*"])
def test_a_file_or_a_glob_names_documents_too(world, where):
    for name in ("a/1.md", "b/2.txt", "b/3.jsonl"):
        world.bytes(f"notes/{name}", b"words")
    found = {
        "notes/b/2.txt": ["text/2.txt"],
        "notes/**/*.txt": ["text/b/2.txt"],
        "notes/?/*": ["text/a/1.md", "text/b/2.txt"],
    }
    assert [s.id for s in world.samples(text=of(world, where))] == found[where]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("compression", COMPRESS)
def test_every_marked_encoding_compression_and_line_end_gives_the_same_document(world, encoding, compression):
    text = "naïve 船\n\n  a\u2028b 𝄞"
    (world.root / "notes").mkdir()
    for i, end in enumerate(("\n", "\r\n", "\r")):
        data = (text.replace("\n", end) + end * i).encode(encoding)
        (world.root / f"notes/{i}.txt{compression}").write_bytes(COMPRESS[compression](data))
    assert [(s.id, s.text) for s in world.samples(text=of(world))] == [(f"text/{i}.txt{compression}", text) for i in range(3)]


BAD = {
    "latin.txt": ("café".encode("latin-1"), "the file is not UTF-8: unexpected end of data at byte 3"),
    "utf16.txt": ("words".encode("utf-16-le"), "the file holds zero bytes, as UTF-16 without a mark does: write it as UTF-8"),
    "half.txt": ("words".encode("utf-16")[:-1], "the file is not UTF-16: truncated data at byte 10"),
    "empty.md": (b"", "empty text"),
    "blank.md": (b" \r\n\t\n", "empty text"),
    "cut.txt.gz": (gzip.compress(random.Random(0).randbytes(9000))[:5000], "the file is damaged: "),
    "cut.txt.zst": (COMPRESS[".zst"](random.Random(0).randbytes(9000))[:5000], "the file is damaged: "),
}


def test_what_is_no_text_is_skipped_alone_with_its_reason(world):
    (world.root / "notes").mkdir()
    for name, (data, _) in BAD.items():
        (world.root / "notes" / name).write_bytes(data)
    (world.root / "notes/gone.txt").symlink_to(world.root / "nowhere")
    world.bytes("notes/good.txt", "é".encode())
    found = world.outcomes(3, text=of(world))
    assert [one.id for one in found if not isinstance(one, Skipped)] == ["text/good.txt"]
    reasons = {one.sample.id.removeprefix("text/"): one.reason for one in found if isinstance(one, Skipped)}
    assert reasons.pop("gone.txt") == "no such file"
    assert reasons.keys() == BAD.keys()
    assert {name: reasons[name][: len(said)] for name, (_, said) in BAD.items()} == {
        name: said for name, (_, said) in BAD.items()
    }
    assert not [reason for reason in reasons.values() if str(world.root) in reason]


def test_a_file_that_unpacks_without_end_does_not_fill_the_memory(world, monkeypatch):
    monkeypatch.setattr("linrep.corpora.documents.LONGEST", 1000)
    world.bytes("notes/1.txt.gz", b"x" * 1001)
    world.bytes("notes/2.txt.gz", b"x" * 1000)
    world.bytes("notes/3.txt", b"x" * 1001)
    assert world.skipped(text=of(world)) == {
        "text/1.txt.gz": "the file has more than 1000 bytes: it is not read",
        "text/3.txt": "more than 1000 bytes are not read",
    }


def test_junk_other_files_and_names_that_are_no_text_are_left_out_and_counted(world):
    names = ("a.txt", ".hidden.txt", "__MACOSX/a.txt", "a.txt~", "list.jsonl", "image.png", "page.html")
    for name in names:
        world.bytes(f"notes/{name}", b"words")
    (world.root / "notes" / os.fsdecode(b"\xff.txt")).write_bytes(b"words")
    os.mkfifo(world.root / "notes/pipe.txt")
    index = world.index(text=of(world))
    assert [run["path"] for run in index.runs["text"].to_pylist()] == ["a.txt"]
    assert index.left_out["text"]["files"] == {
        "hidden (its name begins with a dot)": 1, "left by an operating system or a tool": 2, "name is not UTF-8": 1,
        "no .txt or .md file (.html)": 1, "no .txt or .md file (.jsonl)": 1, "no .txt or .md file (.png)": 1,
        "no regular file": 1,
    }  # fmt: skip


def test_a_file_that_changed_or_went_since_it_was_indexed_is_skipped_alone(world):
    many(world, 4)
    corpora, [chunk] = world.corpora(text=of(world)), world.chunks(text=of(world))
    (world.root / "notes/a/000.md").write_bytes(b"short")
    (world.root / "notes/a/003.txt").unlink()
    found = {one.sample.id: one.reason for one in read(chunk, corpora) if isinstance(one, Skipped)}
    assert found == {
        "text/a/000.md": "has 5 bytes, the index says 35: it changed since (--reindex)",
        "text/a/003.txt": "no such file",
    }


def test_one_changed_document_changes_the_digest_and_a_copy_does_not(world):
    for folder, word in (("one", "b"), ("two", "b"), ("three", "c")):
        world.bytes(f"{folder}/1.txt", b"a")
        world.bytes(f"{folder}/2.md", word.encode())
    digests = [world.index(text=of(world, folder)).digest for folder in ("one", "two", "three")]
    assert digests[0] == digests[1] != digests[2]


def test_a_choice_goes_by_the_hash_of_the_id_and_reads_nothing_else(world, monkeypatch):
    names = many(world, 40)
    by_hash = sorted(names, key=lambda name: unit_hash(f"text/{name}", "pick"))
    half = [name for name in by_hash if unit_hash(f"text/{name}", "pick") < 0.5]
    opened = []
    monkeypatch.setattr("linrep.corpora.documents.fetch", lambda file, *more: opened.append(file.path) or fetch(file, *more))
    for more, wanted in (
        ({"max_samples": 5}, by_hash[:5]),
        ({"weight": 0.5}, half),
        ({"weight": 0.5, "max_samples": 4}, half[:4]),
    ):
        opened.clear()
        index = world.index(text=of(world, **more))
        assert [run["path"] for run in index.runs["text"].to_pylist()] == sorted(wanted)
        assert sorted(opened) == [f"{world.root}/notes/{name}" for name in sorted(wanted)]
        assert index.left_out["text"]["records"] == {"not chosen": 40 - len(wanted)}


def test_documents_lie_beside_other_sources_and_their_index_survives_its_folder(world):
    many(world, 5)
    lines = world.bytes("lines.txt", b"one\ntwo")
    sections = {"text": {"sources": {"text": {"path": lines}, "notes": of(world)}}}
    index = world.index(**sections)
    index.write(str(world.root / "index"))
    back = Index.read(str(world.root / "index"))
    assert back.digest == index.digest
    assert back.chunks(3) == index.chunks(3)
    ids = [one.id for one in world.samples(**sections)]
    assert ids == ["text/lines.txt:0", "text/lines.txt:1", *(f"text.notes/{name}" for name in many(world, 5))]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "nothing at .*notes"),
        ({"a.jsonl": b"{}"}, r"no \.txt or \.md file at .*notes"),
        ({"a.txt": b"caf\xe9", "b.txt": b""}, r"no document in .*notes can be read: a\.txt: the file is not UTF-8"),
    ],
)
def test_a_folder_without_a_document_is_one_clear_error(world, files, message):
    for name, data in files.items():
        world.bytes(f"notes/{name}", data)
    with pytest.raises(CorpusError, match=message) as caught:
        world.index(text=of(world))
    assert "\n" not in str(caught.value)
