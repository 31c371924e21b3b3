"""How well an SAE explains rows: for each modality apart, streamed, in the model's own scale.

Nothing here trains; every number of a trained SAE is to be read beside the same number of its controls (`linrep.sae.controls`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.sae.ops import gather_sum
from linrep.sae.sae import Sae
from linrep.sae.train import Rows
from linrep.sae.window import fraction
from linrep.store.layout import MODALITIES, Modality

DENSE_RATE = 0.1
"""A latent that fires in more than this share of the rows counts as dense."""
ENERGIES = (0.5, 0.9, 0.99)
"""Shares of the energy of reconstructions whose latents are counted."""
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
        latents_of_energy: How many latents, those of most energy first, write each share of `ENERGIES` of the energy of what is
            written; the energy of a latent is the squared length of what it writes, summed over the rows.
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
    latents_of_energy: tuple[float, ...]
    firing: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """An SAE on held-out rows, by modality: `image`, `text` and `both`, those that have rows.

    Attributes:
        quality: Its numbers.
        rates: Firing rate of each latent.
        energy: Squared length of what each latent writes, summed over the rows.
    """

    quality: dict[str, Quality]
    rates: dict[str, Float[Tensor, " f"]]
    energy: dict[str, Float[Tensor, " f"]]

    def values(self) -> dict[str, Any]:
        """The numbers by name, `fvu/image` and so on, without histograms."""
        return {
            f"{name}/{modality}": value
            for modality, quality in self.quality.items()
            for name, value in asdict(quality).items()
            if name not in ("firing", "latents_of_energy")
        }


def evaluate(sae: Sae, batches: Iterable[Rows]) -> Evaluation:
    """Quality of an SAE on rows that it was not trained on; see `evaluate_each`."""
    return evaluate_each(dict.fromkeys(MODALITIES, sae), batches)


@torch.no_grad()
def evaluate_each(saes: Mapping[Modality, Sae], batches: Iterable[Rows]) -> Evaluation:
    """Quality on rows that were not trained on, of the same latents as they take rows of each modality.

    Args:
        saes: By modality what takes its rows as they are: one SAE, or two of the same latents.
        batches: Rows in the model's own scale.

    Raises:
        ValueError: There are no rows, or they have another width.
    """
    sums = {name: _Sums.zero(saes[name]) for name in MODALITIES}
    for rows in batches:
        if rows.x.shape[1] != saes["image"].d_model:
            raise ValueError(f"the SAE has width {saes['image'].d_model}, the rows have {rows.x.shape[1]}")
        for name, member in zip(MODALITIES, (~rows.is_text, rows.is_text), strict=True):
            if member.any():
                sums[name].add(saes[name], rows.x[member])
    with_rows: dict[str, _Sums] = {name: part for name, part in sums.items() if part.n + part.n_nonfinite}
    if not with_rows:
        raise ValueError("no rows to evaluate on")
    if len(with_rows) == len(MODALITIES):
        with_rows["both"] = sums["image"].plus(sums["text"])
    quality = {name: part.quality() for name, part in with_rows.items()}
    rates = {name: part.fires / max(part.n, 1) for name, part in with_rows.items()}
    return Evaluation(quality, rates, {name: part.energy for name, part in with_rows.items()})


def firing_histogram(fires: Int[Tensor, " f"], n_rows: int) -> tuple[int, ...]:
    """Latents that never fire, then the others by log10 firing rate."""
    n_bins = -4 * LOWEST_DECADE
    rates = fires[fires > 0].double() / max(n_rows, 1)
    bins = ((rates.log10() - LOWEST_DECADE) * 4).floor().long().clamp(0, n_bins - 1)
    return (int((fires == 0).sum()), *torch.bincount(bins, minlength=n_bins).tolist())


def latents_of_energy(energy: Float[Tensor, " f"]) -> tuple[float, ...]:
    """How many latents carry each share of `ENERGIES`; NaN where nothing is written.

    >>> latents_of_energy(torch.tensor([1.0, 89.0, 2.0, 8.0]))
    (1.0, 2.0, 3.0)
    """
    carried = energy.double().sort(descending=True).values.cumsum(0)
    total = float(carried[-1])
    if not (math.isfinite(total) and total > 0):
        return tuple(math.nan for _ in ENERGIES)
    # The last sum is the total, whatever rounding does to the share.
    return tuple(float(min((carried < share * total).sum() + 1, len(carried))) for share in ENERGIES)


@dataclass
class _Sums:
    """Sums over rows, and lengths of decoder rows.

    `moments`: squared error, squared norm, cosine, active latents, |x' - b|^2, (x' - b) . (x - b).
    """

    n: int
    n_nonfinite: int
    moments: Float[Tensor, " 6"]
    total: Float[Tensor, " d"]
    fires: Int[Tensor, " f"]
    squares: Float[Tensor, " f"]
    lengths: Float[Tensor, " f"]

    @classmethod
    def zero(cls, sae: Sae) -> "_Sums":
        device = sae.b_dec.device
        wide = {"dtype": torch.float64, "device": device}
        return cls(
            0, 0, torch.zeros(6, **wide), torch.zeros(sae.d_model, **wide),
            torch.zeros(sae.n_latents, device=device).long(), torch.zeros(sae.n_latents, **wide),
            sae.decoder.norm(dim=1).double(),
        )  # fmt: skip

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
        self.squares += torch.bincount(codes.latents, codes.values.double().square(), minlength=sae.n_latents)

    @property
    def energy(self) -> Float[Tensor, " f"]:
        """Squared length of what each latent writes, summed over the rows."""
        return self.squares * self.lengths.square()

    def plus(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.n + other.n, self.n_nonfinite + other.n_nonfinite, self.moments + other.moments,
            self.total + other.total, self.fires + other.fires, self.squares + other.squares, self.lengths,
        )  # fmt: skip

    def quality(self) -> Quality:
        if not self.n:  # of no rows nothing is known: 0 would be a perfect FVU
            nothing = dict.fromkeys(("fvu", "explained_variance", "cosine", "l0", "alive", "dense", "shrinkage"), math.nan)
            carried, histogram = latents_of_energy(self.energy), firing_histogram(self.fires, 1)
            return Quality(n_rows=0, n_nonfinite=self.n_nonfinite, **nothing, latents_of_energy=carried, firing=histogram)
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
            latents_of_energy=latents_of_energy(self.energy),
            firing=firing_histogram(self.fires, n),
        )
