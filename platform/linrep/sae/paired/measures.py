"""Measures of a design on held-out pairs, on all of them and on pairs drawn anew.

What is called shared on one half of the pairs is reported on the other, and the other way round.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.sae.paired.rows import PairRows
from linrep.sae.paired.shared import called, own_correlations
from linrep.sae.paired.sides import Codes, Sides
from linrep.sae.panel.shared import BIMODAL


@dataclass(frozen=True)
class HeldPairs:
    """Pairs that measures are reported on.

    Attributes:
        rows: Standardised rows.
        label: Class of each pair; -1 where it has none.
        second: Which pairs are the second half.
        weights: How often each pair counts, a row for each draw; the first row counts all once.
    """

    rows: PairRows
    label: Int[Tensor, " n"]
    second: Bool[Tensor, " n"]
    weights: Float[Tensor, "r n"]

    @property
    def halves(self) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " n"]]:
        """Both."""
        return ~self.second, self.second


def unexplained(x: Float[Tensor, "n d"], rebuilt: Float[Tensor, "n d"], weights: Float[Tensor, "r n"]) -> Float[Tensor, " r"]:
    """FVU about the mean of the rows that count."""
    w, x = weights.double(), x.double()
    error = w @ (rebuilt.double() - x).square().sum(1)
    spread = w @ x.square().sum(1) - (w @ x).square().sum(1) / w.sum(1)
    return error / spread


def reconstruction(sides: Sides, held: HeldPairs) -> dict[str, Float[Tensor, " r"]]:
    """FVU of each modality, each row rebuilt from itself alone; `/pair` where the design can rebuild it from both rows."""
    rebuilt = sides.rebuilt(held.rows)
    found = {
        "fvu_image": unexplained(held.rows.image, rebuilt.image, held.weights),
        "fvu_text": unexplained(held.rows.text, rebuilt.text, held.weights),
    }
    if sides.together is not None:
        image, text = sides.together(held.rows.beside).chunk(2, dim=1)
        found["fvu_image/pair"] = unexplained(held.rows.image, image, held.weights)
        found["fvu_text/pair"] = unexplained(held.rows.text, text, held.weights)
    return found


def sharing(codes: Codes, held: HeldPairs) -> dict[str, Float[Tensor, " r"]]:
    """How much is shared.

    `called`: latents called shared on half of the pairs, the mean of both halves. `energy_image`, `energy_text`: share of the
    energy on latents that the other half calls shared. `correlation`: mean correlation of a latent's activations across pairs,
    over latents drawn by their energy in both modalities; nothing is chosen for it. `bimodal`: share of the activation on latents
    whose modality score is between .2 and .8, which knows no pairs.

    Source: Papadimitriou et al., COLM 2025 (modality score).
    """
    energy = [held.weights.double() @ z.double().square() for z in (codes.image, codes.text)]
    shares = [e / e.sum(1, keepdim=True) for e in energy]
    found = {"correlation": (own_correlations(codes, held.weights) * (shares[0] + shares[1]) / 2).sum(1)}
    mass = torch.stack([held.weights.double() @ z.double() for z in (codes.image, codes.text)])
    score = mass[0] / mass.sum(0).clamp_min(torch.finfo(mass.dtype).tiny)
    both = (score > BIMODAL) & (score < 1 - BIMODAL)
    found["bimodal"] = (mass.sum(0) * both).sum(1) / mass.sum(0).sum(1)
    calls = by_half(codes, held)
    found["called"] = torch.stack([c.double().sum() for c in calls]).mean().expand(len(held.weights))
    for name, z in (("energy_image", codes.image), ("energy_text", codes.text)):
        written, total = z.double().square(), z.double().square().sum(1)
        # What one half calls shared counts on the other.
        on_called = torch.where(held.second[:, None], calls[0], calls[1]).double()
        found[name] = (held.weights.double() @ (written * on_called).sum(1)) / (held.weights.double() @ total)
    return found


def by_half(codes: Codes, held: HeldPairs) -> tuple[Bool[Tensor, " f"], Bool[Tensor, " f"]]:
    """What each half of the pairs calls shared."""
    first, second = (called(Codes(codes.image[half], codes.text[half])) for half in held.halves)
    return first, second


def retrieval(codes: Codes, held: HeldPairs) -> dict[str, Float[Tensor, " r"]]:
    """How often another pair's row of the other modality that is nearest by called latents alone is of one's own class.

    Nearest by the cosine of what both fire; of rows that are equally near each counts alike, so that nothing to go by is chance.
    Pairs without a class take no part.
    """
    hits, chance = torch.zeros(len(codes), dtype=torch.float64), torch.zeros(len(codes), dtype=torch.float64)
    for half, calls in zip(held.halves, reversed(by_half(codes, held)), strict=True):
        own = (half & (held.label >= 0)).nonzero()[:, 0]
        label = held.label[own]
        same = (label[:, None] == label).double().fill_diagonal_(0)
        image, text = (torch.nn.functional.normalize(z[own][:, calls].double(), dim=1) for z in (codes.image, codes.text))
        near = image @ text.t()
        hits[own] = (_nearest(near, same) + _nearest(near.t(), same)) / 2
        chance[own] = same.sum(1) / max(len(own) - 1, 1)
    counted = held.weights.double() * (held.label >= 0)
    n = counted.sum(1)
    return {"retrieval": counted @ hits / n, "chance": counted @ chance / n}


def _nearest(near: Float[Tensor, "m m"], same: Float[Tensor, "m m"]) -> Float[Tensor, " m"]:
    """For each row the share of the nearest others that are of its class."""
    others = near.clone().fill_diagonal_(-2)
    best = others >= others.amax(1, keepdim=True) - 1e-12
    return (best * same).sum(1) / best.sum(1)


def dead(codes: Codes) -> float:
    """Share of the latents that fire on no row of either modality."""
    return float((~((codes.image > 0).any(0) | (codes.text > 0).any(0))).double().mean())
