"""Documents through a whole harvest, beside images, texts and pairs: their rows, what stays, and who leaves them out."""

import json
from pathlib import Path

import numpy as np
import pytest

import linrep.store
from linrep.contents.stored import open_contents
from linrep.corpora import Corpora, DocumentFiles
from linrep.errors import RecipeError, StoreError
from linrep.explorer.site.pictures import Pictures
from linrep.explorer.site.shards import Site
from linrep.features.config import FeaturesConfig
from linrep.features.study import plan_study as features
from linrep.places import place
from linrep.probe.config import ProbeConfig
from linrep.probe.study import plan_study as probes
from linrep.reading.read import Reader
from linrep.reading.stored import read_stored
from linrep.steer.plan import held_out
from linrep.store.excerpt import draw_samples, samples_excerpt, vectors_excerpt
from linrep.store.layout import MODALITIES
from linrep.store.samples import read_samples
from linrep.store.tables import read_table, write_table
from linrep.vlm.card import card_of
from linrep.vlm.config import ModelConfig
from linrep.vlm.families import layout
from tests.extend.harvests import CONFIG, IMAGES, PAIRS, TEXTS, changed, contents, run
from tests.vlm.families.official import noise
from tests.vlm.families.test_paligemma import write_paligemma

SIZES = {"a": ((30, 44), (60, 28)), "b": ((50, 50),), "c": ((28, 84), (28, 28), (40, 30))}
"""Height and width of the images of each document."""


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> DocumentFiles:
    """Three documents, and two that are skipped."""
    folder = tmp_path_factory.mktemp("documents")
    rows = []
    for name, sizes in SIZES.items():
        for i, (height, width) in enumerate(sizes):
            noise(height, width, i).save(folder / f"{name}{i}.png")
        images = [f"{name}{i}.png" for i in range(len(sizes))]
        rows.append({"id": name, "text": "The old tree" + " <image> stands near" * len(sizes), "images": images})
    rows.append({"id": "gone", "text": "<image>", "images": ["no.png"]})
    rows.append({"id": "plain", "text": "words alone", "images": []})
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DocumentFiles(path=str(folder / "d.jsonl"))


@pytest.fixture
def together(corpora: Corpora, documents: DocumentFiles) -> Corpora:
    return corpora.model_copy(update={"documents": documents})


def test_rows_of_a_document_say_which_image_they_show_and_where(together, random_vlm, tmp_path, work):
    store = run(tmp_path, together, random_vlm, changed(tokens_per_sample=None))
    samples = {row["sample_id"]: row for row in store.samples().to_pylist()}
    own = {name: row for name, row in samples.items() if row["corpus"] == "documents"}
    assert {name: row["error"] for name, row in own.items() if row["error"]} == {
        "documents/gone": "image 1 of 1: no such file",
        "documents/plain": "the document shows no image",
    }
    rows = {m: store.select("tokens", 2, m).table(["sample_id", "position", "tile", "row", "col", "image"]) for m in MODALITIES}
    assert rows["text"]["image"].null_count == len(rows["text"])
    by_sample: dict[str, list[dict]] = {}
    for row in rows["image"].to_pylist():
        by_sample.setdefault(row["sample_id"], []).append(row)
    assert {row["image"] for name, found in by_sample.items() if not name.startswith("documents") for row in found} == {0}
    card = card_of(store.manifest.model)
    for name, sizes in SIZES.items():
        one = own[f"documents/{name}"]
        assert (one["modality"], one["width"], one["height"], one["grid"]) == ("document", None, None, None)
        assert list(zip(one["image_heights"], one["image_widths"], strict=True)) == list(sizes)
        plans = [layout(size, card) for size in sizes]
        assert one["image_grids"] == [f"{plan.grid[0]}x{plan.grid[1]}" for plan in plans]
        found = sorted(by_sample[f"documents/{name}"], key=lambda row: row["position"])
        assert len(found) == one["n_image_tokens"] == sum(plan.n_tokens for plan in plans)
        for i, plan in enumerate(plans):
            mine = [row for row in found if row["image"] == i]
            for column in ("tile", "row", "col"):
                given = [-1 if row[column] is None else row[column] for row in mine]
                assert given == getattr(plan.map, column).tolist()
        assert np.all(np.diff([row["image"] for row in found]) >= 0)
    assert all(row["image_widths"] is None for row in samples.values() if row["corpus"] != "documents")
    assert linrep.store.open(str(store.place)).verify().whole


