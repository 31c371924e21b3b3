"""The harvester against the slow and obvious way: one sample at a time, every hidden state kept."""

import numpy as np
import pytest
import torch

from linrep.corpora import Corpora
from linrep.corpora.index import build_index
from linrep.corpora.read import read
from linrep.harvest.config import HarvestConfig
from linrep.harvest.harvester import Harvester
from linrep.store.selection import as_array
from linrep.store.statistics import Sums, merge, norm_bin
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import VLM, load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared, Role

LAYERS = (0, 2, 4)
ALL = HarvestConfig(layers=LAYERS, tokens_per_sample=None, dtype="float32", chunk_size=1000)


@pytest.fixture(scope="module")
def vlm(random_vlm: ModelConfig) -> VLM:
    return load(random_vlm, 4)


@pytest.fixture(scope="module")
def prepared(random_vlm: ModelConfig, corpora: Corpora) -> list[Prepared]:
    preparer = Preparer.from_path(random_vlm)
    samples = [preparer(s) for chunk in build_index(corpora).chunks(1000) for s in read(chunk, corpora)]
    assert all(isinstance(s, Prepared) for s in samples)
    return samples


@pytest.fixture(scope="module")
def streams(random_vlm: ModelConfig, prepared: list[Prepared]) -> dict[str, dict[int, np.ndarray]]:
    """The residual stream of each sample on its own, from the whole official model's hidden states."""
    from linrep.vlm.batch import collate

    whole = load(random_vlm, None)
    out = {}
    for sample in prepared:
        batch = collate([sample], whole)
        states = {}
        hook = whole.text.norm.register_forward_pre_hook(lambda _, args, states=states: states.update({4: args[0]}))
        with torch.inference_mode():
            hidden = whole.model(**batch.inputs(), output_hidden_states=True).hidden_states
        hook.remove()
        states |= {k: hidden[k] for k in LAYERS[:-1]}
        out[sample.sample.id] = {k: states[k][0].numpy().copy() for k in LAYERS}
    return out


def rows_of(vlm: VLM, config: HarvestConfig, prepared: list[Prepared], tokens: int = 500) -> dict[tuple, list[dict]]:
    """All rows by view, layer and modality, with vectors as arrays."""
    kind = np.dtype({"float16": "<f2", "float32": "<f4"}[config.dtype])
    found: dict[tuple, list[dict]] = {}
    for rows in Harvester(vlm, config, LAYERS, tokens)(prepared):
        for key, table in rows.tables.items():
            array = as_array(table["vector"].combine_chunks(), vlm.card.width, kind)
            plain = table.drop_columns("vector").to_pylist()
            found.setdefault(key, []).extend({**row, "vector": v} for row, v in zip(plain, array, strict=True))
    return found


def test_token_rows_equal_the_hidden_states_of_each_sample_alone(vlm, prepared, streams):
    rows = rows_of(vlm, ALL, prepared)
    for layer in LAYERS:
        n = 0
        for modality in ("image", "text"):
            for row in rows["tokens", layer, modality]:
                expected = streams[row["sample_id"]][layer][row["position"]]
                assert np.abs(row["vector"] - expected).max() <= 1e-5 * np.abs(expected).max()
                assert row["norm"] == pytest.approx(np.linalg.norm(expected), rel=1e-5)
                n += 1
        assert n == sum(map(len, prepared))


def test_pooled_rows_are_means_over_the_tokens_of_one_modality(vlm, prepared, streams):
    rows = rows_of(vlm, ALL, prepared)
    for modality, wanted in (("image", (Role.IMAGE, Role.NEWLINE)), ("text", (Role.TEXT,))):
        by_id = {row["sample_id"]: row for row in rows["pooled", 2, modality]}
        for sample in prepared:
            mask = np.isin(sample.role, wanted)
            if not mask.any():
                assert sample.sample.id not in by_id
                continue
            row, expected = by_id[sample.sample.id], streams[sample.sample.id][2][mask].mean(0)
            assert row["n_tokens"] == mask.sum()
            assert np.abs(row["vector"] - expected).max() <= 2e-5 * np.abs(expected).max()


def test_last_rows_are_the_last_position_and_stand_under_what_the_sample_holds(vlm, prepared, streams):
    rows = rows_of(vlm, ALL, prepared)
    seen = set()
    for modality in ("image", "text"):
        for row in rows["last", 4, modality]:
            sample = next(s for s in prepared if s.sample.id == row["sample_id"])
            assert (sample.pixels is not None) == (modality == "image")
            assert row["position"] == len(sample) - 1
            expected = streams[row["sample_id"]][4][-1]
            assert np.abs(row["vector"] - expected).max() <= 1e-5 * np.abs(expected).max()
            seen.add(row["sample_id"])
    assert len(seen) == len(prepared)


