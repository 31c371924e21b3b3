"""A store with attention sinks gives the rows of the same store without, whoever reads it; and says how many it kept apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

import linrep.store
from linrep.places import place
from linrep.store.blocks import blocks, files_of
from linrep.store.groups import rows_of_samples
from linrep.store.layout import STATISTICS
from linrep.store.limits import as_records, from_records, limit_for, norm_limits
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.mixture import find_sources, held_out
from linrep.store.read import Store
from linrep.store.statistics import Sums, from_table, norm_bin, to_table
from linrep.store.stream import Stream
from linrep.store.summary import apart_lines
from linrep.store.write import samples_table, vector_column, write_statistics, writing_chunk
from schemas import vectors

D, CHUNKS, SAMPLES, EACH = 16, 3, 7, 9
SINK = 25_000.0


def write(
    folder: Path, sinks: bool, factor: float | None = 10.0, limits: bool = True, last: float = 1.0, statistics: bool = True
) -> Store:
    """Images and texts, each of n tokens; with sinks, some image tokens and each text's first have one huge coordinate."""
    here, schema = place(folder), vectors(D, "float32")
    for chunk in range(CHUNKS):
        rng = np.random.default_rng(chunk)
        samples = []
        with writing_chunk(here, chunk, schema) as writer:
            for modality, scale in (("image", 300.0), ("text", 110.0)):
                rows = {"tokens": [], "last": []}
                for s in range(SAMPLES):
                    name = f"{modality}/{chunk}-{s}"
                    given = {"sample_id": name, "corpus": "c", "modality": modality, "uri": f"{name}.JPEG", "split": "train"}
                    samples.append({**given, "n_image_tokens": EACH, "n_text_tokens": EACH})
                    x = scale * rng.standard_normal((EACH, D)).astype(np.float32) / D**0.5
                    own = [(name, 1 + t, v) for t, v in enumerate(x)]
                    rows["last"].append((*own[-1][:2], last * own[-1][2]))
                    for position in ((4, 11) if modality == "image" else (0,)) if sinks else ():
                        high = np.zeros(D, np.float32)
                        high[5] = SINK
                        own.insert(position, (name, 100 + position, high))
                    rows["tokens"] += own
                for view, some in rows.items():
                    x = np.stack([v for *_, v in some])
                    columns = {
                        "sample_id": pa.array([name for name, *_ in some]),
                        "position": pa.array([p for _, p, _ in some], pa.int32()),
                        "norm": pa.array(np.linalg.norm(x, axis=1), pa.float32()),
                        "split": pa.array(["train"] * len(some)),
                        "vector": vector_column(x),
                    }
                    arrays = [columns.get(f.name, pa.nulls(len(some), f.type)) for f in schema]
                    writer.vectors(view, 0, modality, pa.Table.from_arrays(arrays, schema=schema))
            writer.commit(samples_table(samples), {}, len(samples), 1, (), 0.0, "float32")
    sums = {(0, m): of(scale * np.ones((50, 1)) * np.eye(1, D)) for m, scale in (("image", 300.0), ("text", 110.0))}
    if statistics:
        write_statistics(here, sums)
    manifest = Manifest(
        name="t", digest="0" * 10, model={}, layers=(0,), views=("tokens", "last"), dtype="float32", width=D, corpora={},
        harvest={"high_norm": factor}, n_chunks=CHUNKS, chunk_size=SAMPLES, status="complete",
        limits=as_records({"c": {(0, "image"): 3000.0, (0, "text"): 1100.0}}) if limits else [],
    )  # fmt: skip
    write_manifest(here, manifest)
    return linrep.store.open(str(folder))


def of(x: np.ndarray) -> Sums:
    counts = np.bincount(norm_bin(np.linalg.norm(x, axis=1)), minlength=len(Sums.zero(1).norm_counts))
    return Sums(len(x), 0, x.sum(0), (x**2).sum(0), counts)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write(tmp_path_factory.mktemp("without"), False)


