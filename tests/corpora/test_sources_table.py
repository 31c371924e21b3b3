"""The documentation's table of sources, row by row: each example is written, indexed and read as a harvest reads it."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub.utils import close_session

from documentation.sources_page import FORMS, Form, sources_table
from linrep.corpora import Corpora, ImageFolder
from linrep.corpora.containers import ALLOWED
from linrep.corpora.documents import FORMATS
from linrep.corpora.files import format_of
from linrep.corpora.index import Index, build_index
from linrep.corpora.kinds import Containers, TextFiles
from linrep.corpora.read import read as read_chunk
from linrep.corpora.streams import COMPRESSIONS
from linrep.places import place
from linrep.sample import Sample
from tests.corpora.conftest import jpeg
from tests.hub.conftest import point_to
from tests.hub.fake_hub import FakeHub

PAGE = Path(__file__).resolve().parents[2] / "docs/corpora.md"
ONE, TWO, THREE = (jpeg(shade) for shade in (10, 20, 30))


class Case(NamedTuple):
    """Files, by their path below `data` or the bucket, and the samples in them: id, class, text, image or images."""

    files: dict[str, bytes]
    samples: list[tuple[str, str | None, str | None, bytes | tuple[bytes, ...] | None]]


def jsonl(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records).encode()


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def stored(*images: tuple[bytes | None, str | None]) -> pa.Array:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.array([{"bytes": image, "path": path} for image, path in images], kind)


def tar(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def both(name: str, text: str, image: bytes) -> list[tuple[str, str | None, str | None, bytes | None]]:
    return [(name, None, text, image), (f"{name}#caption", None, text, None)]


def taken(name: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(b"pick\0" + name.encode()).digest()[:8], "big") < share * 2**64


FOLDERS = Case(
    {"birds/robin/1.jpg": ONE, "birds/robin/deep/2.jpg": TWO, "birds/wren/3.png": THREE, "birds/README.md": b"no image"},
    [
        ("images/robin/1.jpg", "robin", None, ONE),
        ("images/robin/deep/2.jpg", "robin", None, TWO),
        ("images/wren/3.png", "wren", None, THREE),
    ],
)
WIKI = jsonl({"text": "naïve 船"}, {"text": "two\nlines"}, {"id": "Robin", "text": "a bird"})
WIKI_TEXTS = ["naïve 船", "two\nlines", "a bird"]
NOTES = {"notes/2024/june.md": b"June\r\n\r\nwarm\r\n", "notes/a.txt": b"a", "notes/b.txt.gz": gzip.compress("é".encode())}
NOTE_TEXTS = {"2024/june.md": "June\n\nwarm", "a.txt": "a", "b.txt.gz": "é"}
LIST = jsonl({"image": "1.jpg", "text": "a robin"}, {"id": "w", "image": "deep/2.jpg", "text": "a wren"})


def wiki(end: str, compress: Callable[[bytes], bytes] = bytes) -> Case:
    ids = [f"text/wiki.jsonl{end}:0", f"text/wiki.jsonl{end}:1", "text/Robin"]
    texts = [(name, None, text, None) for name, text in zip(ids, WIKI_TEXTS, strict=True)]
    return Case({f"wiki.jsonl{end}": compress(WIKI)}, texts)


def listed(where: str, images: str) -> Case:
    files = {where: LIST, f"{images}/1.jpg": ONE, f"{images}/deep/2.jpg": TWO}
    return Case(files, [*both("pairs/captions.jsonl:0", "a robin", ONE), *both("pairs/w", "a wren", TWO)])


IMAGENET = Case(
    {
        "imagenet-1k/data/test-00000-of-00001.parquet": parquet(
            image=stored((ONE, "ILSVRC2012_test_00000001.JPEG")), label=pa.array([-1], pa.int64())
        ),
        "imagenet-1k/data/train-00000-of-00001.parquet": parquet(
            image=stored((TWO, "n03000684_7_n03000684.JPEG"), (THREE, "n01440764_1_n01440764.JPEG")), label=[491, 0]
        ),
        "imagenet-1k/README.md": b"no image",
    },
    [
        ("images/data/test-00000-of-00001.parquet:0", None, None, ONE),
        ("images/data/train-00000-of-00001.parquet:0", "chain saw", None, TWO),
        ("images/data/train-00000-of-00001.parquet:1", "tench", None, THREE),
    ],
)

CASES: dict[str, Case] = {
    "images: {path: data/birds}": FOLDERS,
    'images: {path: "s3://bucket/birds"}': FOLDERS,
    "images: {kind: parquet, path: data/birds/*.parquet, label_column: species}": Case(
        {"birds/train.parquet": parquet(image=[ONE, TWO, THREE], species=["wren", None, "robin"])},
        [
            ("images/train.parquet:0", "wren", None, ONE),
            ("images/train.parquet:1", None, None, TWO),
            ("images/train.parquet:2", "robin", None, THREE),
        ],
    ),
    "images: {kind: parquet, path: data/imagenet-1k}": IMAGENET,
    "images: {kind: tar, path: data/birds/*.tar}": Case(
        {
            "birds/0.tar": tar(**{"0001.jpg": ONE, "0001.cls": b"robin\n", "0002.jpg": TWO, "0002.json": b'{"label": "wren"}'}),
            "birds/1.tar": tar(**{"0001.png": THREE}),
        },
        [
            ("images/0.tar/0001", "robin", None, ONE),
            ("images/0.tar/0002", "wren", None, TWO),
            ("images/1.tar/0001", None, None, THREE),
        ],
    ),
    "text: {path: data/wiki.jsonl}": wiki(""),
    "text: {path: data/wiki.jsonl.gz}": wiki(".gz", gzip.compress),
    "text: {path: data/wiki.jsonl.bz2}": wiki(".bz2", bz2.compress),
    "text: {path: data/wiki.jsonl.xz}": wiki(".xz", lzma.compress),
    "text: {path: data/wiki.jsonl.zst}": wiki(".zst", lambda data: pa.Codec("zstd").compress(data, asbytes=True)),
    "text: {path: data/wiki, column: body, id_column: title}": Case(
        {
            "wiki/1.parquet": parquet(title=["Robin", None], body=["a bird", "words"]),
            "wiki/2.parquet": parquet(title=[7], body=["7"]),
        },
        [("text/Robin", None, "a bird", None), ("text/1.parquet:1", None, "words", None), ("text/7", None, "7", None)],
    ),
    "text: {path: data/lines.txt}": Case(
        {"lines.txt": "one\r\n\n  two é\rthree".encode()},
        [
            ("text/lines.txt:0", None, "one", None),
            ("text/lines.txt:1", None, "  two é", None),
            ("text/lines.txt:2", None, "three", None),
        ],
    ),
    "text: {path: data/notes, documents: files}": Case(
        {**NOTES, "notes/list.jsonl": WIKI}, [(f"text/{name}", None, text, None) for name, text in NOTE_TEXTS.items()]
    ),
    "pairs: {path: data/coco/captions.jsonl}": listed("coco/captions.jsonl", "coco"),
    "pairs: {path: data/captions.jsonl, image_root: data/photos}": listed("captions.jsonl", "photos"),
    "pairs: {path: data/coco, text_column: caption, caption_alone: false}": Case(
        {
            "coco/bytes.parquet": parquet(image=[THREE], caption=["a wren"]),
            "coco/paths.parquet": parquet(image=["2.jpg"], caption=["two robins"]),
            "coco/struct.parquet": parquet(image=stored((ONE, "1.jpg"), (None, "2.jpg")), caption=["a robin", "two more"]),
            "coco/2.jpg": TWO,
        },
        [
            ("pairs/bytes.parquet:0", None, "a wren", THREE),
            ("pairs/paths.parquet:0", None, "two robins", TWO),
            ("pairs/struct.parquet:0", None, "a robin", ONE),
            ("pairs/struct.parquet:1", None, "two more", TWO),
        ],
    ),
    "pairs: {kind: tar, path: data/coco.tar}": Case(
        {
            "coco.tar": tar(
                **{"0001.jpg": ONE, "0001.txt": b"a robin", "0002.jpg": TWO, "0002.json": b'{"caption": "two robins"}'}
            )
        },
        [*both("pairs/coco.tar/0001", "a robin", ONE), *both("pairs/coco.tar/0002", "two robins", TWO)],
    ),
    "documents: {path: data/guides/*.parquet}": Case(
        {
            "guides/1.parquet": parquet(text=["<image> a wren<image>", "one <image>"], images=[["2.jpg", "1.jpg"], ["2.jpg"]]),
            "guides/2.parquet": parquet(id=["b"], text=["of bytes <image>"], images=[[THREE]]),
            "guides/3.parquet": parquet(
                text=["of both: <image>, <image>"],
                images=pa.array([[{"bytes": ONE, "path": None}, {"bytes": None, "path": "2.jpg"}]]),
            ),
            "guides/2.jpg": TWO,
            "guides/1.jpg": ONE,
        },
        [
            ("documents/1.parquet:0", None, "<image> a wren<image>", (TWO, ONE)),
            ("documents/1.parquet:1", None, "one <image>", (TWO,)),
            ("documents/b", None, "of bytes <image>", (THREE,)),
            ("documents/3.parquet:0", None, "of both: <image>, <image>", (ONE, TWO)),
        ],
    ),
    "documents: {path: data/guides.jsonl, image_root: data/photos}": Case(
        {"guides.jsonl": jsonl({"text": "a <image>", "images": ["1.jpg"]}), "photos/1.jpg": ONE},
        [("documents/guides.jsonl:0", None, "a <image>", (ONE,))],
    ),
    "documents: {path: data/obelics, text_column: texts}": Case(
        {
            "obelics/0.parquet": parquet(
                texts=[["first", None, "second", "third", None]], images=[[None, "1.jpg", None, None, "2.jpg"]], url=["u"]
            ),
            "obelics/1.jpg": ONE,
            "obelics/2.jpg": TWO,
        },
        [("documents/0.parquet:0", None, "first\n<image>\nsecond\nthird\n<image>", (ONE, TWO))],
    ),
    'images: {kind: parquet, path: "hf://datasets/ILSVRC/imagenet-1k/data/train-*.parquet"}': Case(
        {path.removeprefix("imagenet-1k/"): data for path, data in IMAGENET.files.items()},
        [(name.replace("/data/", "/"), *rest) for name, *rest in IMAGENET.samples[1:]],
    ),
    'text: {path: "hf://datasets/OWNER/NAME@v1/wiki/*.jsonl.gz"}': Case(
        {"wiki/0.jsonl.gz": gzip.compress(WIKI), "wiki/notes.txt": b"no JSONL"},
        [(name.replace("wiki.jsonl.gz", "0.jsonl.gz"), *rest) for name, *rest in wiki(".gz").samples],
    ),
    "text: {sources: {text: {path: data/wiki.jsonl}, notes: {path: data/notes, documents: files, weight: 0.5}}}": Case(
        {"wiki.jsonl": WIKI, **NOTES},
        [
            *wiki("").samples,
            *((f"text.notes/{name}", None, text, None) for name, text in NOTE_TEXTS.items() if taken(f"text.notes/{name}", 0.5)),
        ],
    ),
}
"""By the example in the row."""


def moved(value: Any, roots: dict[str, Callable[[str], str]]) -> Any:
    """A recipe's section with other roots of its paths."""
    if isinstance(value, dict):
        return {name: moved(inner, roots) for name, inner in value.items()}
    root = next((root for root in roots if isinstance(value, str) and value.startswith(root)), None)
    return value if root is None else roots[root](value.removeprefix(root))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as fake:
        point_to(fake.url, tmp_path, monkeypatch)
        yield fake
        close_session()


