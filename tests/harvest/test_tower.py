"""The vision tower's patches in a store: rows, means, statistics and limits by hand, and joined with the tokens they became.

That the values are the whole model's, in every family, is a law of `tests/vlm/families/site_laws.py`.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import linrep.store
from linrep.cluster.run_harvest import metrics
from linrep.cluster.run_plan import _bound, _store_lines, estimated
from linrep.corpora import Corpora
from linrep.errors import ModelError, RecipeError, StoreError
from linrep.harvest.chunk import harvest_chunk, prepare_chunk
from linrep.harvest.config import HarvestConfig
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import plan_harvest
from linrep.linear import solve_damped
from linrep.places import place
from linrep.store import Store
from linrep.store.join import patches_with_tokens
from linrep.store.layout import NO_LAYER, parse_folder
from linrep.store.limits import norm_limits
from linrep.store.manifest import read_manifest, write_manifest
from linrep.vlm.batch import collate
from linrep.vlm.config import ModelConfig
from linrep.vlm.hooks import forward
from linrep.vlm.load import VLM, load
from linrep.vlm.patches import patches_of
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from linrep.vlm.recorder import record_sites
from linrep.vlm.sites import Site
from schemas.activations import tower_vectors
from tests.harvest.test_harvester import ALL, prepared, rows_of, vlm  # noqa: F401
from tests.steering import write_workspace

PATCHES = ALL.model_copy(update={"sites": ("tower",)})
WIDTH = 16
"""Of the random model's tower; its stream has 32."""


def of_tower(vlm: VLM, config: HarvestConfig, some: list[Prepared], limits=None) -> tuple[dict, dict]:  # noqa: F811
    """The rows of the tower by view, as tables, and the sums."""
    tables, sums = {}, {}
    for rows in Harvester(vlm, config, (0,), 10**6, limits)(some):
        tables |= {folder: table for (folder, _, _), table in rows.tables.items() if "tower" in folder}
        sums |= rows.sums
    return tables, sums


def vectors_in(table) -> np.ndarray:
    return np.frombuffer(b"".join(table["vector"].to_pylist()), "<f4").reshape(len(table), WIDTH)


@pytest.fixture(scope="module")
def alone(vlm: VLM, prepared: list[Prepared]) -> dict[str, np.ndarray]:  # noqa: F811
    """The patches of each sample that shows an image, recorded on its own."""
    found = {}
    for one in prepared:
        with record_sites(vlm, [Site("tower")]) as seen:
            forward(vlm, collate([one], vlm))
        if one.pixels is not None:
            found[one.sample.id] = seen[Site("tower")].flatten(0, 1).numpy().copy()
    return found


def test_rows_and_means_of_patches_are_those_of_each_sample_alone(vlm, prepared, alone):  # noqa: F811
    tables, sums = of_tower(vlm, PATCHES, prepared)
    assert tables["tokens/site=tower"].schema == tower_vectors(WIDTH, "float32")
    assert set(tables) == {"pooled/site=tower", "tokens/site=tower"}  # no last position
    size = max(np.abs(h).max() for h in alone.values())
    own = {one.sample.id: patches_of(one, vlm.card) for one in prepared if one.pixels is not None}
    assert set(alone) == set(own)
    assert any(some.padding.any() for some in own.values())
    table = tables["tokens/site=tower"]
    ids, vectors = np.array(table["sample_id"].to_pylist()), vectors_in(table)
    for name, wanted in alone.items():
        assert np.abs(vectors[ids == name] - wanted).max() <= 2e-5 * size
        rows = table.filter(ids == name).drop_columns("vector").to_pylist()
        assert [row["patch"] for row in rows] == list(range(len(wanted)))
        assert [row["position"] is None for row in rows] == own[name].padding.tolist()
        assert [row["is_special"] for row in rows] == own[name].padding.tolist()
        assert np.allclose([row["norm"] for row in rows], np.linalg.norm(wanted, axis=1), rtol=1e-4)
    pooled = tables["pooled/site=tower"]
    assert set(pooled["sample_id"].to_pylist()) == set(alone)
    for row, mean in zip(pooled.drop_columns("vector").to_pylist(), vectors_in(pooled), strict=True):
        kept = alone[row["sample_id"]][~own[row["sample_id"]].padding]
        assert row["n_tokens"] == len(kept)
        assert np.abs(mean - kept.mean(0)).max() <= 2e-5 * size
    shown, padding = (np.concatenate([h[own[name].padding == yes] for name, h in alone.items()]) for yes in (False, True))
    for group, wanted in (("tower_image", shown), ("tower_special", padding)):
        assert sums[NO_LAYER, group].n == len(wanted)
        assert np.allclose(sums[NO_LAYER, group].mean, wanted.astype(np.float64).mean(0), atol=2e-5 * size)
        assert np.allclose(sums[NO_LAYER, group].variance, wanted.astype(np.float64).var(0), rtol=1e-3, atol=1e-9)
    assert {group for layer, group in sums if layer == NO_LAYER} == {"tower_image", "tower_special"}


