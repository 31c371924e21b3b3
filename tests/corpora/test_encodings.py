"""Laws of texts: a file's encoding is decided once, its line ends are all known, and what is no text is refused whole."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pytest

from linrep.corpora.lines import LONGEST, STRIDE
from linrep.corpora.read import read
from linrep.corpora.streams import decoded
from linrep.errors import CorpusError
from linrep.sample import Skipped
from tests.corpora.test_shards import write_tar

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
MARKS = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff", "utf-32-le": b"\xff\xfe\0\0", "utf-32-be": b"\0\0\xfe\xff"}
ENDS = ("\n", "\r\n", "\r")
TEXTS = ["plain", "naïve 船", "a\u2028b\u2029c\x0bd\x85e", "𝄞 last"]
COMPRESS = {
    "": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress,
    "zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}  # fmt: skip


def encoded(text, encoding):
    return MARKS.get(encoding, b"") + text.encode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", ["txt", "jsonl"])
def test_every_marked_encoding_every_line_end_and_compression_gives_the_same_texts(world, encoding, form):
    lines = TEXTS if form == "txt" else [json.dumps({"text": text}, ensure_ascii=False) for text in TEXTS]
    for end in ENDS:
        for last in ("", end, end + end):
            for compression, compress in COMPRESS.items() if (end, last) == ("\r\n", "") else [("", bytes)]:
                folder = world.root / f"{ord(end[-1])}{len(end)}{len(last)}{compression}"
                folder.mkdir()
                data = encoded(end.join([*lines[:2], "", " ", *lines[2:]]) + last, encoding)
                (folder / f"t.{form}{'.' * bool(compression)}{compression}").write_bytes(compress(data))
                assert [s.text for s in world.samples(3, text={"path": str(folder)})] == TEXTS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("end", ENDS)
def test_offsets_find_their_lines_whatever_ends_them(world, encoding, end):
    texts = [f"{'é' * (i % 7)}{i}" for i in range(2 * STRIDE + 5)]
    (world.root / "t.txt").write_bytes(encoded(end.join(texts), encoding))
    corpora = world.corpora(text={"path": str(world.root)})
    chunks = world.chunks(700, text={"path": str(world.root)})
    assert [s.text for chunk in reversed(chunks) for s in reversed(world.read(chunk, corpora))] == texts[::-1]


NO_TEXT = {
    "latin-1": "café\nplain\nnaïve\n".encode("latin-1"),
    "one line of latin-1": "café\nplain\n".encode("latin-1"),
    "UTF-16 without a mark": "one\ntwo\n".encode("utf-16-le"),
    "UTF-32 without a mark": "one\ntwo\n".encode("utf-32-be"),
    "zeros": b"one\n\0\0\0\0two\n",
    "an image": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\n" * 9,
    "shift_jis": "日本語\nテキスト\n".encode("shift_jis"),
}


@pytest.mark.parametrize("kind", NO_TEXT)
def test_a_file_that_is_no_utf8_is_left_out_whole_with_one_reason(world, kind):
    world.bytes("d/1.txt", "good é\nfine\n".encode())
    (world.root / "d/2.txt").write_bytes(NO_TEXT[kind])
    found = world.outcomes(1, text={"path": str(world.root / "d")})
    assert [one.text for one in found if not isinstance(one, Skipped)] == ["good é", "fine"]
    reasons = {one.reason for one in found if isinstance(one, Skipped)}
    assert len(reasons) == 1
    assert "the file" in reasons.pop()
    assert all(one.sample.id.startswith("text/2.txt:") for one in found if isinstance(one, Skipped))
    (world.root / "d/1.txt").unlink()
    with pytest.raises(CorpusError, match=r"no record of .*2.txt can be read: the file "):
        world.index(text={"path": str(world.root / "d")})


def test_one_damaged_line_among_others_beyond_ascii_is_skipped_alone(world):
    (world.root / "t.txt").write_bytes("é\nbad \udcff\nü\n".encode(errors="surrogateescape"))
    assert list(world.skipped(text={"path": str(world.root / "t.txt")})) == ["text/t.txt:1"]


@pytest.mark.parametrize("cut", [1, 3])
def test_a_marked_file_that_is_damaged_is_one_clear_error(world, cut):
    (world.root / "t.txt").write_bytes("one\ntwo".encode("utf-16")[:-cut])
    with pytest.raises(CorpusError, match=r"t.txt has the mark of UTF-16 and is damaged"):
        world.index(text={"path": str(world.root / "t.txt")})


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "caption"])
def test_a_text_that_holds_zero_bytes_is_skipped_alone(world, kind):
    if kind == "caption":
        members = [
            ("a.jpg", b"1"),
            ("a.json", b'{"caption": "a\\u0000b"}'),
            ("b.jpg", b"2"),
            ("b.txt", "é".encode("utf-16-le") * 9),
        ]
        members += [("c.jpg", b"3"), ("c.txt", "a boat é".encode("utf-16"))]
        pairs = {"kind": "tar", "path": write_tar(world.root / "s.tar", members), "caption_alone": False}
        reasons, samples = world.skipped(pairs=pairs), [o for o in world.outcomes(pairs=pairs) if not isinstance(o, Skipped)]
        assert [s.text for s in samples] == ["a boat é"]
    elif kind == "jsonl":
        reasons = world.skipped(text={"path": world.jsonl("t.jsonl", [{"text": "good"}, {"text": "a\0b"}])})
    else:
        reasons = world.skipped(text={"path": world.parquet("t.parquet", {"text": ["good", "a\0b"]})})
    assert len(reasons) == (2 if kind == "caption" else 1)
    assert all("zero bytes" in reason or "not UTF-8" in reason for reason in reasons.values())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lists_of_names_and_members_of_shards_are_decoded_by_their_marks(world, encoding):
    path = world.image_folder()
    (world.root / "photos/classes.json").write_bytes(json.dumps({"n01440764": "Schleie é"}, ensure_ascii=False).encode(encoding))
    assert world.samples(images={"path": path})[0].class_name == "Schleie é"
    assert decoded("aé船".encode(encoding)) == "aé船"
    members = [("a.jpg", b"1"), ("a.cls", "bateau é".encode(encoding))]
    images = {"kind": "tar", "path": write_tar(world.root / "s.tar", members)}
    assert world.samples(images=images)[0].class_name == "bateau é"


@pytest.mark.parametrize(
    "data", [b'{"a": "\xe9"}', b'{"a": "b\x00"}', b"[1]", b'{"a": 1}', b'{"a": ["b"]}', b"nonsense", b"\xff\xfe\0"]
)
def test_a_list_of_names_that_is_none_is_one_clear_error(world, data):
    path = world.image_folder()
    (world.root / "photos/classes.json").write_bytes(data)
    with pytest.raises(CorpusError, match=r"cannot read class names from .*classes.json"):
        world.index(images={"path": path})


def test_a_line_without_an_end_does_not_fill_the_memory(world, monkeypatch):
    monkeypatch.setattr("linrep.corpora.lines.LONGEST", 1000)
    monkeypatch.setattr("linrep.corpora.lines._BLOCK", 64)
    lines = ["short", "x" * 5000, "é after", "y" * 1000, "z" * 1001, "last"]
    for end in ENDS:
        world.bytes("t.txt", end.join(lines).encode())
        corpora = world.corpora(text={"path": str(world.root)})
        found = [one for chunk in world.chunks(1, text={"path": str(world.root)}) for one in read(chunk, corpora)]
        assert [one.text for one in found if not isinstance(one, Skipped)] == ["short", "é after", "y" * 1000, "last"]
        assert [one.reason for one in found if isinstance(one, Skipped)] == ["a line of more than 1000 bytes"] * 2
    assert LONGEST == 64 << 20


def test_a_compressed_file_is_known_by_its_bytes_and_not_by_its_name(world):
    (world.root / "a.txt").write_bytes(gzip.compress(b"one\ntwo"))
    (world.root / "b.txt.gz").write_bytes(b"three")
    assert [s.text for s in world.samples(text={"path": str(world.root)})] == ["one", "two", "three"]


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz", "zst"])
def test_damaged_compression_is_one_clear_error(world, compression):
    data = COMPRESS[compression](b"".join(b"line %d\n" % i for i in range(20000)))
    (world.root / f"t.txt.{compression}").write_bytes(data[: len(data) // 2])
    with pytest.raises(CorpusError, match=rf"cannot read .*t.txt.{compression}"):
        world.index(text={"path": str(world.root)})
