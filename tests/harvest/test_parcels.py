"""A chunk in parts and parcels: the same samples in the same order, bounded by bytes, once each where reading fails midway."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from linrep.corpora import Corpora
from linrep.corpora.index import Chunk, build_index
from linrep.corpora.read import read
from linrep.harvest import parcels
from linrep.harvest.parcels import parts_of, read_parcels
from linrep.sample import Sample, Skipped
from linrep.vlm.config import ModelConfig
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from tests.conftest import encoded_image, write_corpora


@pytest.fixture(scope="module")
def preparer(random_vlm: ModelConfig) -> Preparer:
    return Preparer.from_path(random_vlm)


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    """Images of which one is damaged, texts, pairs with their captions alone."""
    folder = tmp_path_factory.mktemp("corpora")
    corpora = write_corpora(folder)
    (folder / "images/n01/p005.JPEG").write_bytes(encoded_image(5)[:300])
    return corpora


def chunks(corpora: Corpora) -> list[Chunk]:
    return list(build_index(corpora).chunks(1000))


def plainly(chunk: Chunk, corpora: Corpora, preparer: Preparer) -> list[Prepared | Skipped]:
    return [one if isinstance(one, Skipped) else preparer(one) for one in read(chunk, corpora)]


def same(one: Prepared | Skipped, other: Prepared | Skipped) -> bool:
    if isinstance(one, Skipped) or isinstance(other, Skipped):
        return one == other
    pixels = (one.pixels is None) == (other.pixels is None) and (one.pixels is None or np.array_equal(one.pixels, other.pixels))
    return one.sample == other.sample and np.array_equal(one.input_ids, other.input_ids) and bool(pixels)


def assert_same(found: list[Prepared | Skipped], expected: list[Prepared | Skipped]) -> None:
    assert len(found) == len(expected)
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


def test_parts_and_parcels_give_the_samples_of_the_chunk_in_its_order(some, preparer, monkeypatch):
    monkeypatch.setattr(parcels, "PART_RECORDS", 4)
    monkeypatch.setattr(parcels, "PARCEL_BYTES", 20_000)
    for chunk in chunks(some):
        parts = parts_of(chunk)
        assert len(parts) == {"images": 6, "text": 1, "pairs": 3}[chunk.corpus]
        assert sum(part.n_samples for part in parts) == chunk.n_samples
        assert {part.number for part in parts} == {chunk.number}
        found = [one for part in parts for parcel in read_parcels(part, some, preparer) for one in parcel.samples]
        expected = plainly(chunk, some, preparer)
        assert_same(found, expected)
        assert any(isinstance(one, Skipped) for one in expected) == (chunk.corpus != "text")


def test_no_parcel_is_beyond_its_bound_but_a_single_sample_that_is(some, preparer, monkeypatch):
    images = chunks(some)[0]
    weights = [one.n_bytes for one in plainly(images, some, preparer) if isinstance(one, Prepared)]
    for bound in (max(weights) - 1, 3 * max(weights), 10**9):
        monkeypatch.setattr(parcels, "PARCEL_BYTES", bound)
        found = [[one.n_bytes for one in p.samples if isinstance(one, Prepared)] for p in read_parcels(images, some, preparer)]
        assert [n for own in found for n in own] == weights
        assert all(sum(own) <= bound or len(own) == 1 for own in found)
        # None could have taken in the next one's first sample.
        assert all(sum(own) + after[0] > bound for own, after in pairwise(found) if own and after)
    assert len(found) == 1
    assert max(weights) > min(weights)


def test_a_store_that_fails_on_the_way_costs_no_sample_and_prepares_none_twice(some, preparer, monkeypatch):
    images, left, prepared = chunks(some)[0], [3, 7], []

    def flaky(chunk: Chunk, corpora: Corpora) -> Iterator[Sample | Skipped]:
        for i, sample in enumerate(read(chunk, corpora)):
            if left and i == left[0]:
                del left[0]
                raise OSError("not now")
            yield sample

    class Counting(Preparer):
        def __init__(self) -> None:
            pass

        def __call__(self, sample: Sample) -> Prepared | Skipped:
            prepared.append(sample.id)
            return preparer(sample)

    expected = plainly(images, some, preparer)
    monkeypatch.setattr(parcels, "read", flaky)
    own = Counting()
    found = [one for parcel in read_parcels(images, some, own, (0.0, 0.0)) for one in parcel.samples]
    assert_same(found, expected)
    assert left == []
    assert len(prepared) == len(set(prepared))
    left[:] = [1, 2, 3]
    with pytest.raises(OSError, match="not now"):
        list(read_parcels(images, some, own, (0.0, 0.0)))


def test_a_reader_says_where_its_time_goes(some, preparer):
    by_corpus = {}
    for chunk in chunks(some):
        (parcel,) = read_parcels(chunk, some, preparer)
        by_corpus[chunk.corpus] = parcel.seconds
        assert parcel.seconds["read"] > 0
        assert parcel.seconds["prepare"] > 0
        assert parcel.seconds["forward"] == parcel.seconds["wait"] == 0
    assert by_corpus["images"]["decode"] > 0
    assert by_corpus["text"]["decode"] == 0
