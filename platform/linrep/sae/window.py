"""Sums over the steps between two reports, for each modality, merged over workers before anything is divided."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from linrep.sae.passes import Pass
from linrep.workers import Workers

NAMES = ("image", "text")


@dataclass
class Window:
    """Sums for image rows and text rows, in float64.

    Attributes:
        counts: For each modality: rows, summed squared error, summed squared norm of the inputs, active latents of this worker.
        totals: For each modality: the sum of the inputs.
        losses: Steps, and sums over them of squared error, penalty and auxiliary loss, each a mean over rows.
    """

    counts: Float[Tensor, "2 4"]
    totals: Float[Tensor, "2 d"]
    losses: Float[Tensor, " 4"]

    @classmethod
    def empty(cls, like: Float[Tensor, " d"]) -> "Window":
        """No steps yet."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=like.device)

        return cls(zeros(2, 4), zeros(2, len(like)), zeros(4))

    @torch.no_grad()
    def add(self, x: Float[Tensor, "n d"], is_text: Bool[Tensor, " n"], done: Pass) -> None:
        """Count a step."""
        member = torch.stack([~is_text, is_text]).double()
        wide = x.double()  # the spread is a difference: squares rounded in float32 would leave it 1e-7 of the norms
        errors = torch.linalg.vecdot(done.residual, done.residual).double()
        rows = torch.stack([torch.ones_like(errors), errors, torch.linalg.vecdot(wide, wide), done.n_active.double()], dim=1)
        self.counts += member @ rows
        self.totals += member @ wide
        self.losses += torch.stack([errors.new_ones(()), errors.mean(), done.penalty.double(), done.auxiliary.double()])

    def close(self, workers: Workers) -> dict[str, float]:
        """The metrics over all workers; the window is empty afterwards.

        FVU is about the mean of the window's own rows; a modality without rows has no metrics, and one whose rows are all alike
        has an FVU of 0 where it is reconstructed and infinity where it is not.
        """
        active = self.counts[:, 3].clone()
        workers.sum_([active])  # all workers have all rows, and the latents of one are active beside those of another
        self.counts[:, 3] = active
        steps, squares, penalty, auxiliary = self.losses.tolist()
        mean = [value / max(steps, 1) for value in (squares, penalty, auxiliary)]
        values = {"loss": sum(mean), "error": mean[0], "penalty": mean[1], "auxiliary": mean[2]}
        for i, name in enumerate(NAMES):
            n, error, norms, active = self.counts[i].tolist()
            if n:
                spread = norms - float(self.totals[i] @ self.totals[i]) / n
                values |= {f"fvu/{name}": fraction(error, spread, norms), f"l0/{name}": active / n, f"rows/{name}": n}
        for tensor in (self.counts, self.totals, self.losses):
            tensor.zero_()
        return values

    def state_dict(self) -> dict[str, Any]:
        """The sums."""
        return {"counts": self.counts, "totals": self.totals, "losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with saved sums."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


def fraction(error: float, spread: float, norms: float) -> float:
    """Unexplained variance as a share, defined for inputs without variance.

    Args:
        error: Sum of squared errors.
        spread: Sum of squared distances of the inputs from their mean, from squares summed in float64.
        norms: Sum of squared norms of the inputs: what is below its rounding error counts as no variance.
    """
    if spread > 1e-12 * norms:
        return error / spread
    return 0.0 if error <= 1e-12 * norms else float("inf")
