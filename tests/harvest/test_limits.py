"""Attention sinks planted in a model: means and statistics are those of the other tokens, and say how many are left out."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from linrep.corpora import Corpora
from linrep.corpora.index import Chunk, build_index
from linrep.harvest.calibrate import CHUNKS, TRIES, calibrate, calibration_turns, measure
from linrep.harvest.config import HarvestConfig
from linrep.harvest.finish import record
from linrep.harvest.harvester import Harvester
from linrep.store.layout import GROUPS
from linrep.store.statistics import merge, norm_bin
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import VLM, load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from tests.harvest.test_harvester import prepared, rows_of  # noqa: F401

LAYERS = (0, 2)
ALL = HarvestConfig(layers=LAYERS, tokens_per_sample=None, dtype="float32", chunk_size=8)
TIMES = 3000.0
NORMAL = np.random.default_rng(0).standard_normal(32).astype(np.float32)


@pytest.fixture(scope="module")
def vlm(random_vlm: ModelConfig) -> VLM:
    return load(random_vlm, 2)


@pytest.fixture(scope="module")
def chunks(corpora: Corpora) -> list[Chunk]:
    return list(build_index(corpora).chunks(8))


def far(x: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """Which rows become sinks: some of either modality, by what they are, so that no batch and no order matters."""
    normal = torch.from_numpy(NORMAL) if isinstance(x, torch.Tensor) else NORMAL
    cosine = x @ normal / (x * x).sum(-1) ** 0.5
    return ((cosine > 0.15) & (cosine < 0.25)) | (cosine > 1.25)


@pytest.fixture
def planted(vlm: VLM) -> Iterator[None]:
    """The model with sinks from layer 0 on."""

    def plant(module, args, kwargs):
        h = args[0]
        return (torch.where(far(h)[..., None], TIMES * h, h), *args[1:]), kwargs  # type: ignore[index]

    hook = vlm.text.layers[0].register_forward_pre_hook(plant, with_kwargs=True)
    yield
    hook.remove()


@pytest.fixture(scope="module")
def tokens(vlm: VLM, prepared: list[Prepared]) -> dict[str, list[dict]]:  # noqa: F811
    """All tokens of layer 0 of the model without sinks, and whether each would become one."""
    config = ALL.model_copy(update={"layers": (0,), "views": ("tokens",)})
    rows = rows_of_layer_0(Harvester(vlm, config, (0,), 500), prepared)
    return {m: [{**row, "sink": bool(far(row["vector"]))} for row in rows["tokens", m]] for m in ("image", "text")}


def rows_of_layer_0(harvester: Harvester, samples: list[Prepared]) -> dict[tuple[str, str], list[dict]]:
    found: dict[tuple[str, str], list[dict]] = {}
    for rows in harvester(samples):
        for (view, layer, modality), table in rows.tables.items():
            if layer == 0:
                vectors = [np.frombuffer(v, np.float32) for v in table["vector"].to_pylist()]
                plain = table.drop_columns("vector").to_pylist()
                both = zip(plain, vectors, strict=True)
                found.setdefault((view, modality), []).extend({**row, "vector": v} for row, v in both)
    return found


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("tokens_per_batch", [300, 4000])
def test_pooled_rows_are_means_of_the_tokens_that_are_no_sinks(vlm, prepared, tokens, tokens_per_batch):  # noqa: F811
    limits = measure(Harvester(vlm, ALL, LAYERS, 500), prepared)
    rows = rows_of_layer_0(Harvester(vlm, ALL, LAYERS, tokens_per_batch, limits), prepared)
    n_sinks = dict.fromkeys(("image", "text"), 0)
    for modality in ("image", "text"):
        own: dict[str, list[dict]] = {}
        for row in tokens[modality]:
            if not row["is_special"]:
                own.setdefault(row["sample_id"], []).append(row)
        pooled = {row["sample_id"]: row for row in rows["pooled", modality]}
        assert pooled.keys() == {name for name, some in own.items() if not all(t["sink"] for t in some)}
        for name, row in pooled.items():
            kept = [t["vector"] for t in own[name] if not t["sink"]]
            assert row["n_tokens"] == len(kept)
            assert row["n_high_norm"] == len(own[name]) - len(kept)
            assert np.allclose(row["vector"], np.mean(kept, axis=0), atol=2e-5)
            n_sinks[modality] += row["n_high_norm"]
        # Single tokens are all there, and their norm says which are high.
        high = [row["norm"] > limits[0, modality] for row in rows["tokens", modality]]
        assert high == [t["sink"] for t in tokens[modality]]
    assert min(n_sinks.values()) > 10


@pytest.mark.usefixtures("planted")
def test_statistics_are_those_of_the_tokens_that_are_no_sinks(vlm, prepared, tokens):  # noqa: F811
    limits = measure(Harvester(vlm, ALL, LAYERS, 500), prepared)
    sums = merge(rows.sums for rows in Harvester(vlm, ALL, LAYERS, 500, limits)(prepared))
    for group in GROUPS:
        own = [t for t in tokens["image" if group == "image" else "text"] if t["is_special"] == (group == "special")]
        kept = np.array([t["vector"] for t in own if not t["sink"]], np.float64)
        found = sums[0, group]
        assert found.n == len(kept)
        assert np.allclose(found.mean, kept.mean(0), atol=1e-5)
        assert np.allclose(found.variance, kept.var(0), rtol=1e-4)
        bins = np.bincount(norm_bin(np.linalg.norm(kept, axis=1)), minlength=len(found.norm_counts))
        assert np.abs(found.norm_counts - bins).sum() <= 2
        places = np.bincount([t["position"] for t in own if t["sink"]])
        assert found.high_positions is not None
        assert found.high_positions.tolist() == places.tolist()
        assert found.n_high_norm == places.sum() == len(own) - len(kept)
        said = record(0, group, found)
        assert said["n_high_norm"] == places.sum()
        assert said["high_norm_positions"][:1] == ([[int(places.argmax()), int(places.max())]] if places.sum() else [])


def test_without_sinks_nothing_changes(vlm, prepared):  # noqa: F811
    config = ALL.model_copy(update={"dtype": "float16"})
    limits = measure(Harvester(vlm, config, LAYERS, 500), prepared)
    assert set(limits) == {(k, g) for k in LAYERS for g in ("image", "text", "special", "last_image", "last_text")}
    without = [rows.tables for rows in Harvester(vlm, config, LAYERS, 500)(prepared)]
    having = [rows.tables for rows in Harvester(vlm, config, LAYERS, 500, limits)(prepared)]
    assert len(without) == len(having) > 1
    for one, other in zip(without, having, strict=True):
        assert all(table.equals(other[key]) for key, table in one.items())


def test_a_sample_of_nothing_but_sinks_has_no_mean(vlm, prepared):  # noqa: F811
    harvester = Harvester(vlm, ALL, (0,), 500, {(0, "text"): 1e-9})
    rows = rows_of_layer_0(harvester, prepared)
    assert rows.get(("pooled", "text"), []) == []
    assert len(rows["pooled", "image"]) == sum(s.pixels is not None for s in prepared)
    sums = merge(r.sums for r in harvester(prepared))
    assert sums[0, "text"].n == 0
    assert sums[0, "text"].n_high_norm == sum(s.n_text_tokens for s in prepared)
    assert record(0, "text", sums[0, "text"])["norm_p50"] is None


def test_last_positions_are_counted_by_their_own_limit(vlm, prepared):  # noqa: F811
    sums = merge(r.sums for r in Harvester(vlm, ALL, (0,), 500, {(0, "last_text"): 1e-9})(prepared))
    n = sum(s.pixels is None for s in prepared)
    assert (sums[0, "last_text"].n, sums[0, "last_text"].n_high_norm) == (0, n)
    assert (sums[0, "last_image"].n, sums[0, "last_image"].n_high_norm) == (len(prepared) - n, 0)
    assert sums[0, "text"].n_high_norm == 0


def test_a_broken_token_is_in_no_mean(vlm, prepared):  # noqa: F811
    one = next(s for s in prepared if s.n_text_tokens > 3)
    where = np.flatnonzero(one.role == 1)[0]

    def spoil(module, args, kwargs):
        h = args[0].clone()
        h[0, where] = float("inf")
        return (h, *args[1:]), kwargs

    plain = {r["position"]: r["vector"] for r in rows_of_layer_0(Harvester(vlm, ALL, (0,), 500), [one])["tokens", "text"]}
    hook = vlm.text.layers[0].register_forward_pre_hook(spoil, with_kwargs=True)
    try:
        (row,) = rows_of_layer_0(Harvester(vlm, ALL, (0,), 500), [one])["pooled", "text"]
    finally:
        hook.remove()
    own = [plain[p] for p in np.flatnonzero(one.role == 1) if p != where]
    assert row["n_tokens"] == len(own)
    assert np.allclose(row["vector"], np.mean(own, axis=0), atol=2e-5)


@pytest.mark.usefixtures("planted")
def test_limits_come_from_the_same_samples_whatever_the_batches(vlm, corpora, chunks, random_vlm):
    turns, preparer = calibration_turns(chunks), Preparer.from_path(random_vlm)
    found = [calibrate(Harvester(vlm, ALL, LAYERS, n), turns, corpora, preparer) for n in (200, 5000)]
    assert found[0] == found[1]
    assert found[0].keys() == {"images", "text", "pairs"}
    assert found[0]["images"][0, "image"] < 100


def test_a_source_is_measured_by_itself_whatever_others_there_are(vlm, corpora, chunks, random_vlm):
    preparer, harvester = Preparer.from_path(random_vlm), Harvester(vlm, ALL, LAYERS, 500)
    every = calibrate(harvester, calibration_turns(chunks), corpora, preparer)
    for source, limits in every.items():
        own = [chunk for chunk in chunks if chunk.source == source]
        assert calibrate(harvester, calibration_turns(own), corpora, preparer) == {source: limits}
    # Fewer layers, and no last positions: the limits that are left are the same.
    few = harvester.narrowed({0: ("pooled",)})
    for source, limits in calibrate(few, calibration_turns(chunks), corpora, preparer).items():
        assert limits == {(k, g): limit for (k, g), limit in every[source].items() if k == 0 and g in GROUPS}


def test_samples_are_spread_over_the_corpus_and_others_stand_in(corpora):
    chunks = list(build_index(corpora).chunks(2))
    turns = calibration_turns(chunks, 6)
    assert len(turns) == 3
    images = [chunk for chunk in chunks if chunk.corpus == "images"]
    for of_corpus in turns.values():
        assert len(of_corpus) == TRIES
        read = [(part.number, tuple(map(str, part.runs.to_pylist()))) for turn in of_corpus for part in turn]
        assert len(set(read)) == len(read)  # no record twice
    assert len({part.number for part in turns["images"][0]}) == min(CHUNKS, len(images))


def test_no_factor_no_limits(vlm, corpora, chunks, random_vlm):
    config = ALL.model_copy(update={"high_norm": None})
    harvester = Harvester(vlm, config, LAYERS, 500)
    found = calibrate(harvester, calibration_turns(chunks, 4), corpora, Preparer.from_path(random_vlm), 4)
    assert found == {"images": {}, "text": {}, "pairs": {}}