def test_statistics_count_every_token_whatever_the_views_keep(vlm, prepared, streams):
    few = ALL.model_copy(update={"tokens_per_sample": 2, "views": ("pooled",)})
    sums = merge([rows.sums for rows in Harvester(vlm, few, LAYERS, 500)(prepared)])
    for group, wanted in (("image", (Role.IMAGE, Role.NEWLINE)), ("text", (Role.TEXT,)), ("special", (Role.TEMPLATE,))):
        vectors = np.concatenate([streams[s.sample.id][2][np.isin(s.role, wanted)] for s in prepared]).astype(np.float64)
        found = sums[2, group]
        assert found.n == len(vectors)
        assert np.allclose(found.mean, vectors.mean(0), atol=1e-5)
        assert np.allclose(found.variance, vectors.var(0), rtol=1e-4)
        bins = np.bincount(norm_bin(np.linalg.norm(vectors, axis=1)), minlength=len(found.norm_counts))
        assert np.abs(found.norm_counts - bins).sum() <= 2  # a norm on the edge of a bin may round to either side


def test_drawn_tokens_depend_on_the_sample_and_not_on_its_neighbours(vlm, prepared):
    some = ALL.model_copy(update={"tokens_per_sample": 5})
    together = rows_of(vlm, some, prepared, tokens=2000)["tokens", 0, "image"]
    alone = [row for s in prepared for row in rows_of(vlm, some, [s]).get(("tokens", 0, "image"), [])]
    places = {(row["sample_id"], row["position"]) for row in together}
    assert places == {(row["sample_id"], row["position"]) for row in alone}
    assert len(together) == 5 * sum(s.pixels is not None for s in prepared)
    other = rows_of(vlm, some.model_copy(update={"seed": 1}), prepared)["tokens", 0, "image"]
    assert {(row["sample_id"], row["position"]) for row in other} != places


def test_values_beyond_the_stored_format_are_counted(vlm, prepared):
    half = ALL.model_copy(update={"dtype": "float16"})
    sums = merge([rows.sums for rows in Harvester(vlm, half, LAYERS, 500)(prepared)])
    assert all(s.n_nonfinite == 0 for s in sums.values())
    hook = vlm.text.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: ((args[0] * 1e7, *args[1:]), kwargs), with_kwargs=True
    )
    try:
        sums = merge([rows.sums for rows in Harvester(vlm, half, (0,), 500)(prepared)])
    finally:
        hook.remove()
    assert sums[0, "image"].n_nonfinite == sums[0, "image"].n


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_position_that_is_not_finite_is_counted_and_spoils_no_sum(vlm, prepared, bad):
    def spoil(module, args, kwargs):
        h = args[0].clone()
        h[0, 0] = bad
        return (h, *args[1:]), kwargs

    hook = vlm.text.layers[0].register_forward_pre_hook(spoil, with_kwargs=True)
    try:
        sums = merge([rows.sums for rows in Harvester(vlm, ALL, (0,), 10**6)(prepared[:5])])
    finally:
        hook.remove()
    assert sums[0, "special"].n_nonfinite == 1
    assert sums[0, "image"].n_nonfinite == 0
    assert all(np.isfinite(s.total).all() and np.isfinite(s.squares).all() for s in sums.values())


@pytest.mark.parametrize(("dtype", "bad"), [("float32", float("nan")), ("float16", 1e6)])
def test_statistics_and_means_are_those_of_the_positions_that_can_be_stored(vlm, prepared, dtype, bad):
    """Every third position is damaged: mean, variance and norms are those of the others, and so are pooled rows."""
    config, seen = ALL.model_copy(update={"dtype": dtype}), []

    def spoil(module, args, kwargs):
        h = args[0].clone()
        h[:, ::3] = bad
        seen.append(h)
        return (h, *args[1:]), kwargs

    hook = vlm.text.layers[0].register_forward_pre_hook(spoil, with_kwargs=True)
    try:
        found = list(Harvester(vlm, config, (0,), 10**6)(prepared[:1]))
    finally:
        hook.remove()
    sums, rows = merge([rows.sums for rows in found])[0, "image"], found[0].tables["tokens", 0, "image"].to_pylist()
    kept = np.array([seen[0][0, row["position"]].numpy() for row in rows if row["position"] % 3], np.float64)
    n_bad = sum(row["position"] % 3 == 0 for row in rows)
    assert n_bad > 3
    assert (sums.n, sums.n_nonfinite) == (len(rows), n_bad)
    assert np.allclose(sums.mean, kept.mean(0), atol=1e-5)
    assert np.allclose(sums.variance, kept.var(0), rtol=1e-4)
    (pooled,) = found[0].tables["pooled", 0, "image"].to_pylist()
    assert pooled["n_tokens"] == len(kept)
    assert np.allclose(np.frombuffer(pooled["vector"], dtype), kept.mean(0), atol=2e-3)


