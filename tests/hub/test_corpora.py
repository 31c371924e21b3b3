"""Corpora on the hub are those on a disk: streamed by ranges, held to the commit that was indexed, and only ever read."""

import io
import json
import pickle
import random
import re
from pathlib import Path
from typing import Any

import huggingface_hub.constants as constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from documentation.sources_page import FORMS, Form
from linrep.contents.sources import SOURCES, write_sources
from linrep.corpora import Corpora
from linrep.corpora.index import Index, build_index
from linrep.corpora.read import read
from linrep.errors import CorpusError, HubError
from linrep.places import place
from linrep.repository.streamed import open_place
from linrep.sample import Sample, Skipped
from tests.corpora.test_sources_table import CASES, moved
from tests.hub.conftest import point_to
from tests.hub.fake_hub import WRITES, Answer, Asked, FakeHub, refused

HERE = "hf://datasets/me/corpus"
NOTES = {"notes/a.txt": b"one", "notes/b/c.md": b"two"}


def notes(address: str = f"{HERE}/notes") -> Corpora:
    return Corpora.model_validate({"text": {"path": address, "documents": "files"}})


def outcomes(index: Index, corpora: Corpora, chunk_size: int = 3) -> list[Sample | Skipped]:
    return [one for chunk in index.chunks(chunk_size) for one in read(chunk, index.pinned(corpora))]


def texts(index: Index, corpora: Corpora) -> list[str | None]:
    return [one.text for one in outcomes(index, corpora) if isinstance(one, Sample)]


def asked_bytes(hub: FakeHub) -> int:
    """Bytes of files that were asked for; a request without a range is for all of a file, and none is to be made."""
    found = [one.headers.get("range") for one in hub.asked if "/resolve/" in one.path and one.method == "GET"]
    spans = [re.fullmatch(r"bytes=(\d+)-(\d+)", span or "") for span in found]
    assert None not in spans
    return sum(int(span[2]) - int(span[1]) + 1 for span in spans if span)


@pytest.mark.parametrize(
    "form", [form for form in FORMS if "data/" in form.recipe and "://" not in form.recipe], ids=lambda form: form.recipe
)
def test_every_form_gives_on_the_hub_what_it_gives_on_a_disk(form: Form, hub: FakeHub, tmp_path: Path) -> None:
    case, section = CASES[form.recipe], yaml.safe_load(form.recipe)
    hub.make("me/corpus", "dataset").put(case.files)
    for path, data in case.files.items():
        (place(tmp_path) / path).write_bytes(data)
    disk = Corpora.model_validate(moved(section, {"data/": lambda path: f"{tmp_path}/{path}"}))
    there = Corpora.model_validate(moved(section, {"data/": lambda path: f"{HERE}/{path}"}))
    one, other = build_index(disk), build_index(there)
    assert other.digest == one.digest
    assert outcomes(other, there) == outcomes(one, disk)
    assert hub.changes == []


def test_what_is_read_is_the_commit_that_was_indexed(hub: FakeHub, tmp_path: Path) -> None:
    repository = hub.make("me/corpus", "dataset")
    repository.put(NOTES)
    first = repository.head
    index = build_index(notes())
    assert index.pins == {"text": {"path": first}}
    assert index.pinned(notes()).text.path == f"hf://datasets/me/corpus@{first}/notes"
    repository.put({"notes/a.txt": b"ONE", "notes/new.txt": b"three"})
    index.write(str(tmp_path / "index"))
    assert texts(Index.read(str(tmp_path / "index")), notes()) == ["one", "two"]
    assert texts(build_index(notes()), notes()) == ["ONE", "two", "three"]
    assert texts(build_index(notes(f"{HERE}@{first}/notes")), notes(f"{HERE}@{first}/notes")) == ["one", "two"]


def test_a_commit_that_changes_no_file_of_a_source_changes_no_digest(hub: FakeHub) -> None:
    repository = hub.make("me/corpus", "dataset")
    repository.put(NOTES)
    before = build_index(notes())
    repository.put({"README.md": b"words", "other/d.txt": b"four"})
    after = build_index(notes())
    assert (after.digest, after.digests) == (before.digest, before.digests)
    assert after.pins != before.pins


def test_all_sources_of_a_repository_are_of_one_commit(hub: FakeHub) -> None:
    repository = hub.make("me/corpus", "dataset")
    repository.put({**NOTES, "list/l.jsonl": b'{"image": "1.jpg", "text": "x"}', "images/1.jpg": b"1"})
    corpora = Corpora.model_validate(
        {"text": notes().text, "pairs": {"path": f"{HERE}/list/l.jsonl", "image_root": f"{HERE}/images"}}
    )
    index = build_index(corpora)
    assert index.pins == {"pairs": {"path": repository.head, "image_root": repository.head}, "text": {"path": repository.head}}
    assert len([one for one in hub.asked if one.path == "/api/datasets/me/corpus"]) == 1