def test_documents_that_are_added_change_no_row_of_the_others_and_are_all_that_is_computed(
    corpora, together, random_vlm, tmp_path, work, at_once
):
    whole = at_once(CONFIG, together)
    first = run(tmp_path / "ws", corpora, random_vlm, CONFIG)
    work.forget()
    second = run(tmp_path / "ws", together, random_vlm, CONFIG)
    assert work.samples == {2: len(SIZES)}
    assert work.measured == {("documents", 0), ("documents", 2)}
    assert contents(second) == contents(whole)
    ids = {name for name in second.samples()["sample_id"].to_pylist() if not name.startswith("documents/")}
    assert len(ids) == IMAGES + TEXTS + PAIRS
    columns = ["sample_id", "position", "tile", "row", "col", "image", "token_id"]
    for modality in MODALITIES:
        old, new = (one.select("tokens", 2, modality).table(columns).to_pylist() for one in (first, second))
        assert [row for row in new if row["sample_id"] in ids] == old
        assert len(new) > len(old)


def test_who_knows_one_image_a_sample_leaves_documents_out_and_says_so(together, random_vlm, tmp_path, work):
    store = run(tmp_path / "ws", together, random_vlm, changed(tokens_per_sample=None))
    name, found = "documents/a", open_contents(store)
    table = store.samples()
    samples = read_samples(table)
    assert {role for role, one in zip(samples.role, samples.ids, strict=True) if one.startswith("documents/")} == {""}
    assert not any(one.sample_id.startswith("documents/") for some in held_out(store) for one in _flat(some))
    pictures = Pictures(Site(place(tmp_path / "site")), store, found)
    assert len(pictures.images()) == IMAGES + PAIRS // 2
    for ask in (lambda: found.layout(name), lambda: found.window(name)):
        with pytest.raises(StoreError, match="document"):
            ask()
    with pytest.raises(StoreError, match=f"has no image '{name}': texts have none, those of documents have no name"):
        found.encoded([name])
    # Their tokens are read as any; where a patch lies in which image is not said.
    ((_, reading),) = read_stored(store, [name], Reader())
    assert (reading.seen, reading.n_image) == (None, int(reading.tokens.of_image.sum()))
    assert reading.tokens.boxes(reading.seen, found._card) == [None] * len(reading.tokens)


def test_an_excerpt_holds_documents_as_their_store_does(together, random_vlm, tmp_path, work):
    store = run(tmp_path / "ws", together, random_vlm, changed(tokens_per_sample=None))
    drawn = draw_samples(store, 8)
    kinds = drawn["modality"].to_pylist()
    assert {kind: kinds.count(kind) for kind in kinds} == {"document": 2, "image": 2, "pair": 2, "text": 2}
    shared = samples_excerpt(drawn, texts=False)
    assert shared.column_names.count("image_widths") == 1
    assert "text" not in shared.column_names
    names = [one for one in drawn["sample_id"].to_pylist() if one.startswith("documents/")]
    rows = vectors_excerpt(store, "tokens", 2, names, texts=False)
    assert set(rows["image"].to_pylist()) == {i for one in names for i in range(len(SIZES[one.partition("/")[2]]))}
    write_table(place(tmp_path), "rows.parquet", rows)
    assert read_table(place(tmp_path), "rows.parquet").equals(rows)


def test_a_model_that_cannot_show_them_refuses_them_before_anything_is_made(documents, tmp_path, work):
    model = write_paligemma(tmp_path / "model", {"model_type": "gemma"})
    with pytest.raises(RecipeError, match=r"corpora\.documents: PaliGemma takes one image before all text, and no document"):
        run(tmp_path / "ws", Corpora(documents=documents), ModelConfig(path=str(model)), CONFIG)
    assert not (tmp_path / "ws" / "harvests").exists()


def _flat(some):
    return [one for own in some.values() for one in own] if isinstance(some, dict) else some


def test_documents_alone_are_a_harvest(documents, random_vlm, tmp_path, work):
    store = run(tmp_path, Corpora(documents=documents), random_vlm, CONFIG)
    assert Path(store.place.path).name.startswith("t-")
    assert store.manifest.counts["n_samples"] == 3  # two of five are skipped
    with pytest.raises(RecipeError, match="no image, and no text read alone; tokens of documents take no part"):
        features(store, FeaturesConfig.model_validate({"saes": [{"path": "x", "layer": 2}]}))
    with pytest.raises(RecipeError, match="has a class"):
        probes(store, ProbeConfig())
    assert {m: len(store.select("pooled", 2, m).table(["sample_id"])) for m in MODALITIES} == {"image": 3, "text": 3}