@pytest.fixture(scope="module", params=["limits in the manifest", "limits from statistics", "limits from rows"])
def having(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder, says = tmp_path_factory.mktemp("having"), request.param
    return write(folder, True, limits="manifest" in says, statistics="rows" not in says)


@pytest.mark.parametrize("modality", ["image", "text", None])
def test_every_way_to_read_a_selection_leaves_out_high_norms(without, having, modality):
    plain, own = (store.select("tokens", 0, modality) for store in (without, having))
    assert len(own) == len(plain)
    assert torch.equal(own.torch(), plain.torch())
    assert np.array_equal(own.numpy(), plain.numpy())
    assert own.table(["position", "vector"]).equals(plain.table(["position", "vector"]))
    assert own.polars().equals(plain.polars())
    assert own.scan().select(pl.len()).collect().item() == len(plain)
    found = [pa.Table.from_batches(s.batches(["position"], 5)).to_pydict() for s in (plain, own)]
    assert found[0] == found[1]


def test_high_norms_are_there_for_those_who_ask(without, having):
    n = {"image": 2 * CHUNKS * SAMPLES, "text": CHUNKS * SAMPLES}
    for modality, expected in n.items():
        high = having.select("tokens", 0, modality, high_norm=True)
        assert len(high) == expected == len(high.polars())
        assert (high.torch()[:, 5] == SINK).all()
        every = having.select("tokens", 0, modality, high_norm=None)
        assert len(every) == len(every.polars()) == expected + CHUNKS * SAMPLES * EACH
        assert len(without.select("tokens", 0, modality, high_norm=True)) == 0
    assert len(having.select("last", 0, high_norm=True)) == 0


@pytest.mark.parametrize("modality", ["image", "text"])
def test_blocks_and_rows_of_samples_leave_out_high_norms(without, having, modality):
    wanted = np.zeros(2 * CHUNKS * SAMPLES, bool)
    wanted[::2] = wanted[1] = True
    found = []
    for store in (without, having):
        parts = files_of(store, "tokens", 0, modality, 4)
        read = [block for files in parts for block in blocks(store, files, "tokens", wanted, ("position",))]
        some = {f"{modality}/{c}-{s}": c * SAMPLES + s for c in range(CHUNKS) for s in range(0, SAMPLES, 2)}
        rows, owners = rows_of_samples(store.select("tokens", 0, modality), some)
        x, sample = torch.cat([b.x for b in read]), np.concatenate([b.sample for b in read])
        found.append((x, sample, np.concatenate([b.columns["position"] for b in read]), rows, owners))
    assert len(found[0][3]) == CHUNKS * 4 * EACH
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else np.array_equal(one, other)


def test_training_reads_the_rows_that_analyses_read(without, having):
    if not (having.place / STATISTICS).is_file():
        pytest.skip("training takes its scale from the statistics")
    for modality in ("image", "text"):
        plain, own = (find_sources(store, 0, "train")[modality] for store in (without, having))
        assert own.keep.limit == having.limit("tokens", 0, modality) < SINK
        assert own.mean_norm == plain.mean_norm
        streams = [Stream(s.selection, s.groups, s.keep, 0, shuffle_rows=10**6) for s in (plain, own)]
        n = CHUNKS * SAMPLES * EACH
        first, second = (np.sort(s.take(n).vectors.view(np.float32).ravel()) for s in streams)
        assert np.array_equal(first, second)
        assert streams[1].left_out["high_norm"] == (2 if modality == "image" else 1) * CHUNKS * SAMPLES
        for s in streams:
            s.close()
        one, other = (held_out(find_sources(store, 0, "train"), 10**6)[modality] for store in (without, having))
        assert torch.equal(one, other)


def test_a_last_position_is_measured_by_last_positions(tmp_path):
    """All last tokens are a hundred times as long as others: none of them is unusual."""
    store = write(tmp_path, False, limits=False, last=100.0)
    assert len(store.select("last", 0, "image")) == CHUNKS * SAMPLES
    assert store.limit("last", 0, "image") > store.limit("tokens", 0, "image") > 0


def test_a_recipe_without_a_factor_keeps_everything_in(tmp_path):
    store = write(tmp_path, True, factor=None, limits=False)
    assert len(store.select("tokens", 0, "text")) == CHUNKS * SAMPLES * (EACH + 1)
    assert store.limit("tokens", 0, "text") == float("inf")


def test_a_number_that_is_not_finite_is_broken_and_not_high(having):
    selection = having.select("tokens", 0, "text")
    norms = np.array([1.0, np.inf, np.nan, SINK], np.float32)
    assert selection.takes(selection.files[0], norms).tolist() == [True, True, True, False]


@pytest.fixture(scope="module")
def two_sources(having: Store) -> Store:
    """The first chunk is of a source in which images are high above 3,000, the others of one in which they are above 30,000."""
    one, other = ({(0, "image"): limit, (0, "special"): 1100.0} for limit in (3000.0, 30_000.0))
    listed = {"digest": "c", "one": {"n_records": SAMPLES - 1}, "other": {"n_records": SAMPLES + 1}}
    manifest = replace(having.manifest, corpora=listed, limits=as_records({"one": one, "other": other}))
    return Store(having.place, manifest, having.commits)


def test_a_token_is_high_by_the_limit_of_its_own_source_whoever_reads_it(two_sources):
    assert two_sources.manifest.chunks_of == {"one": range(1), "other": range(1, 3)}
    assert [two_sources.manifest.source_of(chunk) for chunk in range(4)] == ["one", "other", "other", None]
    n = CHUNKS * SAMPLES * EACH + 2 * SAMPLES * 2  # the two sinks of each image in two of three chunks are none
    selection = two_sources.select("tokens", 0, "image")
    assert len(selection) == n == len(selection.polars())
    assert len(two_sources.select("tokens", 0, "image", high_norm=True)) == 2 * SAMPLES
    wanted = np.ones(2 * CHUNKS * SAMPLES, bool)
    parts = files_of(two_sources, "tokens", 0, "image", 2)
    assert sum(len(block.x) for files in parts for block in blocks(two_sources, files, "tokens", wanted)) == n
    some = {f"image/{c}-0": c for c in range(CHUNKS)}
    assert len(rows_of_samples(selection, some)[1]) == CHUNKS * EACH + 2 * 2


def test_training_goes_by_the_limits_of_sources_too(two_sources):
    if not (two_sources.place / STATISTICS).is_file():
        pytest.skip("training takes its scale from the statistics")
    own = find_sources(two_sources, 0, "train")["image"]
    stream = Stream(own.selection, own.groups, own.keep, 0, shuffle_rows=10**6)
    stream.take(CHUNKS * SAMPLES * EACH + 2 * SAMPLES * 2)
    assert stream.left_out["high_norm"] == 2 * SAMPLES
    stream.close()


def test_a_token_of_no_source_is_high_where_it_is_so_in_every_source(two_sources):
    assert two_sources.limit("tokens", 0, "image", "one") == 3000.0
    assert two_sources.limit("tokens", 0, "image") == 30_000.0
    # Neither has texts: what stands under text are special tokens.
    assert two_sources.limit("tokens", 0, "text", "one") == two_sources.limit("tokens", 0, "text") == 1100.0
    limits = {"images": {(1, "special"): 900.0}, "text": {(1, "special"): 80.0, (1, "text"): 80.0}}
    assert limit_for(limits, 1, "text") == 80.0  # what texts say counts where there are any
    assert limit_for(limits, 1, "text", "images") == 900.0
    assert limit_for(limits, 1, "text", "none") == limit_for(limits, 2, "text") == float("inf")


def test_limits_are_medians_times_the_factor_and_special_tokens_have_that_of_texts():
    counts = lambda norm: of(np.full((9, 1), norm))  # noqa: E731
    sums = {(1, "image"): counts(300.0), (1, "text"): counts(110.0), (1, "special"): counts(SINK), (2, "special"): counts(7.0)}
    sums |= {(3, "image"): counts(300.0), (3, "special"): counts(SINK), (4, "image"): counts(300.0), (4, "special"): counts(7.0)}
    limits = norm_limits(sums, 10.0)
    assert limits[1, "image"] == pytest.approx(3000, rel=0.03)
    assert limits[1, "text"] == limits[1, "special"] == pytest.approx(1100, rel=0.03)
    # Without texts: by the lower of their own median and that of images.
    assert limits[2, "special"] == limits[4, "special"] == pytest.approx(70, rel=0.03)
    assert limits[3, "special"] == limits[3, "image"] == pytest.approx(3000, rel=0.03)
    assert not {(2, "text"), (3, "text")} & limits.keys()
    assert norm_limits(sums, None) == {}
    assert from_records(as_records({"a": limits, "b": {(0, "image"): 1.0}})) == {"a": limits, "b": {(0, "image"): 1.0}}
    assert all(float(np.float32(limit)) == limit for limit in limits.values())


def test_counts_of_high_norms_merge_and_survive_the_file():
    x = np.ones((4, D))
    some = replace(of(x), high_counts=np.eye(1, len(of(x).norm_counts), 700, dtype=np.int64)[0], high_positions=np.array([3]))
    more = replace(some, high_positions=np.array([0, 0, 2]))
    both = from_table(to_table({(0, "text"): some + more + of(x)}))[0, "text"]
    assert (both.n, both.n_high_norm) == (12, 2)
    assert both.high_positions is not None
    assert both.high_positions.tolist() == [3, 0, 2]
    assert from_table(to_table({(0, "text"): of(x)}))[0, "text"].high_counts is None


def test_the_headline_says_how_many_and_where(without):
    record = {"n": 4096, "n_high_norm": 12, "n_nonfinite": 0, "high_norm_positions": [[0, 10], [7, 2]]}
    none = {"n": 4096, "n_high_norm": 0, "n_nonfinite": 0, "high_norm_positions": []}
    some = [{"layer": k, "group": "text", **(record if k in (3, 5, 6) else none)} for k in range(8)]
    lines = apart_lines(replace(without.manifest, statistics=some))
    assert "10 x the median" in lines[0]
    assert "12 of 4,108 at layer 3; at positions 0 (10), 7 (2)" in lines[1]
    assert lines[1].endswith("layers 3, 5-6")
    assert apart_lines(replace(without.manifest, statistics=some), [1, 2]) == []
