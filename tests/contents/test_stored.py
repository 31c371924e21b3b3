"""Contents of a store from its workspace alone: the corpus's own bytes, whole texts, wherever the workspace lies by now."""

import shutil

import pytest

from linrep.contents.sources import SOURCES, write_sources
from linrep.contents.stored import open_contents
from linrep.corpora import Corpora, ImageFolder, PairFiles, TextFiles
from linrep.demo.config import DemoWorld
from linrep.errors import CorpusError, StoreError
from linrep.harvest.config import HarvestConfig
from linrep.harvest.plan import plan_harvest
from linrep.places import place
from linrep.vlm.card import card_of, describe
from tests.cluster.test_harvest import harvest_plainly

CONFIG = HarvestConfig(layers=(0,), views=("pooled",), chunk_size=8)


@pytest.fixture(scope="module")
def harvested(corpora, random_vlm, tmp_path_factory):
    workspace = tmp_path_factory.mktemp("contents")
    return workspace, harvest_plainly(plan_harvest("t", corpora, random_vlm, CONFIG, place(workspace)))


def test_every_image_is_the_corpuss_own_file_and_every_text_is_whole(harvested, corpora, random_vlm):
    workspace, store = harvested
    contents, rows = open_contents(workspace, around=1000), store.samples().to_pylist()
    images = {row["sample_id"]: row["uri"] for row in rows if row["modality"] != "text"}
    found = contents.encoded(images)
    folders = {"images": place(corpora.images.path), "pairs": place(corpora.images.path).parent}
    for row in rows:
        name = row["sample_id"]
        assert contents.facts(name) == row
        if row["modality"] != "text":
            assert found[name] == (folders[row["corpus"]] / row["uri"]).read_bytes()
        else:
            assert "".join(contents.window(name).pieces).strip() == row["text"].strip()
    assert len(found) == 22 + 9
    assert card_of(store.manifest.model) == describe(random_vlm)


def test_a_name_that_the_store_does_not_have_is_said(harvested):
    contents = open_contents(harvested[1])
    for ask in (lambda: contents.encoded(["images/none.JPEG"]), lambda: contents.facts("images/none.JPEG")):
        with pytest.raises(StoreError, match=r"no (image|sample) 'images/none\.JPEG'"):
            ask()


def test_corpora_that_are_not_those_of_the_harvest_are_refused(harvested, tmp_path):
    there = shutil.copytree(harvested[0], tmp_path / "ws")
    for file in there.glob(f"corpora/*/{SOURCES}"):
        file.unlink()
    with pytest.raises(CorpusError, match=r"run jobs/harvest\.py with the same recipe again"):
        open_contents(there)


def test_a_workspace_that_was_moved_still_has_its_world(random_vlm, tmp_path):
    demo = DemoWorld(n_images=4, n_texts=2)
    corpora = Corpora(images=ImageFolder(path="demo://images"), pairs=PairFiles(path="demo://captions.jsonl"))
    store = harvest_plainly(plan_harvest("t", corpora, random_vlm, CONFIG, place(tmp_path / "here"), demo))
    before = open_contents(store).encoded([store.samples()["sample_id"][0].as_py()])
    (tmp_path / "here").rename(tmp_path / "there")
    assert open_contents(tmp_path / "there").encoded(before) == before


def test_the_record_of_the_corpora_has_whole_paths_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpora = Corpora(images=ImageFolder(path="images"), text=TextFiles(path="s3://name:hush@bucket/text.jsonl?region=us-east-1"))
    write_sources(place(tmp_path), corpora, None)
    said = (tmp_path / SOURCES).read_text()
    assert f'"{tmp_path}/images"' in said
    assert "s3://bucket/text.jsonl?region=us-east-1" in said
    assert "hush" not in said
