"""How well an SAE explains rows: for each modality apart, streamed, in the model's own scale.

Nothing here trains; every number of a trained SAE is to be read beside the same number of `random_sae`.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.sae.coder import Sae
from linrep.sae.ops import gather_sum
from linrep.sae.train import Rows
from linrep.sae.window import NAMES, fraction

DENSE_RATE = 0.1
"""A latent that fires in more than this share of the rows counts as dense."""
LOWEST_DECADE = -6
"""The firing histogram has four bins a decade from 1e-6 to 1; what is rarer, but fires, lies in the first."""


@dataclass(frozen=True)
class Quality:
    """An SAE on the rows of one modality, or of both.

    Attributes:
        n_rows: Rows counted.
        n_nonfinite: Rows left out because they are not finite.
        fvu: Unexplained share of the variance about the rows' own mean.
        explained_variance: 1 - fvu.
        cosine: Mean cosine of reconstruction and input.
        l0: Mean number of active latents.
        alive: Share of the latents that fire at all.
        dense: Share of the latents that fire in more than a tenth of the rows.
        shrinkage: Size of reconstructions about b_dec over the best size, |x'|^2 / (x' . x): 1 is unbiased, below 1 too small.
        firing: Latents that never fire, then the histogram of the others' log10 firing rates, four bins a decade from 1e-6 to 1.
    """

    n_rows: int
    n_nonfinite: int
    fvu: float
    explained_variance: float
    cosine: float
    l0: float
    alive: float
    dense: float
    shrinkage: float
    firing: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """Quality by modality (`image`, `text`, `both`; those that have rows), and firing rates of each latent likewise."""

    quality: dict[str, Quality]
    rates: dict[str, Float[Tensor, " f"]]

    def values(self) -> dict[str, Any]:
        """The numbers by name, `fvu/image` and so on, without histograms."""
        return {
            f"{name}/{modality}": value
            for modality, quality in self.quality.items()
            for name, value in asdict(quality).items()
            if name != "firing"
        }


@torch.no_grad()
def evaluate(sae: Sae, batches: Iterable[Rows]) -> Evaluation:
    """Quality of an SAE on rows that it was not trained on.

    Args:
        sae: Takes the rows as they are.
        batches: Rows in the model's own scale.

    Raises:
        ValueError: There are no rows, or they have another width.
    """
    sums = {name: _Sums.zero(sae) for name in NAMES}
    for rows in batches:
        if rows.x.shape[1] != sae.d_model:
            raise ValueError(f"the SAE has width {sae.d_model}, the rows have {rows.x.shape[1]}")
        for name, member in zip(NAMES, (~rows.is_text, rows.is_text), strict=True):
            if member.any():
                sums[name].add(sae, rows.x[member])
    with_rows = {name: part for name, part in sums.items() if part.n + part.n_nonfinite}
    if not with_rows:
        raise ValueError("no rows to evaluate on")
    if len(with_rows) == len(NAMES):
        with_rows["both"] = sums["image"].plus(sums["text"])
    quality = {name: part.quality() for name, part in with_rows.items()}
    return Evaluation(quality, {name: part.fires / max(part.n, 1) for name, part in with_rows.items()})


def firing_histogram(fires: Int[Tensor, " f"], n_rows: int) -> tuple[int, ...]:
    """Latents that never fire, then the others by log10 firing rate."""
    n_bins = -4 * LOWEST_DECADE
    rates = fires[fires > 0].double() / max(n_rows, 1)
    bins = ((rates.log10() - LOWEST_DECADE) * 4).floor().long().clamp(0, n_bins - 1)
    return (int((fires == 0).sum()), *torch.bincount(bins, minlength=n_bins).tolist())


@dataclass
class _Sums:
    """Sums over rows; `moments`: squared error, squared norm, cosine, active latents, |x' - b|^2, (x' - b) . (x - b)."""

    n: int
    n_nonfinite: int
    moments: Float[Tensor, " 6"]
    total: Float[Tensor, " d"]
    fires: Int[Tensor, " f"]

    @classmethod
    def zero(cls, sae: Sae) -> "_Sums":
        device = sae.b_dec.device
        wide = {"dtype": torch.float64, "device": device}
        return cls(
            0, 0, torch.zeros(6, **wide), torch.zeros(sae.d_model, **wide), torch.zeros(sae.n_latents, device=device).long()
        )

    def add(self, sae: Sae, x: Float[Tensor, "n d"]) -> None:
        finite: Bool[Tensor, " n"] = x.isfinite().all(1)
        self.n_nonfinite += int((~finite).sum())
        x = x[finite].to(sae.b_dec.dtype)
        if not len(x):
            return
        wide = x.double()  # the spread is a difference: squares rounded in float32 would leave it 1e-7 of the norms
        codes = sae.codes(x)
        written = gather_sum(sae.decoder, codes.latents, codes.values, codes.offsets)
        back, around = written + sae.b_dec, x - sae.b_dec
        active = codes.values > 0
        parts = (
            (back - x).square().sum(1), wide.square().sum(1), torch.cosine_similarity(back, x),
            torch.zeros_like(x[:, 0]).index_add_(0, codes.rows(), active.to(x.dtype)),
            written.square().sum(1), (written * around).sum(1),
        )  # fmt: skip
        self.n += len(x)
        self.moments += torch.stack([part.double().sum() for part in parts])
        self.total += wide.sum(0)
        self.fires += torch.bincount(codes.latents[active], minlength=sae.n_latents)

    def plus(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.n + other.n, self.n_nonfinite + other.n_nonfinite, self.moments + other.moments,
            self.total + other.total, self.fires + other.fires,
        )  # fmt: skip

    def quality(self) -> Quality:
        if not self.n:  # of no rows nothing is known: 0 would be a perfect FVU
            nothing = dict.fromkeys(("fvu", "explained_variance", "cosine", "l0", "alive", "dense", "shrinkage"), math.nan)
            return Quality(n_rows=0, n_nonfinite=self.n_nonfinite, **nothing, firing=firing_histogram(self.fires, 1))
        n = self.n
        error, norms, cosine, active, written, along = self.moments.tolist()
        spread = norms - float(self.total @ self.total) / n
        fvu = fraction(error, spread, norms)
        return Quality(
            n_rows=self.n,
            n_nonfinite=self.n_nonfinite,
            fvu=fvu,
            explained_variance=1 - fvu,
            cosine=cosine / n,
            l0=active / n,
            alive=float((self.fires > 0).double().mean()),
            dense=float((self.fires > DENSE_RATE * n).double().mean()),
            shrinkage=written / along if along > 0 else float("nan"),
            firing=firing_histogram(self.fires, n),
        )
