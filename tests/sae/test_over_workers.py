"""Latents over several workers: the same training as on one, and no gradient of a matrix ever moves."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from bench.workers_in_threads import Member, together
from linrep.sae.config import (
    Adam,
    Archetypal,
    AuxK,
    BatchTopK,
    Gated,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    ReLU,
    SaeDesign,
    TopK,
)  # fmt: skip
from linrep.sae.over_workers import largest_of_all, offered
from linrep.sae.shard import Shard, joined
from linrep.sae.start import unit_rows
from linrep.sae.train import Metrics, Rows, Trainer, fit
from linrep.workers import Group
from tests.sae.reference import planted

D, BATCH, STEPS = 16, 64, 24
SPLIT = [
    ReLU(l1=1.0), TopK(k=4), BatchTopK(k=4), Matryoshka(k=4, prefixes=(0.25, 0.6, 1.0)), JumpReLU(target_l0=4.0), Gated(l1=1.0),
    Archetypal(k=4, points=24),
]  # fmt: skip
each = pytest.mark.parametrize("activation", SPLIT, ids=lambda a: a.kind)


def design(activation, **more) -> SaeDesign:
    """65 latents, which neither 2 nor 4 workers share evenly; many die soon, more than take part in a row."""
    aux = AuxK(dead_after=2 * BATCH, k=5)
    return SaeDesign(activation=activation, expansion=65 / D, aux=aux, adam=Adam(learning_rate=3e-3), **more)


def batches(steps: int = STEPS, seed: int = 0) -> list[Rows]:
    x, _ = planted(steps * BATCH, D, 24, 3, seed)
    text = torch.arange(len(x)) % 3 == 0
    return [Rows(x[i : i + BATCH].double(), text[i : i + BATCH]) for i in range(0, len(x), BATCH)]


def sample() -> Tensor:
    return batches(2, seed=1)[0].x


def dead_from_the_start(trainer: Trainer) -> Trainer:
    """Some latents, by their number in the whole SAE, are far below zero."""
    if "b_enc" in trainer.weights:
        for latent in (*range(3, 12), 40, 64):
            if trainer.shard.first <= latent < trainer.shard.last:
                trainer.weights["b_enc"][latent - trainer.shard.first] = -3.0
    return trainer


def alone(config: SaeDesign, rows: list[Rows]) -> tuple[Trainer, list[Metrics]]:
    trainer = dead_from_the_start(Trainer.begin(config, sample(), STEPS))
    return trainer, list(fit(rows, [trainer], every=8))


def over(n: int, config: SaeDesign, rows: list[Rows]) -> list[tuple[Trainer, list[Metrics]]]:
    def work(worker: Member) -> tuple[Trainer, list[Metrics]]:
        trainer = dead_from_the_start(Trainer.begin(config, sample(), STEPS, workers=worker))
        return trainer, list(fit(rows, [trainer], every=8))

    return together(n, work)


def whole(trainers: list[Trainer]) -> dict[str, Tensor]:
    states = [(trainer.shard, trainer.state_dict()) for trainer in trainers]
    n_latents = trainers[0].shard.n_latents
    return joined(states, Shard(0, n_latents, n_latents), trainers[0].common)["weights"]


@each
@pytest.mark.parametrize("n", [2, 4])
def test_steps_of_several_workers_are_those_of_one(activation, n: int) -> None:
    """In float64: what is left of a difference is rounding. In these steps latents die and AuxK chooses among more than k."""
    config, rows = design(activation), batches()
    one, expected = alone(config, rows)
    assert max(m.values["dead"] for m in expected) > 5 / 65 or isinstance(activation, ReLU | JumpReLU | Gated)
    found = over(n, config, rows)
    for name, tensor in whole([trainer for trainer, _ in found]).items():
        torch.testing.assert_close(tensor, one.weights[name], rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.cat([trainer.since_fired for trainer, _ in found]), one.since_fired)
    for trainer, reports in found:
        torch.testing.assert_close(trainer.threshold, one.threshold)
        assert torch.equal(trainer.weights["b_dec"], found[0][0].weights["b_dec"])
        for mine, theirs in zip(reports, expected, strict=True):
            assert mine.values == pytest.approx(theirs.values, rel=1e-9, abs=1e-12)


@each
def test_in_float32_weights_differ_by_less_than_a_hundred_thousandth(activation) -> None:
    rows = [Rows(batch.x.float(), batch.is_text) for batch in batches()]
    config = design(activation)
    one = Trainer.begin(config, sample().float(), STEPS)
    list(fit(rows, [one]))

    def work(worker: Member) -> Trainer:
        trainer = Trainer.begin(config, sample().float(), STEPS, workers=worker)
        list(fit(rows, [trainer]))
        return trainer

    for name, tensor in whole(together(2, work)).items():
        torch.testing.assert_close(tensor, one.weights[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("more", [{"decoder": "weighted"}, {"adam": Adam(learning_rate=3e-3, clip=0.5)}, {"aux": None}], ids=str)
@pytest.mark.parametrize("activation", [BatchTopK(k=4), Gated(l1=1.0)], ids=lambda a: a.kind)
def test_so_they_are_with_growing_rows_clipped_gradients_and_without_revival(activation, more) -> None:
    config, rows = SaeDesign.model_validate({**dict(design(activation)), **more}), batches()
    one, _ = alone(config, rows)
    for name, tensor in whole([trainer for trainer, _ in over(2, config, rows)]).items():
        torch.testing.assert_close(tensor, one.weights[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize("n_after", [1, 2, 3])
def test_a_run_goes_on_with_another_number_of_workers(n_after: int) -> None:
    config, rows = design(BatchTopK(k=4)), batches()
    one, _ = alone(config, rows)

    def early(worker: Member) -> Trainer:
        trainer = dead_from_the_start(Trainer.begin(config, sample(), STEPS, workers=worker))
        list(fit(rows[:10], [trainer]))
        return trainer

    states = [(trainer.shard, trainer.state_dict()) for trainer in together(2, early)]

    def late(worker: Member) -> Trainer:
        trainer = Trainer.begin(config, torch.zeros_like(sample()), STEPS, workers=worker)
        trainer.load_state_dict(joined([s for s in states if s[0].meets(trainer.shard)], trainer.shard, trainer.common))
        list(fit(rows[10:], [trainer]))
        return trainer

    for name, tensor in whole(together(n_after, late)).items():
        torch.testing.assert_close(tensor, one.weights[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize("activation", [TopK(k=1), BatchTopK(k=1), JumpReLU(target_l0=1.0)], ids=lambda a: a.kind)
def test_a_worker_without_any_active_latent_goes_on(activation) -> None:
    """One row, one latent of one worker; the counts are those of one worker alone."""
    config = SaeDesign(activation=activation, expansion=4, aux=AuxK(dead_after=1, k=3))
    x = Trainer.begin(config, torch.zeros(4, D), 5).weights["decoder"][9:10] * 4
    rows = [Rows(x, torch.zeros(1, dtype=torch.bool))] * 4

    def run(trainer: Trainer) -> Trainer:
        list(fit(rows, [trainer]))
        return trainer

    one = run(Trainer.begin(config, torch.zeros(4, D), 5))
    found = together(4, lambda worker: run(Trainer.begin(config, torch.zeros(4, D), 5, workers=worker)))
    assert torch.equal(torch.cat([trainer.since_fired for trainer in found]), one.since_fired)
    for name, tensor in whole(found).items():
        torch.testing.assert_close(tensor, one.weights[name], rtol=0, atol=1e-5)


def test_pursuit_is_refused() -> None:
    def work(worker: Member) -> None:
        with pytest.raises(ValueError, match="matching_pursuit cannot lie on several workers"):
            Trainer.begin(SaeDesign(activation=MatchingPursuit(k=2)), sample(), STEPS, workers=worker)

    together(2, work)


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("skewed", [False, True])
def test_the_largest_of_all_are_found_wherever_they_lie(k: int, skewed: bool) -> None:
    """Also where one worker has all of them, which takes a second round; beside a plain topk of everything."""
    torch.manual_seed(0)
    values = torch.randn(30, 200)
    if skewed:
        values[::3, 50:100] += 10
    widths = [50, 50, 0, 100]
    expected = torch.zeros_like(values, dtype=torch.bool).scatter(1, values.topk(k).indices, True)

    def work(worker: Member) -> tuple[Tensor, Tensor]:
        mine = values.split(widths, dim=1)[worker.rank]
        own = mine.topk(min(k, mine.shape[1]), sorted=False)
        kept, best = largest_of_all(own.values, k, worker)
        return torch.zeros_like(mine, dtype=torch.bool).scatter(1, own.indices, kept), best

    found = together(4, work)
    assert torch.equal(torch.cat([kept for kept, _ in found], dim=1), expected)
    for _, best in found:
        assert torch.equal(best, values.topk(k).values)


def test_equal_values_are_taken_k_times_and_not_more() -> None:
    def work(worker: Member) -> int:
        kept, _ = largest_of_all(torch.ones(3, 4), 5, worker)
        return int(kept.sum())

    assert sum(together(4, work)) == 3 * 5
    assert offered(64, 8) == 24


def test_fewer_candidates_than_k_are_all_kept() -> None:
    def work(worker: Member) -> bool:
        kept, best = largest_of_all(torch.randn(3, 1), 5, worker)
        return bool(kept.all()) and bool((best == -torch.inf).sum() == 9)

    assert all(together(2, work))


@pytest.mark.parametrize("f", [5, 3000, 4096])
def test_directions_of_a_shard_are_rows_of_the_whole_draw(f: int) -> None:
    """Drawn in blocks, and held to the shard: the same bits as in one draw. 5 x 7 values are no multiple of 16."""
    for d in (7, 16):
        everything = unit_rows(f, d, 3)
        for rank in range(3):
            shard = Shard.of(f, rank, 3)
            assert torch.equal(unit_rows(f, d, 3, shard=shard), everything[shard.first : shard.last])


def in_a_process(rank: int, n: int, folder: str) -> None:
    """One of some processes that train together by gloo, and what it has in the end."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=n)
    workers = Group()
    trainer = dead_from_the_start(Trainer.begin(design(BatchTopK(k=4)), sample(), STEPS, workers=workers))
    list(fit(batches(), [trainer], every=8))
    assert [int(each) for each in workers.gather(torch.tensor([rank]))] == list(range(n))
    assert workers.tell(f"from {rank}", 1) == "from 1"
    torch.save((trainer.state_dict(), workers.moved), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_do_what_threads_do_and_count_the_same_bytes(tmp_path: Path) -> None:
    """Two gloo processes. A sum of two has one order, so the bits are the same."""
    spawn(in_a_process, (2, str(tmp_path)), nprocs=2)

    def work(worker: Member) -> tuple[Trainer, float]:
        trainer = dead_from_the_start(Trainer.begin(design(BatchTopK(k=4)), sample(), STEPS, workers=worker))
        list(fit(batches(), [trainer], every=8))
        worker.gather(torch.tensor([worker.rank]))
        return trainer, worker.moved

    for trainer, moved in together(2, work):
        state, their_bytes = torch.load(tmp_path / f"{trainer.shard.first // 32}.pt", weights_only=True)
        assert their_bytes == moved > 0
        for name, tensor in trainer.weights.items():
            torch.testing.assert_close(state["weights"][name], tensor, rtol=0, atol=1e-12)