def written(form: Form, files: dict[str, bytes], folder: Path, request: pytest.FixtureRequest) -> Corpora:
    """The corpora of a row's example, whose files lie where its paths lead."""
    section = yaml.safe_load(form.recipe)
    if found := re.search(r"hf://datasets/(\w+/[\w-]+)(@v1)?/", form.recipe):
        repository = request.getfixturevalue("hub").make(found[1], "dataset")
        repository.put(files)
        if found[2]:
            repository.tags["v1"] = repository.head
            repository.put(dict.fromkeys(files, b"what came later"))
        return Corpora.model_validate(section)
    roots: dict[str, Callable[[str], str]] = {"data/": lambda path: str(folder / "data" / path)}
    if "s3://" in form.recipe:
        bucket = request.getfixturevalue("bucket")
        roots = {"s3://bucket/": lambda path: bucket(f"{folder.name}/{path}")}
    (under,) = roots.values()
    for path, data in files.items():
        place(under(path)).write_bytes(data)
    return Corpora.model_validate(moved(section, roots))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.recipe)
def test_a_row_gives_the_samples_that_were_written(form: Form, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    assert form.recipe in CASES, "a row of the table without a case: write what its example holds, by hand"
    case = CASES[form.recipe]
    corpora = written(form, case.files, tmp_path, request)
    build_index(corpora).write(str(tmp_path / "index"))
    index = Index.read(str(tmp_path / "index"))
    found = [sample for chunk in index.chunks(2) for sample in read_chunk(chunk, index.pinned(corpora))]
    assert [one for one in found if not isinstance(one, Sample)] == []
    assert [
        (one.id, one.class_name, one.text, one.images or one.image) for one in found if isinstance(one, Sample)
    ] == case.samples
    assert form.id == case.samples[0][0]
    assert index.n_samples == len(case.samples)
    labels = {one.class_name: one.label for one in found if isinstance(one, Sample)}
    assert [(one.class_name is None) == (one.label is None) for one in found if isinstance(one, Sample)] == [True] * len(found)
    assert len(set(labels.values())) == len(labels)


def test_every_row_has_a_case_and_every_case_a_row() -> None:
    assert sorted(CASES) == sorted(form.recipe for form in FORMS)


def test_every_kind_format_and_compression_that_is_read_has_a_row() -> None:
    seen = set()
    for form in FORMS:
        sources = Corpora.model_validate(yaml.safe_load(form.recipe)).sources.values()
        seen |= {(type(source), format_of(path)) for source in sources for path in CASES[form.recipe].files}
    assert set(ALLOWED) == set(get_args(Containers))
    needed = {(kind, name) for kind, names in ALLOWED.items() for name in names} | {(TextFiles, name) for name in FORMATS}
    assert needed | {(ImageFolder, "")} <= seen
    ends = {path[path.rfind(".") :] for case in CASES.values() for path in case.files}
    assert set(COMPRESSIONS) <= ends


def test_the_page_has_the_table_once_and_a_line_of_four_cells_for_each_row() -> None:
    assert PAGE.read_text(encoding="utf-8").count("<!-- made by the build: sources -->") == 1
    lines = sources_table().splitlines()
    assert len(lines) == 2 + len(FORMS)
    assert {line.count("|") for line in lines} == {5}
    assert all(f"`{form.recipe}`" in line for form, line in zip(FORMS, lines[2:], strict=True))
