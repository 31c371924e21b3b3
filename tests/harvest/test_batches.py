"""Micro-batches of a stream: each sample once, within the budget, decided by the samples alone, and few of them at hand."""

from dataclasses import dataclass

import numpy as np
import pytest

from linrep.harvest.batches import micro_batches
from linrep.vlm.batch import pack

BUDGET = 8192


@dataclass(frozen=True)
class Sized:
    """What packing asks of a sample."""

    number: int
    n: int
    n_bytes: int

    def __len__(self) -> int:
        return self.n


def samples(n: int, seed: int = 0) -> list[Sized]:
    """Lengths as mixed as those of any-resolution images: half have one of two lengths, the others any."""
    draw = np.random.default_rng(seed)
    usual = draw.choice([2340, 1968], n)
    lengths = np.where(draw.random(n) < 0.5, usual, draw.integers(900, 2937, n))
    return [Sized(i, int(length), int(length) * 600) for i, length in enumerate(lengths)]


def batches_of(own: list[Sized], window: int) -> list[list[int]]:
    return [[one.number for one in batch] for batch in micro_batches(own, BUDGET, window)]


def padding(own: list[Sized], batches: list[list[int]]) -> float:
    held = sum(one.n for one in own)
    return 1 - held / sum(max(own[i].n for i in batch) * len(batch) for batch in batches)


def test_what_fits_into_the_window_is_packed_as_a_whole():
    own = samples(100)
    assert batches_of(own, 10**9) == pack([one.n for one in own], BUDGET)


def test_each_sample_goes_once_and_no_batch_is_beyond_its_budget():
    own = samples(500)
    batches = batches_of(own, 60 * 10**6)
    assert sorted(i for batch in batches for i in batch) == list(range(500))
    assert all(max(own[i].n for i in batch) * len(batch) <= BUDGET for batch in batches)


@pytest.mark.parametrize("n", [200, 2000])
def test_samples_at_hand_are_the_window_at_most_however_many_there_are(n):
    own, window, at_hand, most = samples(n), 60 * 10**6, 0, 0

    def stream():
        nonlocal at_hand, most
        for one in own:
            at_hand += one.n_bytes
            most = max(most, at_hand)
            yield one

    for batch in micro_batches(stream(), BUDGET, window):
        at_hand -= sum(one.n_bytes for one in batch)
    assert at_hand == 0
    assert most <= window + max(one.n_bytes for one in own)


def test_a_window_pads_hardly_more_than_a_whole_chunk():
    """113 images of five tiles at hand, of 512: at most half a percent more padding, and two percent more batches."""
    own = samples(512)
    window = 113 * int(np.mean([one.n_bytes for one in own]))
    streamed, whole = batches_of(own, window), pack([one.n for one in own], BUDGET)
    assert len(streamed) > 100  # a batch holds two to eight
    assert padding(own, streamed) <= padding(own, whole) + 0.005
    assert len(streamed) <= 1.02 * len(whole)
    # The control: in the order of the samples padding is not small.
    assert padding(own, [[*range(i, min(i + 3, 512))] for i in range(0, 512, 3)]) > 0.1


def test_samples_longer_than_the_budget_go_alone():
    own = [Sized(i, 9000 + i, 5 * 10**6) for i in range(5)]
    assert sorted(batches_of(own, 10**7)) == [[i] for i in range(5)]


def test_a_budget_beyond_the_window_still_gives_every_sample():
    own = samples(20)
    found = [[one.number for one in batch] for batch in micro_batches(own, 10**9, 10**6)]
    assert sorted(found[0]) == list(range(20))
    assert len(found) == 1