def test_quantiles_of_norms_are_those_of_the_finite_ones():
    norms = np.array([1.0] * 60 + [100.0] * 10 + [np.nan] * 20 + [np.inf] * 10)
    sums = Sums(100, 30, np.zeros(1), np.zeros(1), np.bincount(norm_bin(norms), minlength=len(Sums.zero(1).norm_counts)))
    assert sums.norm_quantile(0.5) == sums.norm_quantile(0.85) == pytest.approx(1.0, rel=0.025)
    assert sums.norm_quantile(0.99) == pytest.approx(100.0, rel=0.025)
    assert sums.n_high_norm == 10
    none = Sums(3, 3, np.zeros(1), np.zeros(1), np.bincount(norm_bin(np.full(3, np.nan)), minlength=len(sums.norm_counts)))
    assert np.isnan(none.norm_quantile(0.5))
    assert np.isnan(none.mean).all()
    assert none.n_high_norm == 0


def test_sums_merge_to_the_sums_of_the_whole():
    x = np.random.default_rng(0).normal(2, 3, (1000, 7))

    def sums(rows: np.ndarray) -> Sums:
        counts = np.bincount(norm_bin(np.linalg.norm(rows, axis=1)), minlength=len(Sums.zero(1).norm_counts))
        return Sums(len(rows), 0, rows.sum(0), (rows**2).sum(0), counts)

    merged = merge([{(0, "image"): sums(part)} for part in np.array_split(x, 13)])[0, "image"]
    assert np.allclose(merged.mean, x.mean(0))
    assert np.allclose(merged.variance, x.var(0))
    for q in (0.01, 0.5, 0.99):
        exact = np.quantile(np.linalg.norm(x, axis=1), q)
        assert merged.norm_quantile(q) == pytest.approx(exact, rel=0.025)


def test_attention_sinks_are_counted_as_high_norm():
    norms = np.r_[np.full(990, 8.0), np.full(10, 800.0)]
    counts = np.bincount(norm_bin(norms), minlength=len(Sums.zero(1).norm_counts))
    assert Sums(1000, 0, np.zeros(1), np.zeros(1), counts).n_high_norm == 10


def test_rows_are_the_models_memory_unless_that_is_pinned(vlm, prepared, monkeypatch):
    copied: list[int] = []
    clone = torch.Tensor.clone

    def counted(self: torch.Tensor, *more: object, **options: object) -> torch.Tensor:
        copied.append(self.data_ptr())
        return clone(self, *more, **options)

    monkeypatch.setattr(torch.Tensor, "clone", counted)
    (plain,) = Harvester(vlm, ALL, (0,), 10**6)(prepared[:3])
    assert copied == []
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: True)  # pinning itself needs a GPU
    (moved,) = Harvester(vlm, ALL, (0,), 10**6)(prepared[:3])
    assert len(copied) == 2 * len(moved.tables)  # vectors and norms of every table
    where = {table["vector"].chunk(0).buffers()[1].address for table in moved.tables.values()}
    assert where.isdisjoint(copied)
    assert all(table.equals(moved.tables[key]) for key, table in plain.tables.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_rows_that_wait_to_be_written_hold_no_pinned_memory(random_vlm, prepared):
    for rows in Harvester(load(random_vlm, 4, "cuda"), ALL, LAYERS, 500)(prepared):
        for table in rows.tables.values():
            for name in ("vector", "norm"):
                memory = table[name].chunk(0).buffers()[1]
                assert not torch.frombuffer(memory, dtype=torch.uint8).is_pinned()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 5e-2)])
def test_a_gpu_gives_the_rows_of_the_cpu(random_vlm, vlm, prepared, dtype, tolerance):
    on_gpu = load(random_vlm, 4, "cuda", dtype)
    theirs, ours = rows_of(on_gpu, ALL, prepared), rows_of(vlm, ALL, prepared)
    assert theirs.keys() == ours.keys()
    for key, rows in ours.items():
        for mine, other in zip(rows, theirs[key], strict=True):
            assert (mine["sample_id"], mine["position"]) == (other["sample_id"], other["position"])
            assert np.abs(mine["vector"] - other["vector"]).max() <= tolerance * np.abs(mine["vector"]).max()
