"""Laws of documents: both forms, what is skipped and with which reason, and that every row is read, skipped or counted."""

import random

import pyarrow as pa
import pytest

from linrep.corpora import Corpora, DocumentFiles
from linrep.corpora.index import build_index
from linrep.corpora.interleaved import interleaved
from linrep.errors import CorpusError
from linrep.sample import Sample, Skipped
from tests.corpora.conftest import jpeg

PLACE = "<image>"


def rows(world, *records, name="d.jsonl"):
    for i in range(4):
        world.bytes(f"{i}.jpg", jpeg(i))
    return {"path": world.jsonl(name, [{"id": f"d{i}", **one} for i, one in enumerate(records)])}


def test_both_forms_of_a_document_are_the_same_sample(world):
    """Lists have a line's end between their places."""
    one = rows(world, {"text": f"a\n{PLACE}\nb\n{PLACE}", "images": ["1.jpg", "2.jpg"]}, name="one.jsonl")
    other = rows(world, {"text": ["a", None, "b", ""], "images": [None, "1.jpg", "", "2.jpg"]}, name="other.jsonl")
    (first,), (second,) = world.samples(documents=one), world.samples(documents=other)
    assert (first.id, first.corpus, first.modality, first.uri) == ("documents/d0", "documents", "document", "one.jsonl")
    assert first.images == (jpeg(1), jpeg(2))
    assert (first.text, first.images, first.split) == (second.text, second.images, second.split)


SKIPPED = [
    ({"text": "no place", "images": ["1.jpg"]}, "the text has other places than images: 0 and 1"),
    ({"text": PLACE * 2, "images": ["1.jpg"]}, "the text has other places than images: 2 and 1"),
    ({"text": "words", "images": []}, "the document shows no image"),
    ({"text": "words", "images": None}, "the document shows no image"),
    ({"text": ["words"], "images": [None]}, "the document shows no image"),
    ({"text": None, "images": ["1.jpg"]}, "no text in column 'text'"),
    ({"text": 7, "images": ["1.jpg"]}, "column 'text' holds int, not a text or a list of texts"),
    ({"text": PLACE, "images": "1.jpg"}, "column 'images' holds str, not a list of images"),
    ({"text": ["a", None], "images": ["1.jpg"]}, "the lists of texts and images differ in length: 2 and 1"),
    ({"text": ["a", None], "images": ["1.jpg", "2.jpg"]}, "a place of the lists holds a text and an image: number 1"),
    ({"text": ["a", None], "images": [None, None]}, "a place of the lists holds nothing: number 2"),
    ({"text": [f"a {PLACE}", None], "images": [None, "1.jpg"]}, f"a text of the list holds {PLACE} itself: number 1"),
    ({"text": [7, None], "images": [None, "1.jpg"]}, "a text of the list is int: number 1"),
    ({"text": PLACE * 4, "images": ["1.jpg"] * 4}, "the document shows more images than max_images (3): 4"),
    ({"text": f"{PLACE} {PLACE}", "images": ["1.jpg", "no.jpg"]}, "image 2 of 2: no such file"),
    ({"text": PLACE, "images": [None]}, "image 1 of 1: no image in column 'images'"),
    ({"text": PLACE, "images": ["../1.jpg"]}, "image 1 of 1: the image lies outside the corpus"),
    ({"text": PLACE, "images": ["https://x.org/1.jpg"]}, "image 1 of 1: https addresses are not fetched"),
    ({"text": f"{PLACE} \0", "images": ["1.jpg"]}, "text holds"),
]


def test_what_is_no_document_is_skipped_with_its_reason(world):
    found = world.skipped(documents={**rows(world, *(one for one, _ in SKIPPED)), "max_images": 3})
    assert list(found) == [f"documents/d{i}" for i in range(len(SKIPPED))]
    for reason, (_, expected) in zip(found.values(), SKIPPED, strict=True):
        assert reason.startswith(expected), reason


def test_a_path_that_leads_out_names_the_field_that_lets_it(world):
    more = rows(world, {"text": PLACE, "images": ["../1.jpg"]}, name="deep/d.jsonl")
    (reason,) = world.skipped(documents=more).values()
    assert "corpora.documents.image_root or corpora.documents.outside" in reason
    assert world.samples(documents={**more, "outside": True})[0].images == (jpeg(1),)
    (reason,) = world.skipped(documents={"sources": {"web": more}}).values()
    assert "corpora.documents.sources.web.outside" in reason


