"""A micro-batch's layer on the host: what was counted at each position, and the sums that the statistics are made of."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64, Shaped
from torch import Tensor

from linrep.harvest.select import NO_GROUP, Choice, ViewRows
from linrep.store.layout import GROUPS, LAST_GROUPS, MODALITIES, Modality, StoredSite, View, site_group
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
    def of(cls, limits: Limits | None, layer: int, site: StoredSite = "residual") -> "LayerLimits":
        """Those of a layer of a site."""
        tokens, last = (
            np.array([(limits or {}).get((layer, site_group(group, site)), np.inf) for group in groups], np.float32)
            for groups in ((*GROUPS, ""), LAST_GROUPS)
        )
        return cls(tokens, last, limits is not None)


@dataclass(frozen=True)
class LayerReduction:
    """One layer of a micro-batch, reduced on the device and on its way to the host.

    Attributes:
        rows: Vectors in the stored number format and their norms, by view and modality.
        norms: Norm of every position.
        total: Sum over each sequence's positions of a group, without those of high norm and those that are not finite.
        squares: Sum of squares likewise.
        nonfinite: Whether a position has values that the stored number format cannot hold.
    """

    rows: dict[tuple[View, Modality], tuple[Shaped[Tensor, "n d"], Float[Tensor, " n"]]]
    norms: Float[Tensor, "b t"]
    total: Float[Tensor, "b groups d"]
    squares: Float[Tensor, "b groups d"]
    nonfinite: Shaped[Tensor, "b t"]


@dataclass(frozen=True)
class CountedPositions:
    """Which positions of a micro-batch count, at one layer.

    Attributes:
        high: Whether a position is of high norm.
        finite: Whether the stored number format can hold it.
        group: Its group, `NO_GROUP` for padding.
        limits: What was held against the norms.
    """

    high: Bool[np.ndarray, "b t"]
    finite: Bool[np.ndarray, "b t"]
    group: Int64[np.ndarray, "b t"]
    limits: LayerLimits

    @classmethod
    def of(cls, choice: Choice, reduced: LayerReduction, limits: LayerLimits) -> "CountedPositions":
        """The norms of a layer against its limits, as on the device."""
        norms = reduced.norms.numpy()
        high = np.isfinite(norms) & (norms > limits.tokens[choice.group])
        return cls(high, ~reduced.nonfinite.numpy(), choice.group, limits)

    def columns(self, kept: ViewRows) -> dict[str, Int32[np.ndarray, " n"]]:
        """What stands beside means: tokens that each is over, and tokens of high norm that it is without."""
        own = self.group[kept.sample] == kept.position[:, None]
        high = self.high[kept.sample]
        n_tokens, n_high = (own & self.finite[kept.sample] & ~high).sum(1), (own & high).sum(1)
        return {"n_tokens": n_tokens.astype(np.int32), "n_high_norm": n_high.astype(np.int32)}


def layer_sums(choice: Choice, reduced: LayerReduction, counted: CountedPositions) -> dict[str, Sums]:
    """The sums of one layer by group: of all tokens, and of last positions where that view is kept."""
    real = choice.group != NO_GROUP
    known = counted.limits.known
    norms, nonfinite, position = reduced.norms.numpy()[real], reduced.nonfinite.numpy()[real], np.nonzero(real)[1]
    # float32 per sequence on the device, float64 across sequences.
    total, squares = (x.numpy().sum(0, dtype=np.float64) for x in (reduced.total, reduced.squares))
    tallies = _tallies(choice.group[real], counted.high[real], norms, nonfinite, position, len(GROUPS), known)
    found = {
        name: Sums(own.n, own.n_nonfinite, total[g], squares[g], own.norms, own.high, own.places)
        for g, (name, own) in enumerate(zip(GROUPS, tallies, strict=True))
        if own.n or own.n_high
    }
    for (view, modality), (stored, norms) in reduced.rows.items():
        if view == "last":
            m, at, lengths = MODALITIES.index(modality), choice.views[view, modality], norms.numpy()
            high = np.isfinite(lengths) & (lengths > counted.limits.last[m])
            broken = reduced.nonfinite.numpy()[at.sample, at.position]
            (own,) = _tallies(np.zeros(len(at), np.int64), high, lengths, broken, at.position, 1, known)
            x = stored.double().numpy()[~(high | broken)]
            both = x.sum(0), np.square(x).sum(0)
            found[LAST_GROUPS[m]] = Sums(own.n, own.n_nonfinite, *both, own.norms, own.high, own.places)
    return found


class _Tally(NamedTuple):
    """What a group's sums hold besides the vectors': the fields of `Sums`, and how many are of high norm."""

    n: int
    n_nonfinite: int
    norms: Int64[np.ndarray, " bins"]
    high: Int64[np.ndarray, " bins"] | None
    places: Int64[np.ndarray, " p"] | None
    n_high: int


def _tallies(
    group: Int64[np.ndarray, " n"],
    high: Bool[np.ndarray, " n"],
    norms: Float32[np.ndarray, " n"],
    nonfinite: Bool[np.ndarray, " n"],
    position: Int64[np.ndarray, " n"],
    n_groups: int,
    known: bool,
) -> list[_Tally]:
    """The tally of each group, from one pass over all positions."""
    key = group + n_groups * high
    bins = np.bincount(key * N_BINS + norm_bin(norms), minlength=2 * n_groups * N_BINS).reshape(2, n_groups, N_BINS)
    n, broken = (np.bincount(key, w, 2 * n_groups).reshape(2, n_groups).astype(np.int64) for w in (None, nonfinite))
    tallies = []
    for g in range(n_groups):
        places = np.bincount(position[high & (group == g)]) if n[1, g] else np.zeros(0, np.int64)
        apart = (bins[1, g].astype(np.int64), places.astype(np.int64)) if known else (None, None)
        tallies.append(_Tally(int(n[0, g]), int(broken[0, g]), bins[0, g].astype(np.int64), *apart, int(n[1, g])))
    return tallies
