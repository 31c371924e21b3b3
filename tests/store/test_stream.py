"""The stream that training reads: every row once a pass, really mixed, shared out, resumed exactly, and clear about bad rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.workers_in_threads import Member, together
from linrep.errors import StoreError
from linrep.store.groups import Keep, count_rows, row_groups
from linrep.store.mixture import Mixture, find_sources, held_out, mean_norm, passes, proportion
from linrep.store.read import Store
from linrep.store.stream import Stream
from linrep.workers import ALONE, Workers
from tests.store.planted_store import numbered, numbers, sums_of, write_store

D, FILES, EACH = 8, 10, 120
N = FILES * EACH


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    chunks = [numbered(EACH, D, i * EACH) for i in range(FILES)]
    texts = [numbered(40, D, i * 40, norm=8.0) for i in range(FILES)]
    return write_store(tmp_path_factory.mktemp("store"), {(3, "image"): chunks, (3, "text"): texts})


def stream(store: Store, workers: Workers = ALONE, shuffle_rows: int = 5 * EACH, seed: int = 0, **keep) -> Stream:
    selection = store.select("tokens", 3, "image")
    return Stream(selection, row_groups(selection), Keep(**keep), seed, workers, shuffle_rows)


def read(one: Stream, n: int, step: int = 37) -> np.ndarray:
    found = []
    while n:
        found.append(numbers(one.take(min(step, n)).vectors))
        n -= len(found[-1])
    one.close()
    return np.concatenate(found).astype(int)


def test_a_pass_gives_every_row_once_and_the_next_in_another_order(store):
    rows = read(stream(store), 2 * N)
    first, second = rows[:N], rows[N:]
    assert sorted(first) == sorted(second) == list(range(N))
    assert (first != second).mean() > 0.9


def test_the_order_is_a_function_of_the_seed(store):
    assert (read(stream(store), N) == read(stream(store), N, step=5)).all()
    assert (read(stream(store), N) != read(stream(store, seed=1), N)).mean() > 0.9


def test_neighbours_come_from_many_files(store):
    """A window of 30 rows draws from about all 5 files of a pool; files read one after another would give 1 or 2."""
    files = read(stream(store), N) // EACH
    windows = [len(set(files[i : i + 30])) for i in range(0, N, 30)]
    assert np.mean(windows) > 4.5
    unmixed = read(stream(store, shuffle_rows=1), N) // EACH
    assert np.mean([len(set(unmixed[i : i + 30])) for i in range(0, N, 30)]) < 1.5


@pytest.mark.parametrize("world", [2, 3, 16])
def test_all_workers_get_the_rows_of_one_alone_and_each_reads_a_part(store, world, monkeypatch):
    """Ranks of 10 and more too, and more workers than pools."""
    alone = stream(store, shuffle_rows=2 * EACH, split="train")
    expected = read(alone, 2 * N)
    loads: list[tuple[int, int]] = []
    real = Stream._load

    def counted(one: Stream, epoch: int, number: int):
        loads.append((epoch, number))
        return real(one, epoch, number)

    monkeypatch.setattr(Stream, "_load", counted)

    def work(worker: Member) -> tuple[np.ndarray, dict]:
        one = stream(store, worker, shuffle_rows=2 * EACH, split="train")
        return read(one, 2 * N), one.state_dict()

    for rows, state in together(world, work):
        assert (rows == expected).all()
        assert state == alone.state_dict()
    assert len(loads) == len(set(loads))  # no pool is read twice


def test_a_stream_goes_on_with_another_number_of_workers(store):
    def vectors(worker: Workers, n: int, state: dict | None = None) -> tuple[np.ndarray, dict]:
        one = stream(store, worker)
        if state is not None:
            one.load_state_dict(state)
        taken = [one.take(7).vectors for _ in range(n)]
        one.close()
        return np.concatenate(taken), one.state_dict()

    expected, _ = vectors(ALONE, 200)
    ((_, state), _) = together(2, lambda worker: vectors(worker, 130))
    for rows, _ in together(3, lambda worker: vectors(worker, 70, state)):
        assert (rows == expected[7 * 130 :]).all()


def test_a_group_that_one_worker_cannot_read_ends_all_of_them(store, monkeypatch):
    real = Stream._load

    def broken(one: Stream, epoch: int, number: int):
        if number == 1:
            raise StoreError("the disk is gone")
        return real(one, epoch, number)

    monkeypatch.setattr(Stream, "_load", broken)

    def work(worker: Member) -> str:
        one = stream(store, worker)
        with pytest.raises(StoreError) as error:
            read(one, N)
        one.close()
        return str(error.value)

    assert together(3, work) == ["the disk is gone"] * 3


@pytest.mark.parametrize("taken", [0, 1, 599, 600, 601, 1500, 2399])
def test_a_resumed_stream_gives_exactly_the_rest(store, taken):
    whole = read(stream(store), 3000)
    one = stream(store)
    if taken:
        read(one, taken)
    again = stream(store)
    again.load_state_dict(one.state_dict())
    assert (read(again, 3000 - taken) == whole[taken:]).all()
    assert again.rows >= 3000 - taken


def test_counts_survive_a_resume(store):
    one = stream(store, split="train")
    read(one, 700)
    again = stream(store, split="train")
    again.load_state_dict(one.state_dict())
    read(again, 100)
    assert again.rows == N  # both pools of the first pass, each counted once


def test_splits_special_tokens_and_high_norms_are_left_out(tmp_path: Path):
    x = numbered(90, D)
    x[30] *= 100
    marks = np.arange(90) % 9 == 0
    store = write_store(tmp_path, {(0, "text"): [x]}, {(0, "text"): [marks]}, splits=("train", "train", "val"))
    selection = store.select("tokens", 0, "text")
    groups = row_groups(selection)
    expected = [i for i in range(90) if i % 3 < 2 and not marks[i] and i != 30]
    keep = Keep("train", special=False, limit=40.0)
    one = Stream(selection, groups, keep, 0)
    assert sorted(read(one, len(expected))) == expected
    assert one.left_out == {"special": 10, "high_norm": 1, "nonfinite": 0}
    assert count_rows(selection, keep) == (50, True)
    clipped = Stream(selection, groups, Keep("train", special=True, limit=40.0, clip=True), 0)
    taken = clipped.take(60)
    clipped.close()
    assert taken.factors is not None
    norms = np.linalg.norm(taken.vectors.view(np.float16).astype(np.float32) * taken.factors[:, None], axis=1)
    assert norms.max() == pytest.approx(40.0, rel=1e-3)
    assert (taken.factors < 1).sum() == 1


def test_rows_that_are_not_finite_are_left_out_counted_and_named(tmp_path: Path):
    chunks = [numbered(20, D, 0), numbered(20, D, 20)]
    chunks[1][3, 5], chunks[1][7, 2] = np.nan, np.inf
    store = write_store(tmp_path, {(0, "image"): chunks})
    selection = store.select("tokens", 0, "image")
    one = Stream(selection, row_groups(selection), Keep(), 0)
    assert sorted(read(one, 38)) == [i for i in range(40) if i not in (23, 27)]
    assert one.left_out["nonfinite"] == 2
    assert one.first_nonfinite == "row 3 of row group 0 of tokens/layer=0/modality=image/part-000001.parquet"


@pytest.mark.parametrize(("high_norm", "kept", "high"), [("drop", 36, 1), ("clip", 37, 1), ("keep", 37, 0)])
def test_infinite_rows_are_named_whatever_is_done_with_high_norms(tmp_path: Path, high_norm, kept, high):
    """An infinite row has an infinite norm: that does not make it one that is only too long."""
    x = numbered(40, D)
    x[5, 3], x[9, 2], x[12] = np.inf, np.nan, x[12] * 100
    marks = np.isin(np.arange(40), [20])
    x[20, 1] = np.inf  # special and left out as such: it never counted
    store = write_store(tmp_path, {(0, "image"): [x]}, {(0, "image"): [marks]})
    source = find_sources(store, 0, "train", high_norm=high_norm)["image"]
    one = Stream(source.selection, source.groups, source.keep, 0)
    taken = one.take(kept)
    one.close()
    assert one.rows == kept
    assert one.left_out == {"special": 1, "high_norm": high, "nonfinite": 2}
    assert one.first_nonfinite == "row 5 of row group 0 of tokens/layer=0/modality=image/part-000000.parquet"
    assert np.isfinite(taken.vectors.view(np.float16)).all()
    assert (taken.factors is not None) == (high_norm == "clip")
    assert taken.factors is None or (np.isfinite(taken.factors).all() and (taken.factors < 1).sum() == 1)


def test_damaged_files_and_wrong_widths_are_one_clear_line(tmp_path: Path):
    store = write_store(tmp_path / "wide", {(0, "image"): [numbered(20, D)]}, width=16)
    with pytest.raises(StoreError, match=r"part-000000.parquet holds vectors of type .*16\], but the manifest says width 16"):
        row_groups(store.select("tokens", 0, "image"))
    store = write_store(tmp_path / "cut", {(0, "image"): [numbered(20, D), numbered(20, D)]})
    file = tmp_path / "cut" / "tokens/layer=0/modality=image/part-000001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"part-000001.parquet is no whole parquet file") as error:
        row_groups(store.select("tokens", 0, "image"))
    assert "\n" not in str(error.value)
    file.unlink()
    with pytest.raises(StoreError, match=r"part-000001.parquet is missing"):
        row_groups(store.select("tokens", 0, "image"))


def test_no_row_that_counts_is_an_error_not_an_endless_loop(store):
    with pytest.raises(StoreError, match=r"no row of tokens/layer=3/modality=image .* counts"):
        stream(store, split="val").take(1)
    with pytest.raises(StoreError, match="no rows"):
        Stream(store.select("tokens", 3, "image"), (), Keep(), 0)


@pytest.mark.parametrize(("text_share", "n_text"), [(None, 16), (0.5, 32), (0.25, 16), (0.999, 63), (0.0, 0), (1.0, 64)])
def test_batches_have_the_proportion_asked_for_whatever_the_store_holds(store, text_share, n_text):
    """It holds 1,200 image and 400 text rows."""
    sources = find_sources(store, 3, "train")
    parts = proportion(sources, 64, text_share, False, "the store")
    assert (parts.n_text, parts.n_image) == (n_text, 64 - n_text)
    mixture = Mixture(sources, parts, 0)
    for _ in range(20):
        x, is_text = mixture.next_batch()
        norms = x.norm(dim=1) / parts.scale_image
        assert int(is_text.sum()) == n_text
        assert ((norms > 6) == is_text).all()  # texts have twice the norm here
    mixture.close()


def test_scaled_rows_have_mean_norm_sqrt_d(store):
    sources = find_sources(store, 3, "train")
    for per_modality in (False, True):
        parts = proportion(sources, 80, 0.5, per_modality, "the store")
        mixture = Mixture(sources, parts, 0)
        batches = [mixture.next_batch() for _ in range(30)]
        mixture.close()
        x, is_text = (torch.cat(part) for part in zip(*batches, strict=True))
        norms = x.norm(dim=1)
        assert norms.mean().item() == pytest.approx(D**0.5, rel=0.02)
        if per_modality:
            assert norms[is_text].mean().item() == pytest.approx(norms[~is_text].mean().item(), rel=0.02)
        else:
            assert norms[is_text].mean() > 1.5 * norms[~is_text].mean()
            assert parts.scale_image == parts.scale_text


def test_mean_norm_leaves_out_or_clips_what_is_above_the_limit():
    x = np.zeros((100, 4))
    x[:, 0] = 5.0
    x[0, 0] = 1000.0
    sums = sums_of(x)
    assert mean_norm(sums) == pytest.approx((99 * 5 + 1000) / 100, rel=0.012)
    assert mean_norm(sums, 50.0) == pytest.approx(5.0, rel=0.012)
    assert mean_norm(sums, 50.0, clip=True) == pytest.approx((99 * 5 + 50) / 100, rel=0.012)
    with pytest.raises(StoreError, match="nothing to scale by"):
        mean_norm(sums_of(np.zeros((3, 4))))


def test_a_modality_that_is_asked_for_and_missing_is_one_clear_line(tmp_path: Path):
    store = write_store(tmp_path, {(0, "image"): [numbered(20, D)]})
    sources = find_sources(store, 0, "train")
    with pytest.raises(StoreError, match=r"layer 0 of here holds no text rows .* set the text share to 0$"):
        proportion(sources, 8, 0.5, False, "layer 0 of here")
    assert proportion(sources, 8, None, False, "layer 0 of here").n_text == 0
    with pytest.raises(StoreError, match="no rows of tokens"):
        proportion(find_sources(store, 0, "val"), 8, None, False, "layer 0 of here")


def test_a_resumed_mixture_gives_exactly_the_rest(store):
    sources = find_sources(store, 3, "train")
    parts = proportion(sources, 50, 0.3, True, "here")
    whole, one, again = (Mixture(sources, parts, 7, shuffle_rows=300) for _ in range(3))
    expected = [whole.next_batch()[0] for _ in range(40)]
    for _ in range(23):
        one.next_batch()
    again.load_state_dict(one.state_dict())
    for x in expected[23:]:
        assert torch.equal(again.next_batch()[0], x)
    for mixture in (whole, one, again):
        mixture.close()


def test_what_a_run_reads_is_said(store):
    sources = find_sources(store, 3, "train")
    parts = proportion(sources, 60, 0.5, False, "here")
    assert passes(sources, parts, 20) == [
        "image: 600 rows from 1,200 (0.50 passes: a part of them)",
        "text: 600 rows from 400 (1.50 passes: repeated)",
    ]


def test_held_out_rows_are_those_of_the_split_in_the_models_own_scale(tmp_path: Path):
    chunks = [numbered(40, D, 40 * i) for i in range(3)]
    store = write_store(tmp_path, {(0, "image"): chunks}, splits=("train", "val"))
    found = held_out(find_sources(store, 0, "val"), 1000)
    assert sorted(numbers(found["image"].numpy())) == list(range(1, 120, 2))
    assert len(held_out(find_sources(store, 0, "val"), 25)["image"]) == 25