def test_only_the_bytes_that_are_wanted_come(hub: FakeHub) -> None:
    """Of 12 MB of images: the labels and a sample of the content for the index, then the row groups of a chunk."""
    images = [random.Random(i).randbytes(1 << 16) for i in range(200)]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": images, "label": [i % 7 for i in range(200)]}), buffer, row_group_size=10)
    size = len(buffer.getvalue())
    hub.make("me/corpus", "dataset").put({"data/train.parquet": buffer.getvalue()})
    corpora = Corpora.model_validate({"images": {"kind": "parquet", "path": f"{HERE}/data"}})
    index = build_index(corpora)
    assert asked_bytes(hub) < size / 3
    hub.asked.clear()
    found = list(read(index.chunks(10)[12], index.pinned(corpora)))
    assert [one.image for one in found if isinstance(one, Sample)] == images[120:130]
    assert asked_bytes(hub) < size / 10


def test_the_token_goes_to_the_hub_alone(hub: FakeHub) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["one"]}), buffer)
    hub.make("me/corpus", "dataset", private=True).put({"t.parquet": buffer.getvalue()})
    corpora = Corpora.model_validate({"text": {"path": f"{HERE}/t.parquet"}})
    assert texts(build_index(corpora), corpora) == ["one"]
    elsewhere = [one for one in hub.asked if one.host.startswith("localhost")]
    assert elsewhere
    assert {one.token for one in elsewhere} == {None}


def test_a_place_travels_without_token_and_listing(hub: FakeHub) -> None:
    hub.make("me/corpus", "dataset").put(NOTES)
    folder = open_place(f"{HERE}/notes")
    assert sorted(folder.walk()) == [("a.txt", 3), ("b/c.md", 3)]
    sent = pickle.dumps(folder)
    assert WRITES.encode() not in sent
    assert b"c.md" not in sent
    again = pickle.loads(sent)
    assert (again, str(again)) == (folder, f"{HERE}/notes")
    assert (again / "b/c.md").read_bytes() == b"two"
    assert [(again / name).exists() for name in ("b", "b/c.md", "b/d.md", "none/c.md")] == [True, True, False, False]
    assert folder.parent.parent.exists() is False  # above the repository there is nothing


