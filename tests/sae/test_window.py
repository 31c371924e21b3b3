"""The metrics of a window: unexplained variance about the mean, defined for inputs that have none."""

import pytest
import torch

from linrep.sae.passes import Gradients, Pass
from linrep.sae.window import Window, fraction
from linrep.workers import Alone


def fvu_of(x: torch.Tensor, residual: torch.Tensor) -> float:
    """The FVU of image rows, taken in two steps."""
    window = Window.empty(x[0])
    for rows, off in zip(x.chunk(2), residual.chunk(2), strict=True):
        nothing = Gradients({}, lambda _a, _b: {}, 0)
        done = Pass(off, torch.zeros(len(rows), dtype=torch.int64), torch.zeros(1, dtype=torch.bool), nothing)
        window.add(rows, torch.zeros(len(rows), dtype=torch.bool), done)
    return window.close(Alone())["fvu/image"]


@pytest.mark.parametrize("value", [1.3, 3.0, 0.1, 1e-3, 12345.678])
def test_a_constant_input_has_no_variance_whatever_its_rounding(value: float) -> None:
    """Infinite where it is reconstructed wrongly, 0 where it is reconstructed."""
    x = torch.full((2001, 24), value)
    assert fvu_of(x, torch.ones_like(x)) == float("inf")
    assert fvu_of(x, torch.zeros_like(x)) == 0.0
    assert fvu_of(x, x * 1e-7) == 0.0  # as exact as float32 is


def test_unexplained_variance_is_about_the_mean() -> None:
    """Rows at 5 +- 0.01 in every coordinate, off by 0.01: as much error as there is variance, though both are tiny beside 5."""
    x = 5 + 0.01 * torch.tensor([1.0, -1.0]).repeat(500)[:, None].expand(1000, 16)
    exact = (x.double() - x.double().mean(0)).square().sum() / x.numel()
    assert fvu_of(x, torch.full_like(x, 0.01)) == pytest.approx(1e-4 / float(exact), rel=1e-6)
    assert fraction(1.0, 4.0, 100.0) == 0.25
