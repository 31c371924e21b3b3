"""A sample of a store holds the store's vectors, and neither texts nor images unless they were asked for."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from huggingface_hub import DatasetCard

from linrep.hub.__main__ import main
from linrep.store.excerpt import draw_samples, vectors_excerpt
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.vlm.config import ModelConfig
from tests.hub.fake_hub import FakeHub
from tests.reading.workspace import write_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, random_vlm: ModelConfig) -> Path:
    """10 images, 4 texts, 2 pairs with their captions alone; float32, layers 0 and 2."""
    where = tmp_path_factory.mktemp("sample")
    write_store(where, random_vlm)
    return where


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return open_store(str(folder / "ws"))


def push(folder: Path, *more: str) -> int:
    return main(["push", "sample", str(folder / "ws"), "me/sample", "--yes", "--samples", "8", *more])


def pulled(folder: Path) -> dict[str, pl.DataFrame]:
    assert main(["pull", "me/sample", str(folder)]) == 0
    return {path.stem: pl.read_parquet(path) for path in (folder / "data").glob("*.parquet")}


def test_vectors_are_those_of_the_store(hub: FakeHub, folder: Path, store: Store, tmp_path: Path) -> None:
    push(folder, "--with-texts")
    tables = pulled(tmp_path / "got")
    ids = set(tables["samples"]["sample_id"])
    for view in ("pooled", "tokens", "last"):
        for layer in (0, 2):
            there = store.select(view, layer, high_norm=None)
            wanted = [row["sample_id"] in ids for row in there.table(["sample_id"]).to_pylist()]
            found = tables[f"{view}-layer-{layer:03d}"]
            assert found["sample_id"].to_list() == there.table().filter(wanted)["sample_id"].to_pylist()
            np.testing.assert_array_equal(found["vector"].to_numpy(), there.numpy()[wanted])


def test_no_text_leaves_unless_it_is_asked_for(hub: FakeHub, folder: Path, store: Store, tmp_path: Path) -> None:
    """Nor what gives it away: ids of tokens, and vectors of single text tokens."""
    push(folder)
    tables = pulled(tmp_path / "got")
    assert {"text", "uri"} & set(tables["samples"].columns) == set()
    assert "image" not in tables["samples"].columns
    for name, table in tables.items():
        assert "token_id" not in table.columns
        if name.startswith("tokens"):
            assert set(table["modality"]) == {"image"}
    texts = [text for text in store.samples()["text"].to_pylist() if text]
    for path, blob in hub.of("me/sample", "dataset").files.items():
        assert not [text for text in texts if text.encode() in blob.content], path


def test_texts_and_images_go_along_where_asked_for(
    hub: FakeHub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(folder, "--with-texts", "--with-images")
    assert "- texts and images of the corpora GO ALONG: their licence must allow it" in capsys.readouterr().out
    samples = pulled(tmp_path / "got")["samples"]
    assert set(samples.filter(pl.col("modality") != "image")["text"].is_null()) == {False}
    shown = samples.filter(pl.col("modality") == "image")
    assert len(shown)
    for row in shown.iter_rows(named=True):
        assert row["image"]["bytes"] == (folder / "corpora" / row["sample_id"]).read_bytes()
    assert "token_id" in pl.read_parquet_schema(tmp_path / "got" / "data" / "tokens-layer-002.parquet")


def test_the_same_sample_makes_no_commit(hub: FakeHub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(folder, "--layer", "2", "--view", "pooled")
    before = len(hub.changes)
    capsys.readouterr()
    assert push(folder, "--layer", "2", "--view", "pooled") == 0
    assert capsys.readouterr().out.startswith("Nothing to do")
    assert len(hub.changes) == before


def test_every_modality_is_drawn_alike(store: Store) -> None:
    counts = pl.Series(draw_samples(store, 6)["modality"].to_pylist()).value_counts()
    assert dict(counts.iter_rows()) == {"image": 2, "pair": 2, "text": 2}
    assert len(draw_samples(store, 1000)) == len(store.samples())
    few, more = (draw_samples(store, n)["sample_id"].to_pylist() for n in (3, 9))
    assert set(few) <= set(more)


def test_the_card_names_each_table_and_no_path(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    push(folder, "--layer", "2", "--license", "cc-by-4.0")
    files = hub.of("me/sample", "dataset").files
    (tmp_path / "card.md").write_bytes(files["README.md"].content)
    configs = {one["config_name"]: one["data_files"] for one in DatasetCard.load(tmp_path / "card.md").data.configs}
    assert sorted(configs) == ["last-layer-002", "pooled-layer-002", "samples", "tokens-layer-002"]
    assert set(configs.values()) == {path for path in files if path.endswith(".parquet")}
    about = json.loads(files["harvest.json"].content)
    assert about["model"]["path"] == "random"
    assert about["layer_convention"].startswith("layer k is the residual stream entering block k")
    for path, blob in files.items():
        assert str(folder).encode() not in blob.content, path


def test_a_sample_of_nobody_is_empty(store: Store) -> None:
    table = vectors_excerpt(store, "tokens", 2, [], True)
    assert len(table) == 0
    assert table.schema.field("vector").type.list_size == 32


def test_a_layer_that_is_not_there_is_named(hub: FakeHub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(folder, "--layer", "3") == 1
    assert "no layer 3 in" in capsys.readouterr().err
    assert hub.changes == []