def test_beside_the_tower_the_stream_is_the_same(vlm, prepared):  # noqa: F811
    plain, both = rows_of(vlm, ALL, prepared[:4]), {}
    for rows in Harvester(vlm, PATCHES, (0, 2, 4), 500)(prepared[:4]):
        for key, table in rows.tables.items():
            both.setdefault(key, []).extend(table["vector"].to_pylist())
    assert {key[:2] for key in both if key not in plain} == {(f"{view}/site=tower", NO_LAYER) for view in ("pooled", "tokens")}
    assert all([row["vector"].tobytes() for row in rows] == both[key] for key, rows in plain.items())


def test_of_drawn_tokens_all_patches_are_kept_and_no_others(vlm, prepared):  # noqa: F811
    few = PATCHES.model_copy(update={"tokens_per_sample": 5})
    tokens = rows_of(vlm, few.model_copy(update={"sites": ()}), prepared)["tokens", 0, "image"]
    drawn = {(row["sample_id"], row["position"]) for row in tokens if not row["is_newline"]}
    table = of_tower(vlm, few, prepared)[0]["tokens/site=tower"]
    kept = list(zip(table["sample_id"].to_pylist(), table["position"].to_pylist(), strict=True))
    assert set(kept) == drawn
    assert len(kept) == len(drawn)  # a patch a token in LLaVA-NeXT


def test_a_texts_micro_batch_has_no_patches_and_a_narrowed_harvester_nothing_else(vlm, prepared):  # noqa: F811
    texts = [one for one in prepared if one.pixels is None]
    tables, sums = of_tower(vlm, PATCHES, texts)
    assert not tables
    assert not {key for key in sums if key[0] == NO_LAYER}
    alone = Harvester(vlm, PATCHES, (0, 2), 10**6).narrowed({NO_LAYER: ("tokens/site=tower",)})
    (rows,) = alone(prepared)
    assert {key[:2] for key in rows.tables} == {("tokens/site=tower", NO_LAYER)}


def test_patches_of_high_norm_are_kept_apart_by_the_towers_own_limit(vlm, prepared, alone):  # noqa: F811
    own = {one.sample.id: patches_of(one, vlm.card) for one in prepared if one.pixels is not None}
    norms = {name: np.linalg.norm(h, axis=1) for name, h in alone.items()}
    limit = float(np.quantile(np.concatenate(list(norms.values())), 0.8))
    limits = {(NO_LAYER, "tower_image"): limit, (NO_LAYER, "tower_special"): limit, (0, "image"): 1e9}
    tables, sums = of_tower(vlm, PATCHES, prepared, limits)
    for row in tables["pooled/site=tower"].drop_columns("vector").to_pylist():
        high = norms[row["sample_id"]][~own[row["sample_id"]].padding] > limit
        assert (row["n_tokens"], row["n_high_norm"]) == ((~high).sum(), high.sum())
    high = [(norms[name] > limit) & ~own[name].padding for name in norms]
    places = np.bincount(np.concatenate([np.flatnonzero(some) for some in high]))
    assert sums[NO_LAYER, "tower_image"].high_positions.tolist() == places.tolist()  # among the sample's patches
    assert sums[0, "image"].n_high_norm == 0


def test_padding_is_measured_by_the_limit_of_the_other_patches(vlm, prepared):  # noqa: F811
    """Reader and harvest then agree: the rows of both lie in one file."""
    found = norm_limits(of_tower(vlm, PATCHES, prepared)[1])
    assert found[NO_LAYER, "tower_special"] == found[NO_LAYER, "tower_image"]


