"""Training: exact resume, several at once, revival, thresholds that move, planted features found."""

import copy
from collections.abc import Iterator

import pytest
import torch

from linrep.errors import TrainingFailed
from linrep.sae.architectures import Above
from linrep.sae.config import Adam, AuxK, BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, SaeDesign, TopK
from linrep.sae.train import Rows, Trainer, fit
from tests.sae.reference import devices, planted

D, BATCH = 16, 64
ALL = [ReLU(l1=1.0), TopK(k=4), BatchTopK(k=4), Matryoshka(k=4, prefixes=(0.25, 1.0)), JumpReLU(target_l0=4.0), Gated(l1=1.0)]
each = pytest.mark.parametrize("activation", ALL, ids=lambda a: a.kind)


def batches(steps: int, seed: int = 0, n_features: int = 24) -> list[Rows]:
    x, _ = planted(steps * BATCH, D, n_features, 3, seed)
    text = torch.arange(len(x)) % 3 == 0
    return [Rows(x[i : i + BATCH], text[i : i + BATCH]) for i in range(0, len(x), BATCH)]


def config(activation, **more) -> SaeDesign:
    return SaeDesign(activation=activation, expansion=4, aux=AuxK(dead_after=3 * BATCH), adam=Adam(learning_rate=3e-3), **more)


QUICK = Adam(learning_rate=1e-2)


def quick(activation, **more) -> SaeDesign:
    return SaeDesign(activation=activation, expansion=4, adam=QUICK, **more)


def weights_equal(one: Trainer, other: Trainer) -> bool:
    return all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())


@each
@pytest.mark.parametrize("decoder", ["unit", "weighted"])
def test_resumed_run_equals_the_uninterrupted_one(activation, decoder: str, tmp_path) -> None:
    data, sample = batches(20), batches(2, seed=1)[0].x
    whole = Trainer.begin(config(activation, decoder=decoder), sample, 20)
    reports = list(fit(data, [whole], every=7))
    first = Trainer.begin(config(activation, decoder=decoder), sample, 20)
    early = list(fit(data[:10], [first], every=7))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = Trainer.begin(config(activation, decoder=decoder), torch.zeros_like(sample), 20)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    late = list(fit(data[10:], [second], every=7))
    assert weights_equal(whole, second)
    assert torch.equal(whole.since_fired, second.since_fired)
    assert torch.equal(whole.threshold, second.threshold)
    assert early + late == reports
    assert [m.step for m in reports] == [7, 14, 20]


