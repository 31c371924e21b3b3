"""The pass of ReLU, JumpReLU and Gated equals the slow reference, in value and in gradient, and reports the loss that it has."""

import pytest
import torch

from linrep.sae.architecture import Step
from linrep.sae.architectures import architecture_of
from linrep.sae.auxk import Revival
from linrep.sae.config import Activation, Adam, AuxK, Gated, JumpReLU, ReLU, SaeDesign
from linrep.sae.passes import Pass, Weights
from linrep.sae.train import Rows, Trainer, fit
from linrep.workers import Alone
from tests.sae.reference import devices, penalised_loss, planted, random_weights, threshold_gradient

N, D, F = 37, 12, 101
ACTIVATIONS: list[Activation] = [ReLU(l1=0.7), JumpReLU(target_l0=9.0, weight=0.8, bandwidth=0.6), Gated(l1=0.7)]
each = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.kind)


def weights_of(activation: Activation, unit: bool = False) -> Weights:
    """Random ones, off any tie; all in float64."""
    weights = random_weights(F, D)
    draw = torch.Generator().manual_seed(5)
    if unit:
        weights["decoder"] /= weights["decoder"].norm(dim=1, keepdim=True)
    if isinstance(activation, JumpReLU):
        weights["threshold"] = torch.rand(F, generator=draw, dtype=torch.float64) + 0.1
    if isinstance(activation, Gated):
        weights |= {name: 0.5 * torch.randn(F, generator=draw, dtype=torch.float64) for name in ("r_mag", "b_mag")}
    return weights


def batch() -> torch.Tensor:
    return planted(N, D, 24, 4)[0].double()


def run(
    weights: Weights, x: torch.Tensor, activation: Activation, warmth: float = 1.0, dead: list[int] | None = None,
    product: torch.dtype | None = None,
) -> Pass:  # fmt: skip
    """The pass under test, in pieces of a few rows."""
    revival = None if dead is None else Revival(torch.tensor(dead, device=x.device), k=4, weight=1 / 32)
    return architecture_of(activation).pass_over(
        weights, x, Step(x.new_empty(40, F, dtype=product), Alone(), None, revival, warmth)
    )


@each
@pytest.mark.parametrize("unit", [False, True], ids=["weighted", "unit"])
@pytest.mark.parametrize("dead", [None, [3], [2, 7, 50, 51, 77, 100]], ids=["all alive", "one dead", "six dead"])
@pytest.mark.parametrize("warmth", [1.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@devices
def test_value_and_gradient_equal_the_slow_reference(activation, unit, dead, warmth, dtype, device) -> None:
    x, weights = batch(), weights_of(activation, unit)
    leaves = {name: tensor.clone().requires_grad_(name != "threshold") for name, tensor in weights.items()}
    lost = None if dead is None else torch.tensor(dead)
    loss, penalty, auxiliary, z = penalised_loss(leaves, x, activation, warmth, lost)
    loss.backward()
    expected = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    if isinstance(activation, JumpReLU):
        expected["threshold"] = threshold_gradient(weights, x, activation, warmth)

    moved = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
    done = run(moved, x.to(device, dtype), activation, warmth, dead)
    near = 1e-5 if dtype == torch.float32 else 1e-10

    def equal(mine: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
        torch.testing.assert_close(mine.cpu(), theirs.detach().to(dtype), rtol=near, atol=near, msg=lambda why: f"{what}: {why}")

    equal(done.residual, z @ weights["decoder"] + weights["b_dec"] - x, "residual")
    equal(done.penalty, penalty, "penalty")
    equal(done.auxiliary, auxiliary, "auxiliary")
    assert done.n_active.cpu().equal((z > 0).sum(1))
    assert done.fired.cpu().equal((z > 0).any(0))
    grads = done.gradients.whole()
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        equal(grad, expected[name], name)


@pytest.mark.parametrize("target", [5.0, 9.0, 60.0])
def test_jumprelu_reports_the_loss_that_it_has(target: float) -> None:
    """weight d (L0 / target - 1)^2, by hand from the number of active latents: never negative, on both sides of the target."""
    activation = JumpReLU(target_l0=target, weight=0.5)
    x, weights = batch(), weights_of(activation)
    done = run(weights, x, activation, warmth=0.25)
    l0 = int(done.n_active.sum()) / N
    assert float(done.penalty) == pytest.approx(0.25 * 0.5 * D * (l0 / target - 1) ** 2, rel=1e-9)


@each
@devices
def test_products_in_bfloat16_leave_the_rest_in_float32(activation, device: str) -> None:
    """Gradients agree with those of float32 to what eight bits give, and keep its format, thresholds' too."""
    x = batch().float().to(device)
    weights = {name: tensor.float().to(device) for name, tensor in weights_of(activation).items()}
    whole, reduced = (run(weights, x, activation, product=kind) for kind in (torch.float32, torch.bfloat16))
    assert not torch.equal(whole.residual, reduced.residual)
    grads = reduced.gradients.whole()
    for name, grad in whole.gradients.whole().items():
        assert grads[name].dtype == torch.float32
        assert float((grads[name] - grad).norm() / grad.norm()) < (0.15 if name == "threshold" else 0.03), name
    assert float(reduced.penalty) == pytest.approx(float(whole.penalty), rel=0.02)


@each
def test_the_penalty_rises_over_the_first_share_of_the_run(activation) -> None:
    """Nothing is learnt at this rate, so the reported penalty is its share that counts: (0, 1, 2, ...) fifths of the whole."""
    x = batch().float()
    config = SaeDesign(
        activation=activation, expansion=4, sparsity_warmup=0.5, adam=Adam(learning_rate=1e-12), aux=AuxK(dead_after=10**6)
    )
    trainer = Trainer.begin(config, x, 10)
    rows = Rows(x, torch.zeros(N, dtype=torch.bool))
    penalties = [metrics.values["penalty"] for metrics in fit([rows] * 10, [trainer], every=1)]
    assert penalties[-1] > 0
    shares = [penalty / penalties[-1] for penalty in penalties]
    assert shares == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1], rel=1e-5)