def test_nothing_is_ever_written(hub: FakeHub) -> None:
    hub.make("me/corpus", "dataset").put(NOTES)
    file = open_place(f"{HERE}/notes/a.txt")
    for write in (
        lambda: file.write_bytes(b"mine"),
        lambda: file.copy_to(file.parent / "b.txt"),
        lambda: file.files.delete_file(file.path),
        lambda: file.files.delete_dir(file.parent.path),
        lambda: file.files.move(file.path, f"{file.path}2"),
        lambda: file.files.create_dir(f"{file.parent.path}/new"),
    ):
        with pytest.raises(PermissionError, match="hf://datasets/me/corpus is read and never written"):
            write()
    assert hub.changes == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("hf://datasets/me/none/x", r"corpora\.text: no dataset repository me/none on http://\S+, or this token may not see it$"),
        ("hf://me/corpus/notes", r"no model repository me/corpus .*; the address of a dataset begins with hf://datasets/$"),
        ("hf://datasets/me", r"'hf://datasets/me' is no address of the hub: an address reads hf://OWNER/NAME/FOLDER"),
        (f"{HERE}@v9/notes", r"the dataset repository me/corpus has no revision 'v9': name another after the @"),
        (f"{HERE}/none", r"nothing at hf://datasets/me/corpus@\w{40}/none: give a file, a folder or a glob"),
        (f"{HERE}/none/*.txt", r"nothing at hf://datasets/me/corpus@\w{40}/none/\*\.txt"),
        (f"{HERE}/notes/*.jsonl", r"no file matches hf://datasets/me/corpus@\w{40}/notes/\*\.jsonl"),
        (f"{HERE}/../x", r"is no (address|folder)"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_clear_line(hub: FakeHub, path: str, said: str) -> None:
    hub.make("me/corpus", "dataset").put(NOTES)
    with pytest.raises(CorpusError, match=said) as caught:
        build_index(notes(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("known", [False, True])
def test_without_a_connection_the_line_says_how_to_fetch_it_elsewhere(
    hub: FakeHub, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the cache knows the commit, since it does not hold the files."""
    hub.make("me/corpus", "dataset").put(NOTES)
    if known:
        build_index(notes())
    command = r"`hf download me/corpus --repo-type dataset --local-dir data/corpus`"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CorpusError, match=rf"corpora\.text: HF_HUB_OFFLINE is set, .*; or fetch it .*{command}"):
        build_index(notes())
    if not known:
        point_to("http://127.0.0.1:9", tmp_path, monkeypatch)
        with pytest.raises(CorpusError, match=rf"corpora\.text: cannot reach http://127\.0\.0\.1:9 .*; or fetch it .*{command}"):
            build_index(notes())


def test_what_may_pass_is_tried_again_and_what_will_not_is_said(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.make("me/corpus", "dataset").put(NOTES)
    corpora = notes()
    index = build_index(corpora)

    def answer(found: Answer) -> Any:
        return lambda one: found if one.path.endswith("a.txt") and one.method == "GET" else None

    for found, error, said in (
        (refused(503, "", "busy"), OSError, "does not work now"),
        (Answer(206, b"o", {"Content-Range": "bytes 0-0/3"}), OSError, r"a\.txt gave 1 bytes, not the 3 that were asked for"),
        (refused(403, "", "not yours"), HubError, r"\(403: not yours\): log in anew"),
    ):
        hub.fault = answer(found)
        with pytest.raises(error, match=said):
            outcomes(index, corpora)
    hub.fault = lambda one: None
    assert texts(index, corpora) == ["one", "two"]


LIST = [
    {"image": "../images/1.jpg", "text": "beside"},
    {"image": f"{HERE}/images/2.jpg", "text": "by its address"},
    {"image": "../../../other/images/1.jpg", "text": "above"},
    {"image": "hf://datasets/me/other/images/1.jpg", "text": "another repository"},
    {"image": f"{HERE}/../other/images/1.jpg", "text": "a way out"},
]


@pytest.mark.parametrize("outside", [False, True])
def test_a_list_leads_to_no_other_repository(hub: FakeHub, outside: bool) -> None:
    for name in ("me/corpus", "me/other"):
        hub.make(name, "dataset").put({"images/1.jpg": b"1", "images/2.jpg": b"2"})
    hub.of("me/corpus", "dataset").put({"lists/l.jsonl": "".join(json.dumps(one) + "\n" for one in LIST).encode()})
    corpora = Corpora.model_validate({"pairs": {"path": f"{HERE}/lists", "outside": outside, "caption_alone": False}})
    found = outcomes(build_index(corpora), corpora)
    assert [(one.text, one.image) for one in found if isinstance(one, Sample)] == [("beside", b"1"), ("by its address", b"2")]
    assert len([one for one in found if isinstance(one, Skipped)]) == 3
    assert not [one for one in hub.asked if "me/other" in one.path]


def test_the_record_beside_an_index_keeps_the_address(hub: FakeHub, tmp_path: Path) -> None:
    hub.make("me/corpus", "dataset").put(NOTES)
    write_sources(place(tmp_path), notes(), None)
    record = json.loads((tmp_path / SOURCES).read_text())
    assert Corpora.model_validate(record["corpora"]) == notes()


def test_names_of_classes_may_lie_there_too(hub: FakeHub) -> None:
    hub.make("me/corpus", "dataset").put(
        {"birds/n1/1.jpg": b"1", "birds/classes.json": b'{"n1": "robin"}', "l.json": b'{"n1": "wren"}'}
    )
    for more, name in (({}, "robin"), ({"names": f"{HERE}/l.json"}, "wren")):
        corpora = Corpora.model_validate({"images": {"path": f"{HERE}/birds", **more}})
        [sample] = outcomes(build_index(corpora), corpora)
        assert isinstance(sample, Sample)
        assert sample.class_name == name


def asked(hub: FakeHub) -> list[Asked]:
    return [one for one in hub.asked if "me/corpus" in one.path]


def test_a_harvest_reads_the_commit_that_was_indexed_and_asks_no_more_for_a_plan(
    hub: FakeHub, random_vlm: Any, tmp_path: Path
) -> None:
    from linrep.harvest.config import HarvestConfig
    from linrep.harvest.plan import plan_harvest
    from tests.cluster.test_harvest import harvest_plainly

    repository = hub.make("me/corpus", "dataset")
    repository.put(NOTES)
    config = HarvestConfig(layers=(1,), views=("pooled",), chunk_size=8)
    workspace = place(tmp_path / "ws")
    plan = plan_harvest("t", notes(), random_vlm, config, workspace)
    repository.put({"notes/a.txt": b"ONE", "notes/new.txt": b"three"})
    hub.asked.clear()
    again = plan_harvest("t", notes(), random_vlm, config, workspace)
    assert asked(hub) == []
    assert (again.job.corpora, again.place) == (plan.job.corpora, plan.place)
    store = harvest_plainly(again)
    assert store.samples()["text"].to_pylist() == ["one", "two"]