@pytest.mark.parametrize("seed", range(6))
def test_every_row_is_read_skipped_or_counted(world, seed):
    """Rows drawn from good ones and bad ones in both forms, in files of both formats, with and without a choice of them."""
    draw = random.Random(seed)
    good = [
        {"text": f"a {PLACE} b {PLACE}", "images": ["1.jpg", "2.jpg"]},
        {"text": PLACE, "images": ["3.jpg"]},
        {"text": ["a", None, "b"], "images": [None, "1.jpg", None]},
    ]
    chosen = [draw.choice([*good, *(one for one, _ in SKIPPED)]) for _ in range(draw.randrange(20, 60))]
    given = rows(world, *chosen, name=f"s.jsonl{draw.choice(('', '.gz'))}")
    choice = draw.choice([{}, {"weight": 0.5}, {"max_samples": 7}])
    section = {**given, **choice, "max_images": 3}
    index = world.index(documents=section)
    found = world.outcomes(draw.choice((1, 3, 100)), documents=section)
    n_left = index.left_out["documents"].get("records", {}).get("not chosen", 0)
    assert len(found) + n_left == len(chosen)
    for one in found:
        sample = one.sample if isinstance(one, Skipped) else one
        assert isinstance(one, Sample) == (chosen[int(sample.id.removeprefix("documents/d"))] in good)


@pytest.mark.parametrize(
    ("columns", "refusal"),
    [
        ({"text": ["a"]}, "no column 'images'"),
        ({"text": [1], "images": [["1.jpg"]]}, "column 'text' of .* should hold texts or lists of texts, not int64"),
        ({"text": ["a"], "images": ["1.jpg"]}, "column 'images' of .* should hold lists of paths or bytes, not string"),
        ({"text": ["a"], "images": [[1]]}, "column 'images' of .* should hold lists of paths or bytes, not list<"),
    ],
)
def test_columns_that_hold_something_else_are_refused(world, columns, refusal):
    with pytest.raises(CorpusError, match=refusal):
        world.index(documents={"path": world.parquet("d.parquet", columns)})


def test_a_damaged_text_in_a_list_costs_its_own_row_alone(world):
    world.bytes("1.jpg", jpeg(1))
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"), pa.py_buffer(b"\1"))
    good = pa.array(["a", None])
    texts = pa.ListArray.from_arrays([0, 2, 4], pa.concat_arrays([good, bad]))
    path = world.parquet("d.parquet", {"text": texts, "images": [[None, "1.jpg"]] * 2})
    first, second = world.outcomes(documents={"path": path})
    assert (first.text, first.images) == (f"a\n{PLACE}", (jpeg(1),))
    assert second.reason == "a text of the list is not UTF-8: number 1"


def test_texts_of_bytes_and_images_of_both_are_read(world):
    """As columns of every binary type hold them, and as `datasets` writes an image that is absent."""
    source = DocumentFiles(path="x")
    absent = {"bytes": None, "path": None}
    assert interleaved([b"a", None], [absent, {"bytes": b"1", "path": "p"}], source).text == f"a\n{PLACE}"
    kind = pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    images = pa.array([[{"bytes": b"one", "path": "1.jpg"}]], kind)
    path = world.parquet("d.parquet", {"text": pa.array([b"a <image>"], pa.large_binary()), "images": images})
    assert [(one.text, one.images) for one in world.samples(documents={"path": path})] == [("a <image>", (b"one",))]


def test_what_is_shown_and_how_many_images_decide_the_index_and_nothing_else_does(world):
    given = rows(world, {"text": PLACE, "images": ["1.jpg"]})
    digest = world.index(documents=given).digest
    assert world.index(documents={**given, "max_images": 9}).digest != digest
    assert world.index(documents={**given, "outside": True}).digest != digest
    texts = {"path": world.jsonl("t.jsonl", [{"text": "a"}])}
    alone, beside = world.index(text=texts), world.index(text=texts, documents=given)
    assert beside.digests["text"] == alone.digests["text"]
    assert "documents" not in Corpora.model_validate({"text": texts}).model_dump()
    assert build_index(Corpora.model_validate(Corpora.model_validate({"documents": given}).model_dump())).digest == digest