def test_a_family_that_says_another_number_of_patches_is_refused_in_one_line(vlm, prepared, monkeypatch):  # noqa: F811
    monkeypatch.setattr(type(vlm.family), "tower_width", lambda *_: 7)
    with pytest.raises(
        ModelError, match=r"gives \d+ patches of width 16, its family says \d+ of width 7: leave tower out"
    ) as error:
        of_tower(vlm, PATCHES, prepared[:2])
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def store(corpora: Corpora, random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Store:
    config = HarvestConfig(layers=(0, 4), sites=("tower",), chunk_size=16, tokens_per_sample=None, dtype="float32")
    workspace = write_workspace(tmp_path_factory.mktemp("ws"), "t", corpora, random_vlm, config)
    return linrep.store.open(str(workspace))


def test_a_store_gives_patches_with_their_own_width_and_knows_its_files(store):
    rows = store.select("tokens", site="tower")
    assert {file.path.split("/part-")[0] for file in rows.files} == {"tokens/site=tower/modality=image"}
    assert rows.torch().shape == (len(rows), WIDTH)
    assert store.select("tokens", 0, "image").torch().shape[1] == store.manifest.width == 32
    assert rows.polars().columns == tower_vectors(WIDTH, "float32").names
    assert len(store.select("tokens", site="tower", split="train")) < len(rows)
    padding = store.select("tokens", site="tower", special=True, high_norm=None).table(["position"])["position"]
    assert padding.null_count == len(padding) > 0
    assert len(store.select("pooled", site="tower")) == 22 + 9
    assert len(store.select("tokens", modality="text", site="tower").torch()) == 0
    assert not store.strangers()
    assert store.verify().whole
    assert f"tower    the vision tower's patches, d = {WIDTH}: 31 rows of pooled" in str(store)
    sums = store.statistics()[NO_LAYER, "tower_image"]
    assert store.limit("tokens/site=tower", NO_LAYER, "image") == pytest.approx(10 * sums.norm_quantile(0.5), rel=1e-6)
    assert metrics(store.manifest)["norm_p50_tower_image"] == pytest.approx(sums.norm_quantile(0.5))


def test_any_reader_reads_them(store):
    file = Path(store.place.path) / store.select("tokens", site="tower").files[0].path
    table = pq.ParquetFile(file).read()
    assert table["vector"].type.byte_width == 4 * WIDTH
    assert table.schema.field("vector").metadata[b"width"] == b"16"


def test_a_damaged_file_of_patches_is_found(store):
    file = Path(store.place.path) / store.select("pooled", site="tower").files[0].path
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    try:
        assert not store.verify().whole
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"view": "tokens", "layer": 0}, "the site tower has no layers, got layer 0: leave it out"),
        ({"view": "last"}, "no view 'last' of the site tower: it has pooled, tokens"),
        ({"view": "tokens", "site": "residual"}, "no layer None in .*: it has 0, 4"),
    ],
)
def test_what_the_tower_has_not_is_refused_by_name(store, asked, reason):
    with pytest.raises(StoreError, match=reason):
        store.select(**{"site": "tower", **asked})


def test_the_folder_of_the_tower_alone_has_no_layer():
    assert parse_folder("tokens/site=tower/modality=image/part-000000.parquet") == ("tokens/site=tower", NO_LAYER, "image")
    assert parse_folder("tokens/site=tower/layer=3/modality=image/part-000000.parquet") is None
    assert parse_folder("tokens/site=mlp/modality=image/part-000000.parquet") is None
    assert parse_folder("tokens/modality=image/part-000000.parquet") is None


def test_a_manifest_from_before_there_were_patches_is_read(store, tmp_path):
    """Its fields, by hand, are those of a harvest without the tower now."""
    there = store.manifest
    model = {name: value for name, value in there.model.items() if name != "tower_width"}
    plain = replace(there, model=model, harvest={name: value for name, value in there.harvest.items() if name != "sites"})
    write_manifest(place(tmp_path), plain)
    fields = set(json.loads((tmp_path / "manifest.json").read_text()))
    assert fields == {
        *("name", "digest", "model", "layers", "views", "dtype", "width", "corpora", "harvest", "n_chunks", "chunk_size"),
        *("chat_template", "status", "counts", "limits", "statistics", "statistics_seal", "created", "finished", "notes"),
        *("schema_version", "layer_convention", "check"),
    }
    read = read_manifest(place(tmp_path))
    assert read == plain
    assert read.places == read.layers == (0, 4)
    assert read.sites == ("residual",)


