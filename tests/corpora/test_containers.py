"""Laws of texts, pairs and images in files of many records."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from linrep.corpora.lines import STRIDE
from linrep.corpora.read import read
from linrep.corpora.runs import MAX_RUN
from linrep.errors import CorpusError
from linrep.sample import Skipped, split_of, unit_hash

TRICKY = '{"text": "naïve 船"}\r\n\n{"text": "a\u2028b"}\n   \r\n{"text": "last, no line feed"}'


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.ndjson"])
@pytest.mark.parametrize("chunk_size", [1, 2, 100])
def test_lines_end_at_line_feeds_only_and_blank_ones_are_no_records(world, name, chunk_size):
    path = world.bytes(name, TRICKY.encode())
    samples = world.samples(chunk_size, text={"path": path})
    assert [(s.id, s.text) for s in samples] == [
        (f"text/{name}:0", "naïve 船"),
        (f"text/{name}:1", "a\u2028b"),
        (f"text/{name}:2", "last, no line feed"),
    ]


def test_plain_text_has_one_document_a_line(world):
    path = world.bytes("t.txt", b"\xef\xbb\xbfone\r\n\n  two \nthr\xc3\xa9e")
    assert [s.text for s in world.samples(text={"path": path})] == ["one", "  two ", "thrée"]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
@pytest.mark.parametrize("chunk_size", [700, STRIDE, 5000])
def test_offsets_into_long_files_find_their_records(world, ending, chunk_size):
    texts = [f"{'é' * (i % 7)}{i}" for i in range(3 * STRIDE + 5)]
    path = world.bytes(f"t.{ending}", "\n\n".join(json.dumps({"text": t}, ensure_ascii=False) for t in texts).encode())
    assert [s.text for s in world.samples(chunk_size, text={"path": path})] == texts


def test_a_bad_line_is_skipped_alone(world):
    lines = [b'{"text": "good"}', b'{"text": ', b"[1]", b'{"text": null}', b'{"other": 1}', b'{"text": "  "}', b'{"text": 7}']
    lines += [b'{"text": "\xff"}', b'{"text": "\\ud800"}', b'{"id": "named", "text": ""}']
    found = world.outcomes(3, text={"path": world.bytes("t.jsonl", b"\n".join(lines))})
    assert [one.id for one in found if not isinstance(one, Skipped)] == ["text/t.jsonl:0"]
    reasons = {one.sample.id: one.reason for one in found if isinstance(one, Skipped)}
    assert reasons.pop("text/t.jsonl:1").startswith("not JSON: ")
    assert reasons.pop("text/t.jsonl:8").startswith("text has half a surrogate pair")
    assert reasons == {
        "text/t.jsonl:2": "not a JSON object: [1]",
        "text/t.jsonl:3": "no text in column 'text'",
        "text/t.jsonl:4": "no text in column 'text'",
        "text/t.jsonl:5": "empty text",
        "text/t.jsonl:6": "column 'text' holds int, not a text",
        "text/t.jsonl:7": "not UTF-8: invalid start byte at byte 10",
        "text/named": "empty text",
    }


def test_ids_are_used_where_given_and_fixed_by_place_elsewhere(world):
    path = world.jsonl("t.jsonl", [{"id": 7, "text": "a"}, {"text": "b"}, {"id": "", "text": "c"}, {"id": "x/y", "text": "d"}])
    assert [s.id for s in world.samples(text={"path": path})] == ["text/7", "text/t.jsonl:1", "text/t.jsonl:2", "text/x/y"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_id_given_twice_is_named(world, ending):
    ids = ["a", "b", "c", "b", "a"]
    if ending == "jsonl":
        world.jsonl("d/1.jsonl", [{"id": i, "text": "x"} for i in ids[:2]])
        world.jsonl("d/2.jsonl", [{"id": i, "text": "x"} for i in ids[2:]])
    else:
        world.parquet("d/1.parquet", {"id": ids[:2], "text": ["x"] * 2})
        world.parquet("d/2.parquet", {"id": ids[2:], "text": ["x"] * 3})
    with pytest.raises(
        CorpusError, match=rf"id 'b' in column 'id' is given twice: in 1.{ending} record 1 and 2.{ending} record 1"
    ):
        world.index(text={"path": str(world.root / "d")})


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 8, 100])
def test_parquet_of_several_files_and_row_groups_reads_in_order(world, chunk_size):
    texts = [f"text {i}" for i in range(40)]
    world.parquet("d/b/1.parquet", {"text": texts[:17]}, row_group_size=5)
    world.parquet("d/b/2.parquet", {"text": texts[17:]}, row_group_size=8)
    samples = world.samples(chunk_size, text={"path": str(world.root / "d")})
    assert [s.text for s in samples] == texts
    assert [samples[16].id, samples[17].id, samples[39].id] == [
        "text/b/1.parquet:16",
        "text/b/2.parquet:0",
        "text/b/2.parquet:22",
    ]


def test_only_the_wanted_rows_of_a_long_row_group_are_given(world):
    texts = [str(i) for i in range(2 * MAX_RUN + 10)]
    path = world.parquet("t.parquet", {"text": texts}, row_group_size=1 << 20)
    corpora = world.corpora(text={"path": path})
    chunks = world.chunks(1000, text={"path": path})
    assert [s.text for s in world.read(chunks[4], corpora)] == texts[4000:5000]
    assert [s.text for s in world.read(chunks[-1], corpora)] == texts[8000:]


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "txt"])
def test_max_samples_takes_those_with_the_smallest_hash(world, ending):
    n, texts = 2500, [f"t{i}" for i in range(2500)]
    if ending == "parquet":
        path = world.parquet("t.parquet", {"text": texts}, row_group_size=300)
    elif ending == "jsonl":
        path = world.jsonl("t.jsonl", [{"text": t} for t in texts])
    else:
        path = world.bytes("t.txt", "\n".join(texts).encode())
    by_hash = sorted(range(n), key=lambda i: unit_hash(f"text/t.{ending}:{i}", "pick"))
    samples = world.samples(7, text={"path": path, "max_samples": 40})
    assert [s.text for s in samples] == [texts[i] for i in sorted(by_hash[:40])]


def test_a_glob_takes_what_matches(world):
    for name in ("a/1.txt", "a/b/2.txt", "a/b/3.jsonl", "c/4.txt"):
        world.bytes(name, b'{"text": "x"}')
    ids = [s.id for s in world.samples(text={"path": str(world.root / "**/*.txt")})]
    assert ids == ["text/a/1.txt:0", "text/a/b/2.txt:0", "text/c/4.txt:0"]
    assert [s.id for s in world.samples(text={"path": str(world.root / "a/*.txt")})] == ["text/1.txt:0"]
    with pytest.raises(CorpusError, match="no file matches"):
        world.index(text={"path": str(world.root / "a/*.parquet")})


def test_a_folder_of_two_formats_asks_for_a_glob(world):
    world.bytes("d/licence.txt", b"words")
    world.jsonl("d/t.jsonl", [{"text": "a"}])
    with pytest.raises(CorpusError, match=r"holds jsonl and txt files: take one kind with a glob such as .*/d/\*.jsonl"):
        world.index(text={"path": str(world.root / "d")})


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_one_changed_record_changes_the_digest_and_a_copy_does_not(world, ending):
    def write(name, word):
        if ending == "parquet":
            return world.parquet(f"{name}/t.parquet", {"text": ["a", word], "id": ["1", "2"]})
        return world.jsonl(f"{name}/t.jsonl", [{"text": "a", "id": "1"}, {"text": word, "id": "2"}])

    write("one", "b")
    write("three", "c")
    shutil.copytree(world.root / "one", world.root / "two")
    digests = [world.index(text={"path": path}).digest for path in (str(world.root / name) for name in ("one", "two", "three"))]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "nothing at .*none.jsonl"),
        ("t.csv", b"text\n", r"no \.parquet or \.jsonl or \.txt file at"),
        ("t.jsonl", b'{"body": "x", "n": 1}\n', "no column 'text' in .*t.jsonl: it has body, n"),
        ("t.jsonl", b"nonsense\n", "no record of .*t.jsonl can be read: not JSON"),
        ("t.jsonl", b"", "no record in .*t.jsonl"),
        ("t.parquet", b"PAR1 nonsense", "t.parquet is not a parquet file"),
    ],
)
def test_a_corpus_that_cannot_be_is_one_clear_error(world, name, content, message):
    path = str(world.root / name) if content is None else world.bytes(name, content)
    with pytest.raises(CorpusError, match=message) as caught:
        world.index(text={"path": path})
    assert "\n" not in str(caught.value)


def test_a_parquet_column_that_is_missing_or_of_another_type_is_named(world):
    path = world.parquet("t.parquet", {"body": ["x"], "n": [1]})
    with pytest.raises(CorpusError, match=r"no column 'text' in .*t.parquet: it has body, n"):
        world.index(text={"path": path})
    with pytest.raises(CorpusError, match=r"column 'n' of .*t.parquet should hold text, not int64"):
        world.index(text={"path": path, "column": "n"})


def test_damaged_gzip_is_a_clear_error(world):
    path = world.bytes("t.jsonl.gz", b'{"text": "x"}\n' * 5000)
    data = (world.root / "t.jsonl.gz").read_bytes()
    (world.root / "t.jsonl.gz").write_bytes(data[:-20])
    with pytest.raises(CorpusError, match=r"cannot read .*t.jsonl.gz"):
        world.index(text={"path": path})


def test_a_damaged_page_costs_only_its_rows(world):
    path = world.parquet("t.parquet", {"text": [f"{i} " * 50 for i in range(30)]}, row_group_size=10)
    corpora = world.corpora(text={"path": path})
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    [chunk] = world.chunks(text={"path": path})
    with open(path, "r+b") as file:
        file.seek(column.dictionary_page_offset or column.data_page_offset)
        file.write(b"\xff" * column.total_compressed_size)
    found = list(read(chunk, corpora))
    assert [isinstance(one, Skipped) for one in found] == [False] * 10 + [True] * 10 + [False] * 10
    assert [one.sample.id for one in found if isinstance(one, Skipped)] == [f"text/t.parquet:{i}" for i in range(10, 20)]
    assert all("damaged parquet page" in one.reason for one in found if isinstance(one, Skipped))


def test_parquet_text_that_is_not_utf8_is_skipped_alone(world):
    raw = pa.array([b"good", b"b\xffd", b"fine"]).view(pa.string())
    path = world.parquet("t.parquet", {"text": raw})
    assert world.skipped(text={"path": path}) == {"text/t.parquet:1": "text is not UTF-8"}


def test_a_container_that_changed_or_went_is_an_error_not_a_skip(world):
    path = world.jsonl("t.jsonl", [{"text": "a"}])
    corpora = world.corpora(text={"path": str(world.root)})
    [chunk] = world.chunks(text={"path": str(world.root)})
    world.jsonl("t.jsonl", [{"text": "a"}, {"text": "b"}])
    with pytest.raises(CorpusError, match="it changed; build the index anew"):
        list(read(chunk, corpora))
    (world.root / path).unlink()
    with pytest.raises(CorpusError, match="was indexed and is now missing"):
        list(read(chunk, corpora))


def test_text_splits_follow_the_id(world):
    path = world.jsonl("t.jsonl", [{"id": i, "text": "x"} for i in range(50)])
    samples = world.samples(text={"path": path}, splits={"val": 0.3, "test": 0.3})
    assert [s.split for s in samples] == [split_of(f"text/{i}", 0.3, 0.3) for i in range(50)]


HUB = {"info": {"features": {"label": {"names": ["tench", "chain saw", "parachute"], "_type": "ClassLabel"}}}}


def stored(world, **more):
    structs = [{"bytes": f"image {i}".encode(), "path": f"x/p{i}.jpg"} for i in range(12)]
    labels = [i % 3 for i in range(12)]
    schema = pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        metadata={"huggingface": json.dumps(HUB)},
    )
    path = world.parquet("hub/train-0.parquet", {"image": structs, "label": labels}, row_group_size=5, schema=schema)
    return {"kind": "parquet", "path": path, **more}


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_images_in_parquet_have_their_labels_and_names(world, chunk_size):
    samples = world.samples(chunk_size, images=stored(world), splits={"val": 0.3, "test": 0.3})
    assert [(s.image, s.label) for s in samples] == [(f"image {i}".encode(), i % 3) for i in range(12)]
    assert (samples[4].id, samples[4].class_name) == ("images/train-0.parquet:4", "chain saw")
    assert [s.split for s in samples] == [split_of(f"p{i}.jpg", 0.3, 0.3) for i in range(12)]


def test_images_in_parquet_are_chosen_by_class(world):
    source = stored(world, classes=["parachute", "1"], per_class=2)
    samples = world.samples(images=source)
    expected = []
    for label in (1, 2):
        rows = [i for i in range(12) if i % 3 == label]
        expected += sorted(rows, key=lambda i: unit_hash(f"images/train-0.parquet:{i}", "pick"))[:2]
    assert [(s.image, s.class_name) for s in samples] == [
        (f"image {i}".encode(), ["chain saw", "parachute"][i % 3 - 1]) for i in sorted(expected)
    ]
    assert {s.label for s in samples} == {0, 1}
    assert world.index(images=source).summary()["images"].classes == {"chain saw": 2, "parachute": 2}


def test_images_of_other_classes_and_of_none_are_left_out(world):
    path = world.parquet("p.parquet", {"image": [b"1", b"2", b"3", b"4"], "label": ["b", "a", None, "c"]})
    samples = world.samples(images={"kind": "parquet", "path": path, "classes": ["c", "b"]})
    assert [(s.image, s.label, s.class_name) for s in samples] == [(b"1", 0, "b"), (b"4", 1, "c")]
    with pytest.raises(CorpusError, match=r"no class 'd' in .*: it has 3, such as 'a', 'b', 'c'"):
        world.index(images={"kind": "parquet", "path": path, "classes": ["d"]})


def test_missing_images_and_labels_in_parquet(world):
    path = world.parquet("p.parquet", {"image": [b"one", None, b"", b"four"], "label": ["b", "a", "a", None], "id": [5, 6, 7, 8]})
    images = {"kind": "parquet", "path": path}
    found = [one for one in world.outcomes(images=images) if not isinstance(one, Skipped)]
    assert [(s.id, s.label, s.class_name) for s in found] == [("images/5", 1, "b"), ("images/8", None, None)]
    assert world.skipped(images=images) == {"images/6": "no image in column 'image'", "images/7": "empty file"}


def test_images_in_parquet_without_labels(world):
    path = world.parquet("p.parquet", {"image": [b"one", b"two"]})
    assert [s.label for s in world.samples(images={"kind": "parquet", "path": path})] == [None, None]
