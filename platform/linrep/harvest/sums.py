"""A micro-batch's layer on the host: what was counted at each position, and the sums that the statistics are made of."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64, Shaped
from torch import Tensor

from linrep.harvest.select import NO_GROUP, Choice, Kept
from linrep.store.layout import GROUPS, LAST_GROUPS, MODALITIES, Modality, View
from linrep.store.limits import Limits
from linrep.store.statistics import N_BINS, Sums, norm_bin


@dataclass(frozen=True)
class LayerLimits:
    """Norms of one layer above which a position is kept apart.

    Attributes:
        tokens: By group; the last one is for padding.
        last: Of last positions, by modality.
        known: Whether any were looked for.
    """

    tokens: Float32[np.ndarray, " groups_1"]
    last: Float32[np.ndarray, " m"]
    known: bool

    @classmethod
    def of(cls, limits: Limits | None, layer: int) -> "LayerLimits":
        """Those of a layer."""
        tokens, last = (
            np.array([(limits or {}).get((layer, group), np.inf) for group in groups], np.float32)
            for groups in ((*GROUPS, ""), LAST_GROUPS)
        )
        return cls(tokens, last, limits is not None)


@dataclass(frozen=True)
class Reduced:
    """One layer of a micro-batch, reduced on the device and on its way to the host.

    Attributes:
        rows: Vectors in the stored number format and their norms, by view and modality.
        norms: Norm of every position.
        total: Sum over each sequence's positions of a group, without those of high norm.
        squares: Sum of squares likewise.
        nonfinite: Whether a position has values that the stored number format cannot hold.
    """

    rows: dict[tuple[View, Modality], tuple[Shaped[Tensor, "n d"], Float[Tensor, " n"]]]
    norms: Float[Tensor, "b t"]
    total: Float[Tensor, "b groups d"]
    squares: Float[Tensor, "b groups d"]
    nonfinite: Shaped[Tensor, "b t"]


@dataclass(frozen=True)
class Counted:
    """Which positions of a micro-batch count, at one layer.

    Attributes:
        high: Whether a position is of high norm.
        finite: Whether its norm is finite.
        group: Its group, `NO_GROUP` for padding.
        limits: What was held against the norms.
    """

    high: Bool[np.ndarray, "b t"]
    finite: Bool[np.ndarray, "b t"]
    group: Int64[np.ndarray, "b t"]
    limits: LayerLimits

    @classmethod
    def of(cls, choice: Choice, norms: Float32[np.ndarray, "b t"], limits: LayerLimits) -> "Counted":
        """The norms of a layer against its limits, as on the device."""
        finite = np.isfinite(norms)
        return cls(finite & (norms > limits.tokens[choice.group]), finite, choice.group, limits)

    def columns(self, kept: Kept) -> dict[str, Int32[np.ndarray, " n"]]:
        """What stands beside means: tokens that each is over, and tokens of high norm that it is without."""
        own = self.group[kept.sample] == kept.position[:, None]
        high = self.high[kept.sample]
        n_tokens, n_high = (own & self.finite[kept.sample] & ~high).sum(1), (own & high).sum(1)
        return {"n_tokens": n_tokens.astype(np.int32), "n_high_norm": n_high.astype(np.int32)}


def layer_sums(choice: Choice, reduced: Reduced, counted: Counted) -> dict[str, Sums]:
    """The sums of one layer by group: of all tokens, and of last positions where that view is kept."""
    real = choice.group != NO_GROUP
    high, group = counted.high[real], choice.group[real]
    bins, position = norm_bin(reduced.norms.numpy()[real]), np.nonzero(real)[1]
    nonfinite = reduced.nonfinite.numpy()[real]
    # float32 per sequence on the device, float64 across sequences.
    total, squares = (x.numpy().sum(0, dtype=np.float64) for x in (reduced.total, reduced.squares))
    found = {}
    for g, name in enumerate(GROUPS):
        own = group == g
        if own.any():
            few = _few(bins, nonfinite, position, own, high, counted.limits.known)
            found[name] = Sums(few[0], few[1], total[g], squares[g], *few[2:])
    for (view, modality), (stored, norms) in reduced.rows.items():
        if view == "last":
            m = MODALITIES.index(modality)
            at = choice.views[view, modality]
            lengths, x = norms.numpy(), stored.double().numpy()
            high = np.isfinite(lengths) & (lengths > counted.limits.last[m])
            broken = reduced.nonfinite.numpy()[at.sample, at.position]
            few = _few(norm_bin(lengths), broken, at.position, np.ones(len(at), bool), high, counted.limits.known)
            x = x[~high & np.isfinite(x).all(1)]
            found[LAST_GROUPS[m]] = Sums(few[0], few[1], x.sum(0), np.square(x).sum(0), *few[2:])
    return found


def _few(
    bins: Int64[np.ndarray, " n"],
    nonfinite: Bool[np.ndarray, " n"],
    position: Int64[np.ndarray, " n"],
    own: Bool[np.ndarray, " n"],
    high: Bool[np.ndarray, " n"],
    known: bool,
) -> tuple[int, int, Int64[np.ndarray, " bins"], Int64[np.ndarray, " bins"] | None, Int64[np.ndarray, " p"] | None]:
    """What a group's sums hold besides the vectors': how many, how many broken, norms; norms and places of those kept apart."""
    kept, apart = own & ~high, own & high
    norms, others = (np.bincount(bins[some], minlength=N_BINS).astype(np.int64) for some in (kept, apart))
    places = np.bincount(position[apart]).astype(np.int64)
    counts = int(kept.sum()), int(nonfinite[kept].sum())
    return (*counts, norms, others, places) if known else (*counts, norms, None, None)
