"""What a step needs of other workers' latents: the largest of all candidates, and sums that gradients pass through.

Every worker has the whole batch and some of the latents. It finds candidates among its own, learns which of them are among the
largest of all, and writes with those alone; the reconstruction is the sum of what all wrote. No gradient of a matrix ever moves.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from linrep.workers import Workers

SPARE = 8
"""Values that a worker offers beyond twice its fair share of k, so that small k rarely take a second round."""


def offered(k: int, n_workers: int) -> int:
    """Values of a row that each worker offers at first: twice its fair share of k and a few more, but never more than k."""
    return min(k, 2 * math.ceil(k / n_workers) + SPARE)


def largest_of_all(values: Float[Tensor, "n c"], k: int, workers: Workers) -> tuple[Bool[Tensor, "n c"], Float[Tensor, "n k"]]:
    """Which of this worker's candidates are among the k largest of all workers' in their row, and these k values, falling.

    Each worker offers its largest few. Where one's least offer is above the k-th largest of all offers, it may have more to
    offer: such rows, which all workers find alike, are asked again for k values of each. So the result is exact, and of equal
    values all workers take the same.

    Args:
        values: Candidates, k of each row where the worker has as many; they may differ in number between workers.
        k: Of all workers.
        workers: The others.

    Returns:
        The candidates to keep, and the k values; -inf stands where all workers together have fewer than k.
    """
    mine, order = values.sort(dim=1, descending=True)
    n, m = len(values), offered(k, workers.n_workers)
    offers = workers.gather(_first(mine, m))
    kept, best = _kept(offers, k, workers.rank)
    least = torch.stack([offer[:, -1] for offer in offers], dim=1).amax(1)
    again = (least > best[:, -1]).nonzero().flatten() if m < k else order.new_zeros(0)
    chosen = torch.zeros(n, max(k, values.shape[1]), dtype=torch.bool, device=values.device)
    chosen[:, :m] = kept
    if len(again):
        kept, best[again] = _kept(workers.gather(_first(mine[again], k)), k, workers.rank)
        chosen[again, :k] = kept
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, order, chosen[:, : values.shape[1]]), best


def _first(falling: Float[Tensor, "n c"], m: int) -> Float[Tensor, "n m"]:
    """The first columns, filled up with -inf."""
    return torch.nn.functional.pad(falling[:, :m], (0, max(0, m - falling.shape[1])), value=-math.inf)


def _kept(offers: "list[Float[Tensor, 'n m']]", k: int, rank: int) -> tuple[Bool[Tensor, "n m"], Float[Tensor, "n k"]]:
    """Which offers of a worker are among the k largest of all, and the values of these."""
    m = offers[0].shape[1]
    found = torch.cat(offers, dim=1).topk(k, dim=1)
    kept = torch.zeros(len(found.values), len(offers) * m, dtype=torch.bool, device=found.values.device)
    return kept.scatter_(1, found.indices, True)[:, rank * m : (rank + 1) * m], found.values


def rebuilt(
    z: Float[Tensor, "n f"], decoder: Float[Tensor, "f d"], b_dec: Float[Tensor, " d"], workers: Workers
) -> Float[Tensor, "n d"]:
    """b_dec + z D over the latents of all workers; differentiable, each worker by its own latents."""
    if workers.n_workers == 1:
        return torch.addmm(b_dec, z, decoder)
    return b_dec + _Sum.apply((z @ decoder).to(b_dec.dtype), workers)


def seen_by_all(shared: Float[Tensor, " d"], workers: Workers) -> Float[Tensor, " d"]:
    """A weight that every worker's encoder sees: its gradient is the sum of what each makes of it."""
    return shared if workers.n_workers == 1 else _Seen.apply(shared, workers)


class _Sum(torch.autograd.Function):
    """The sum over workers. All of them go on with the whole sum to one loss, so its gradient is each part's."""

    @staticmethod
    def forward(ctx, part, workers):  # pyright: ignore[reportIncompatibleMethodOverride]
        total = part.clone()
        workers.sum_([total])
        return total

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad, None


class _Seen(torch.autograd.Function):
    """What each worker makes of a weight that all have: the gradients of all add up."""

    @staticmethod
    def forward(ctx, shared, workers):  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.workers = workers
        return shared.view_as(shared)

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        total = grad.clone()
        ctx.workers.sum_([total])
        return total, None
