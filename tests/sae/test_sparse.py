"""The fast pass equals the slow dense one, in value and in gradient, for every architecture it serves."""

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from linrep.sae import ops
from linrep.sae.architecture import Step
from linrep.sae.architectures import architecture_of
from linrep.sae.auxk import Revival
from linrep.sae.config import BatchTopK, Matryoshka, TopK
from linrep.sae.select import Codes, Encoder, batch_top_k, largest, scratch, top_k
from linrep.workers import Alone
from tests.sae.reference import chosen_mask, dense_loss, devices, planted, random_weights

N, D, F = 37, 12, 101
ACTIVATIONS = [TopK(k=5), BatchTopK(k=5), Matryoshka(k=5, prefixes=(0.25, 0.5, 1.0))]
ids = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.kind)


def batch(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return planted(N, D, 24, 4)[0].to(dtype)


@ids
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dead", [None, [3], [2, 7, 50, 51, 77, 100]], ids=["all alive", "one dead", "six dead"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@devices
def test_value_and_gradient_equal_the_dense_reference(activation, weighted, dead, dtype, device) -> None:
    x, weights = batch(), random_weights(F, D)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    loss, z, full = dense_loss(leaves, x, activation, weighted, None if dead is None else torch.tensor(dead))
    loss.backward()

    mine = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
    revival = None if dead is None else Revival(torch.tensor(dead, device=device), k=4, weight=1 / 32)
    norms = mine["decoder"].norm(dim=1) if weighted else None
    done = architecture_of(activation).pass_over(
        mine, x.to(device, dtype), Step(scratch(N, F, 10 * F * 8, mine["b_enc"]), Alone(), norms, revival)
    )
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(done.residual.cpu(), (full - x).detach().to(dtype), **tolerance)
    for name, grad in done.gradients.whole().items():
        torch.testing.assert_close(grad.cpu(), leaves[name].grad.to(dtype), **tolerance)
    along = (leaves["decoder"].grad * weights["decoder"]).sum(1)
    torch.testing.assert_close(done.gradients.along.cpu(), along.to(dtype), **tolerance)
    assert (done.n_active.cpu() == (z > 0).sum(1)).all()
    assert (done.fired.cpu() == (z > 0).any(0)).all()
    if dead is not None and dtype == torch.float64 and not isinstance(activation, Matryoshka):
        assert float(done.auxiliary + done.residual.square().sum(1).mean()) == pytest.approx(loss.item(), rel=1e-10)


@pytest.mark.parametrize("n_dead", [0, 50], ids=["all alive", "half dead"])
def test_dense_work_is_one_product_for_the_living_and_one_for_the_dead(n_dead: int) -> None:
    """Everything else touches the chosen entries only (but for b_dec's pull, one row's worth): gradients would be four more."""
    x, weights = batch(), random_weights(F, D)
    revival = Revival(torch.arange(n_dead), k=6, weight=1 / 32) if n_dead else None
    with FlopCounterMode(display=False) as counter:
        architecture_of(TopK(k=5)).pass_over(
            weights, x, Step(scratch(N, F, 1 << 20, x), Alone(), None, revival)
        ).gradients.whole()
    assert counter.get_total_flops() == 2 * N * D * (F + n_dead) + 2 * D * F


def test_a_step_of_topk_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors without contents whatever asks for a number, or for a shape that depends on one, is an error."""
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)  # its product is for CPUs, and asks
    with FakeTensorMode():
        x, weights = torch.empty(N, D), {name: torch.empty_like(tensor) for name, tensor in random_weights(F, D).items()}
        weights = {name: tensor.float() for name, tensor in weights.items()}
        done = architecture_of(TopK(k=5)).pass_over(weights, x, Step(scratch(N, F, 1 << 20, x), Alone()))
        assert done.gradients.whole()["decoder"].shape == (F, D)


@ids
def test_gradients_by_blocks_equal_the_whole(activation) -> None:
    x, weights = batch(), random_weights(F, D)
    revival = Revival(torch.tensor([0, 40, 41, 100]), k=2, weight=0.1)
    gradients = (
        architecture_of(activation).pass_over(weights, x, Step(scratch(N, F, 1 << 20, x), Alone(), None, revival)).gradients
    )
    whole = gradients.whole()
    edges = [0, 1, 40, 41, 90, F]
    for name in ("encoder", "decoder"):
        blocks = [gradients.matrices(a, b)[name] for a, b in itertools.pairwise(edges)]
        assert torch.equal(torch.cat(blocks), whole[name])


@pytest.mark.parametrize("rows_at_once", [1, 10, 37])
@pytest.mark.parametrize("k", [1, 5, F, 4 * F])
def test_choices_do_not_depend_on_how_many_rows_fit(rows_at_once: int, k: int) -> None:
    x, weights = batch(), random_weights(F, D)
    room = torch.empty(rows_at_once, F, dtype=x.dtype)
    encoder = Encoder(weights["encoder"], weights["b_enc"], None, room)
    pre = x @ weights["encoder"].T + weights["b_enc"]
    dense = top_k(encoder, x, k).dense()
    torch.testing.assert_close(dense, pre * chosen_mask(pre, TopK(k=k)), rtol=1e-12, atol=1e-12)
    codes, least = batch_top_k(encoder, x, k)
    torch.testing.assert_close(codes.dense(), pre * chosen_mask(pre, BatchTopK(k=k)), rtol=1e-12, atol=1e-12)
    assert float(least) == pytest.approx(float(codes.values.min()), rel=1e-12)


def test_batch_top_k_finds_a_batch_whose_latents_are_all_in_one_row() -> None:
    """The row is asked again for more than it first offered: one row holds all n k largest."""
    weights = {"encoder": torch.eye(64), "bias": torch.zeros(64)}
    x = torch.full((8, 64), 0.5) + torch.arange(64) * 1e-4
    x[3] = 10 + torch.arange(64)
    codes, least = batch_top_k(Encoder(weights["encoder"], weights["bias"], None, torch.empty(3, 64)), x, 5)
    assert codes.offsets.diff().tolist() == [0, 0, 0, 40, 0, 0, 0, 0]
    assert sorted(codes.latents.tolist()) == list(range(24, 64))
    assert float(least) == 34.0


@pytest.mark.parametrize(("f", "k"), [(4096, 32), (4099, 32), (1024, 1), (640, 3), (50, 50), (7, 9)])
def test_groups_find_the_same_largest_entries(f: int, k: int) -> None:
    pre = torch.randn(20, f, generator=torch.Generator().manual_seed(f))
    values, at = largest(pre, k)
    assert torch.equal(values.sort(1).values, pre.topk(min(k, f), dim=1).values.sort(1).values)
    assert torch.equal(pre.gather(1, at), values)
    assert all(len(set(row.tolist())) == min(k, f) for row in at)


def test_reduced_precision_chooses_only() -> None:
    """With the product in bfloat16 the values of the chosen latents are still those of float32."""
    x, weights = batch(torch.float32), random_weights(F, D, dtype=torch.float32)
    room = torch.empty(10, F, dtype=torch.bfloat16)
    codes = top_k(Encoder(weights["encoder"], weights["b_enc"], None, room), x, 5)
    pre = (x @ weights["encoder"].T + weights["b_enc"]).relu()
    torch.testing.assert_close(codes.values, pre[codes.rows(), codes.latents], rtol=1e-5, atol=1e-5)


def test_dots_without_mkl_equal_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(6, 5), torch.randn(9, 5)
    counts = torch.tensor([2, 0, 3, 1, 0, 4])
    columns, offsets = torch.randint(9, (10,)), ops.offsets_of(counts)
    expected = (a @ b.T)[ops.bag_of_each(offsets, 10), columns]
    torch.testing.assert_close(ops.sampled_dots(a, b, columns, offsets), expected)
    monkeypatch.setattr(ops, "GATHERED_BYTES", 3 * 5 * 4)
    torch.testing.assert_close(ops.gathered_dots(a, b, columns, ops.bag_of_each(offsets, 10)), expected)


def test_nothing_active_is_a_pass_like_any_other() -> None:
    x, weights = batch(), random_weights(F, D)
    weights["b_enc"] -= 1e3
    for activation in ACTIVATIONS:
        done = architecture_of(activation).pass_over(weights, x, Step(scratch(N, F, 1 << 20, x), Alone()))
        torch.testing.assert_close(done.residual, weights["b_dec"] - x)
        assert not done.fired.any()
        assert all(torch.isfinite(grad).all() for grad in done.gradients.whole().values())


def test_codes_survive_the_way_to_dense_and_back() -> None:
    z = torch.randn(9, 14).relu()
    assert torch.equal(Codes.from_dense(z).dense(), z)
