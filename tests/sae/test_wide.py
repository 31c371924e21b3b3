"""What wide SAEs cost on several workers: what is worked out is what is counted, and what the docs say."""

from pathlib import Path

import pytest
import torch

from bench.workers_in_threads import Member, together
from linrep.sae.config import AuxK, BatchTopK, MatchingPursuit, SaeDesign, TopK
from linrep.sae.train import Rows, Trainer
from linrep.sae.wide import step_cost, table
from tests.sae.reference import planted

D, BATCH = 64, 40
PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("reviving", [False, True])
@pytest.mark.parametrize("activation", [TopK(k=6), BatchTopK(k=6)], ids=lambda a: a.kind)
def test_a_step_moves_the_bytes_that_are_worked_out(activation, reviving: bool, n: int) -> None:
    """But for counts, and for the bias and its copy, of a few hundred bytes."""
    design = SaeDesign(activation=activation, expansion=32, aux=AuxK(k=12, dead_after=1))
    x, _ = planted(BATCH, D, 24, 3)

    def work(worker: Member) -> tuple[float, int]:
        trainer = Trainer.begin(design, x, 10, workers=worker)
        if reviving:
            trainer.since_fired += 10
        before = worker.moved
        trainer.take(Rows(x, torch.zeros(BATCH, dtype=torch.bool)))
        return worker.moved - before, sum(w.numel() * 4 for name, w in trainer.weights.items() if name in ("encoder", "decoder"))

    cost = step_cost(design, D, BATCH, n, reviving)
    for moved, held in together(n, work):
        assert moved == pytest.approx(cost.sums + cost.candidates, abs=2 * D * 4 + 64)
        assert 3 * held == cost.weights
        assert moved < 0.05 * cost.dense


@pytest.mark.parametrize("n", [2, 3, 8, 32, 128])
def test_a_step_of_131072_latents_moves_less_than_a_twentieth_of_its_gradients(n: int) -> None:
    """By hand for two workers and a batch of 2,048 rows at d 4096: rows of 2 bytes; two sums, each passed once; 256 + 2,048
    values a row; against 2 * 131,072 * 4096 * 4 bytes."""
    for k in (32, 256):
        design = SaeDesign(activation=TopK(k=k), expansion=32)
        assert design.n_latents(4096) == 131072
        assert 0 < step_cost(design, 4096, 2048, n).share < 0.05
    two = step_cost(SaeDesign(activation=TopK(k=256), expansion=32), 4096, 2048, 2)
    assert two.dense == 2 * 131072 * 4096 * 4
    assert two.rows == 2048 * 4096 * 2
    assert two.sums == (2 * 2048 + 1) * 4096 * 4
    assert two.candidates == 2048 * (256 + 2048) * 4


def test_the_page_has_the_table_that_is_worked_out() -> None:
    assert table() in PAGE.read_text(), "docs/cluster.md: put in what `python -m linrep.sae.wide` prints"


def test_other_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="got matching_pursuit"):
        step_cost(SaeDesign(activation=MatchingPursuit()), 16, 8, 2)