def test_patches_are_joined_with_the_tokens_that_they_became(store):
    """A map from the tower into the stream: near at layer 0, where the projector has just been, further off at the last layer."""
    found = {}
    for layer in (0, 4):
        train, test = (patches_with_tokens(store, layer, split) for split in ("train", "test"))
        assert len(test.patches) == len(test.tokens) == len(test.token) > 50
        found[layer] = explained(train, test), explained(train, test, shuffled=True)
    assert found[0][0] > 0.75  # the projector is not linear
    assert found[0][0] > found[4][0] + 0.1
    assert max(control for _, control in found.values()) < 0.05


def explained(train, test, shuffled: bool = False) -> float:
    """Share of the variance of held-out images' tokens that a linear map of their patches gives; shuffled: of other patches."""
    x, y = train.patches.double(), train.tokens.double()
    if shuffled:
        x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    dx, dy = x - x.mean(0), y - y.mean(0)
    w = solve_damped(dx.T @ dx, 1e-6, dx.T @ dy)
    left = test.tokens.double() - (test.patches.double() - x.mean(0)) @ w - y.mean(0)
    return float(1 - left.square().sum() / (test.tokens.double() - y.mean(0)).square().sum())


def test_each_pair_is_a_patch_and_its_token(store):
    both = patches_with_tokens(store, 4)
    tokens = {
        (row["sample_id"], row["position"]): row["vector"]
        for row in store.select("tokens", 4, "image").polars().iter_rows(named=True)
    }
    patches = [row for row in store.select("tokens", site="tower").polars().iter_rows(named=True) if row["position"] is not None]
    wanted = sorted((row["vector"], tokens[row["sample_id"], row["position"]]) for row in patches)
    mine = sorted((x.numpy().tobytes(), y.numpy().tobytes()) for x, y in zip(both.patches, both.tokens, strict=True))
    assert mine == wanted
    assert (np.diff(both.token) >= 0).all()
    assert both.sample.max() + 1 == 31


@pytest.mark.parametrize(
    ("fields", "kept", "reason"),
    [
        ({"sites": ["projector"]}, None, "what the projector gives is layer 0 at image tokens: name layer 0"),
        ({"sites": ["tower"], "views": ["last"]}, None, "the tower has no last position: name pooled or tokens"),
        ({"sites": ["tower"]}, "text", "there are texts alone, which no vision tower sees"),
    ],
)
def test_a_recipe_of_patches_that_there_are_not_is_refused(corpora, random_vlm, tmp_path, fields, kept, reason):
    only = corpora.model_copy(update={name: None for name in ("images", "text", "pairs") if name != kept})
    with pytest.raises((ValueError, RecipeError), match=reason):
        plan_harvest("t", only, random_vlm, HarvestConfig(**fields), place(tmp_path))


def test_the_tower_beside_layer_n_alone_is_no_contradiction(corpora, random_vlm, tmp_path):
    plan = plan_harvest("t", corpora, random_vlm, HarvestConfig(layers=(4,), sites=("tower",)), place(tmp_path))
    assert plan.manifest.width_of("tower") == WIDTH
    assert (NO_LAYER, "tokens/site=tower") in plan.manifest.parts


@pytest.fixture(params=[None, 4])
def planned(request, corpora, random_vlm, tmp_path):
    config = HarvestConfig(layers=(0, 2), sites=("mlp", "tower"), chunk_size=8, tokens_per_sample=request.param)
    plan = plan_harvest("t", corpora, random_vlm, config, place(tmp_path))
    harvester = Harvester(load(random_vlm, 3), plan.job.config, plan.job.layers, 4096)
    preparer = Preparer.from_path(random_vlm)
    for chunk in plan.chunks:
        harvest_chunk(harvester, prepare_chunk(chunk, plan.job.corpora, preparer), plan.place, chunk.number)
    return plan, [file for file in Path(plan.place.path).rglob("*") if file.is_file()]


def test_a_plan_counts_the_towers_bytes_and_files(planned):
    plan, files = planned
    found = estimated(plan)
    assert found.n_objects == len(files)
    assert found.n_bytes == pytest.approx(sum(file.stat().st_size for file in files), rel=0.1)
    of_tower = [file for file in files if "site=tower" in str(file)]
    said = sum(part.bytes_of(view) for part in found.parts for view in found.of_tower)
    assert said == pytest.approx(sum(file.stat().st_size for file in of_tower), rel=0.1)
    assert _bound(plan) > sum(file.stat().st_size for file in files)
    assert f"patches of width {WIDTH}" in "\n".join(_store_lines(plan, found))
