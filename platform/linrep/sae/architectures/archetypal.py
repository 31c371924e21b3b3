"""Archetypal: TopK whose decoder rows point along convex combinations of data, give or take a little.

A row's direction is that of M = W C + L: C are points of the data, which stay; W mixes them with weights that are not negative
and sum to 1; L is no longer than a share of the points' mean norm. An SAE that is tied to the data has fewer places to be:
trained twice it comes out more alike. Where 0 lies among the points (more than two points a dimension about their own center),
every direction is a mixture; the points are therefore rows as they are, as in the paper.

Source: Fel et al., "Archetypal SAE: adaptive and stable dictionary learning for concept extraction in large vision models", 2025
(RA-SAE). Here M is taken to norm 1, as every decoder row in this library, so that their one multiplier has nothing to do; the
points are rows of the sample instead of k-means centroids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.architecture import Reader, Step, assembled
from linrep.sae.architectures.topk import Largest
from linrep.sae.config import Archetypal
from linrep.sae.passes import Gradients, Pass, Weights
from linrep.sae.sae import Sae
from linrep.sae.select import top_k
from linrep.sae.sparse import sparse_pass

SHARPNESS = 4.0
"""How much more a row's first mixture holds of a point that lies one standard deviation further along its random direction."""


@dataclass(frozen=True)
class ArchetypalTraining:
    """How it is trained and saved."""

    numbers: Archetypal
    derived: ClassVar[tuple[str, ...]] = ("points", "decoder", "lengths")
    common: ClassVar[tuple[str, ...] | None] = ("b_dec", "points")
    dictionary_learning: ClassVar[Mapping[str, Reader]] = {}

    def first(self, weights: Weights, sample: Float[Tensor, "n d"], n_latents: int) -> Weights:
        """Each row a mixture of the points that lie along its random direction; the encoder is the decoder's copy."""
        # As many whatever the sample: a run that goes on from a checkpoint begins with a row of zeros.
        points = sample[torch.arange(self.numbers.points, device=sample.device) % len(sample)]
        lengths = points.norm(dim=1, keepdim=True).clamp_min(torch.finfo(points.dtype).tiny)
        along = weights["decoder"] @ (points / lengths).t() * points.shape[1] ** 0.5
        mixture, departure = (SHARPNESS * along).softmax(1), torch.zeros_like(weights["decoder"])
        more = {"points": points, "mixture": mixture, "departure": departure, "lengths": torch.zeros_like(weights["b_enc"])}
        weights = weights | more
        self.settle(weights)
        return weights | {"encoder": weights["decoder"].clone()}

    def pass_over(self, weights: Weights, x: Float[Tensor, "n d"], step: Step) -> Pass:
        """TopK's, with the decoder's gradient taken on to what its rows are made of."""
        done = sparse_pass(weights, x, lambda encoder, seen: (top_k(encoder, seen, self.numbers.k, step.workers), None), step)

        def matrices(first: int, last: int) -> Weights:
            found = done.gradients.matrices(first, last)
            pull, rows = found["decoder"], weights["decoder"][first:last]
            # M / |M| does not feel what is along M.
            pull = (pull - torch.linalg.vecdot(pull, rows)[:, None] * rows) / weights["lengths"][first:last, None]
            return {"encoder": found["encoder"], "mixture": pull @ weights["points"].t(), "departure": pull}

        return replace(done, gradients=Gradients(done.gradients.vectors, matrices, done.gradients.n_latents))

    def settle(self, weights: Weights) -> None:
        """Mixtures are shares, departures are short, and decoder rows are what both make."""
        mixture, departure, points = weights["mixture"], weights["departure"], weights["points"]
        tiny = torch.finfo(points.dtype).tiny ** 0.5
        mixture.relu_()
        mixture.div_(mixture.sum(1, keepdim=True).clamp_min_(tiny))
        most = self.numbers.relaxation * points.norm(dim=1).mean()
        departure.mul_((most / departure.norm(dim=1, keepdim=True).clamp_min_(tiny)).clamp_max_(1.0))
        mixed = torch.addmm(departure, mixture, points)
        weights["lengths"].copy_(mixed.norm(dim=1).clamp_min_(tiny))
        weights["decoder"].copy_(mixed / weights["lengths"][:, None])

    def sae(self, weights: Weights, threshold: Float[Tensor, ""], unit: bool) -> Sae:
        """A TopK SAE: what its rows are made of has done its work."""
        return assembled(weights, Largest(self.numbers.k), centred=True, unit=unit)