def test_the_schedule_spans_the_whole_run_after_a_resume() -> None:
    data, sample = batches(10), batches(1, seed=1)[0].x
    adam = Adam(learning_rate=1.0, warmup=0.2, decay=0.5)
    rates = [m.values["learning_rate"] for m in fit(data, [Trainer.begin(SaeDesign(adam=adam), sample, 10)], every=1)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    half = Trainer.begin(SaeDesign(adam=adam), sample, 10)
    list(fit(data[:6], [half]))
    rest = Trainer.begin(SaeDesign(adam=adam), sample, 10)
    rest.load_state_dict(copy.deepcopy(half.state_dict()))
    assert [m.values["learning_rate"] for m in fit(data[6:], [rest], every=1)] == pytest.approx(rates[6:])


def test_a_checkpoint_of_another_run_is_refused() -> None:
    sample = batches(1)[0].x
    state = Trainer.begin(config(TopK(k=4)), sample, 10).state_dict()
    for other in (Trainer.begin(config(TopK(k=5)), sample, 10), Trainer.begin(config(TopK(k=4)), sample, 11)):
        with pytest.raises(ValueError, match="another run"):
            other.load_state_dict(state)


def test_several_at_once_equal_each_alone() -> None:
    data, sample = batches(12), batches(2, seed=1)[0].x
    grid = [
        config(TopK(k=3)), config(TopK(k=6)), config(TopK(k=3), seed=1), config(BatchTopK(k=3)), config(JumpReLU(target_l0=4.0)),
        SaeDesign(activation=TopK(k=3), expansion=2, adam=Adam(learning_rate=1e-2)),
    ]  # fmt: skip
    lengths = [12, 12, 12, 8, 12, 5]

    def begin() -> list[Trainer]:
        return [Trainer.begin(c, sample, steps) for c, steps in zip(grid, lengths, strict=True)]

    together, alone = begin(), begin()
    reports = list(fit(data, together, every=5))
    for i, (one, other) in enumerate(zip(together, alone, strict=True)):
        mine = list(fit(data, [other], every=5))
        assert weights_equal(one, other)
        assert [(m.step, m.values) for m in reports if m.trainer == i] == [(m.step, m.values) for m in mine]


def test_clipping_bounds_the_gradient_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data, sample = batches(6), batches(2, seed=1)[0].x
    unclipped, loose = (
        Trainer.begin(SaeDesign(activation=TopK(k=4), expansion=4, adam=Adam(clip=clip)), sample, 6) for clip in (None, 1e9)
    )
    list(fit(data, [unclipped, loose]))
    for name, tensor in unclipped.weights.items():
        torch.testing.assert_close(loose.weights[name], tensor, rtol=1e-3, atol=1e-5)
    monkeypatch.setattr("linrep.sae.adam.BLOCK_BYTES", 5 * D * 4)
    blocks = Trainer.begin(SaeDesign(activation=TopK(k=4), expansion=4), sample, 6)
    list(fit(data, [blocks]))
    assert weights_equal(unclipped, blocks)
    grads = {"a": torch.full((4,), 3.0), "b": torch.full((4,), 4.0)}
    tight = Trainer.begin(SaeDesign(activation=TopK(k=4), adam=Adam(clip=5.0)), sample, 6)
    tight._clip(grads, 5.0)
    assert torch.cat(list(grads.values())).norm().item() == pytest.approx(5.0)


@devices
def test_adam_takes_the_steps_of_pytorchs(device: str) -> None:
    from linrep.sae.adam import Moments

    torch.manual_seed(0)
    mine = {"w": torch.randn(7, 5).to(device)}
    theirs = torch.nn.Parameter(mine["w"].clone())
    optimiser, moments = torch.optim.Adam([theirs], lr=0.1), Moments(mine)
    for step in range(4):
        grad = torch.randn(7, 5).to(device)
        theirs.grad = grad.clone()
        optimiser.step()
        moments.update(mine, {"w": grad[:3]}, step, 0.1, slice(0, 3))
        moments.update(mine, {"w": grad[3:]}, step, 0.1, slice(3, 7))
    torch.testing.assert_close(mine["w"], theirs.detach())


@each
def test_training_lowers_the_loss_and_keeps_decoder_rows_at_norm_one(activation) -> None:
    data, sample = batches(60), batches(4, seed=1)[0].x
    trainer = Trainer.begin(quick(activation), sample, 60)
    reports = [m.values for m in fit(data, [trainer], every=10)]
    assert reports[-1]["fvu/image"] < 0.7 * reports[0]["fvu/image"]
    norms = trainer.weights["decoder"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_thresholds_of_jumprelu_stay_float32_and_visibly_move() -> None:
    """Learned in log space under Adam they would crawl; here a short run comes near its target."""
    data, sample = batches(120), batches(4, seed=1)[0].x
    trainer = Trainer.begin(quick(JumpReLU(target_l0=6.0)), sample, 120)
    before = trainer.weights["threshold"].clone()
    reports = list(fit(data, [trainer], every=10))
    assert trainer.weights["threshold"].dtype == torch.float32
    assert float((trainer.weights["threshold"] - before).abs().mean()) > 0.05
    assert (trainer.weights["threshold"] >= 0).all()
    assert reports[0].values["l0/image"] > 12
    assert reports[-1].values["l0/image"] == pytest.approx(6.0, rel=0.35)


def test_auxk_revives_dead_latents() -> None:
    """Latents pushed far below zero come back with AuxK. Without it, the control, they stay dead."""
    data, sample = batches(100), batches(4, seed=1)[0].x
    dead = {}
    for name, aux in (("with", AuxK(weight=1.0, dead_after=5 * BATCH)), ("without", None)):
        trainer = Trainer.begin(SaeDesign(activation=TopK(k=3), expansion=4, aux=aux, adam=QUICK), sample, 100)
        trainer.weights["b_enc"][:32] = -2.0
        list(fit(data, [trainer], every=100))
        dead[name] = int((trainer.since_fired[:32] > 10 * BATCH).sum())
    assert dead["with"] < 0.5 * dead["without"]
    assert dead["without"] > 16


def test_a_trained_sae_contains_the_planted_directions() -> None:
    """The features behind the data are found (cosine above 0.9 for nine in ten); random directions, the control, are not."""
    x, directions = planted(200 * 256, D, 24, 2)
    rows = [Rows(x[i : i + 256], torch.zeros(256, dtype=torch.bool)) for i in range(0, len(x), 256)]
    trainer = Trainer.begin(SaeDesign(activation=TopK(k=2), expansion=3, adam=QUICK), x[:1024], 200)
    start = (directions @ trainer.weights["decoder"].T).amax(1)
    list(fit(rows, [trainer]))
    best = (directions @ trainer.weights["decoder"].T).amax(1)
    assert (best > 0.9).float().mean() >= 0.9
    assert (start > 0.9).float().mean() < 0.1


def test_batch_top_k_keeps_its_threshold_for_use() -> None:
    """Outside training the threshold chooses about as many latents as training did."""
    data, sample = batches(80), batches(4, seed=1)[0].x
    for decoder in ("unit", "weighted"):
        trainer = Trainer.begin(quick(BatchTopK(k=4), decoder=decoder), sample, 80)
        list(fit(data, [trainer]))
        sae = trainer.sae()
        assert isinstance(sae.rule, Above)
        assert float((sae.encode(data[-1].x) > 0).sum(1).float().mean()) == pytest.approx(4.0, rel=0.25)


@each
@pytest.mark.parametrize("decoder", ["unit", "weighted"])
def test_the_coder_of_a_trainer_reconstructs_as_training_did(activation, decoder: str) -> None:
    if isinstance(activation, BatchTopK | Matryoshka):
        pytest.skip("chooses over a batch in training and by its threshold afterwards")
    data, sample = batches(30), batches(4, seed=1)[0].x
    trainer = Trainer.begin(config(activation, decoder=decoder), sample, 31)
    list(fit(data, [trainer]))
    sae, x = trainer.sae(), data[-1].x
    residual = trainer._pass(x).residual
    torch.testing.assert_close(sae(x) - x, residual, rtol=1e-4, atol=1e-4)
    norms = sae.decoder.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_a_loss_that_is_not_finite_stops_with_one_line() -> None:
    data, sample = batches(2), batches(4, seed=1)[0].x
    trainer = Trainer.begin(config(TopK(k=4)), sample, 10)
    bad = Rows(data[0].x.clone().index_fill_(0, torch.tensor([1]), float("inf")), data[0].is_text)
    with pytest.raises(TrainingFailed, match=r"the loss of topk is (nan|inf) at step 1"):
        list(fit([bad], [trainer], every=1))


def test_rows_of_another_width_are_refused() -> None:
    trainer = Trainer.begin(config(TopK(k=4)), batches(1)[0].x, 10)
    with pytest.raises(ValueError, match="rows of width 16, got 8 of width 17"):
        trainer.take(Rows(torch.zeros(8, 17), torch.zeros(8, dtype=torch.bool)))


def test_fit_reads_no_further_than_it_trains() -> None:
    taken = []

    def endless() -> Iterator[Rows]:
        while True:
            taken.append(1)
            yield batches(1)[0]

    trainer = Trainer.begin(config(TopK(k=4)), batches(1)[0].x, 3)
    list(fit(endless(), [trainer]))
    assert len(taken) == 3
    list(fit(endless(), [trainer]))
    assert len(taken) == 3
