"""One streamed pass over a layer's pairs: sums by group, and the rows of the pairs in the reservoir.

Sums are taken in float64 about a reference near the means, so that little cancels. Memory: groups x (3 d^2 + (8 + 4 c + 2 v) d)
numbers of eight bytes, and two rows for each pair of the reservoir, however many pairs there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from linrep.sharing.config import SharingConfig
from linrep.sharing.grouped import Addable, Grouped, Part, by_group
from linrep.sharing.pooled import PooledRows
from linrep.sharing.study import Pairs


@dataclass(frozen=True)
class Sums(Addable):
    """Sums over n pairs of rows (x of images, y of texts), about the references a and b.

    Attributes:
        n: Pairs.
        x: Sum of x - a.
        y: Sum of y - b.
        xx: Sum of the outer products of x - a.
        yy: Likewise of y - b.
        xy: Sum of the outer products of x - a and y - b.
        u: Sum of x over its norm.
        v: Sum of y over its norm.
        uv: Sum of the cosines of pairs.
        p: Sum of |x - a|^2.
        q: Sum of |y - b|^2.
        pq: Sums of p^2, p q and q^2 by pair.
        px: Sum of p (x - a); then of q (x - a), of p (y - b), of q (y - b).
        swapped: Sum of x - y (without references) of the pairs that the modality control keeps, minus that of those it swaps.
        counts: Labelled pairs by class.
        cx: Sum of x - a by class, then by shuffled class.
        cy: Likewise of y - b.
        shuffled: Labelled pairs by shuffled class.
        valued: Pairs by value of each attribute, one attribute after the other.
        vx: Sum of x - a by these values.
        vy: Likewise of y - b.
    """

    n: Float[Tensor, ""]
    x: Float[Tensor, " d"]
    y: Float[Tensor, " d"]
    xx: Float[Tensor, "d d"]
    yy: Float[Tensor, "d d"]
    xy: Float[Tensor, "d d"]
    u: Float[Tensor, " d"]
    v: Float[Tensor, " d"]
    uv: Float[Tensor, ""]
    p: Float[Tensor, ""]
    q: Float[Tensor, ""]
    pq: Float[Tensor, "3"]
    px: Float[Tensor, "4 d"]
    swapped: Float[Tensor, " d"]
    counts: Float[Tensor, " c"]
    cx: Float[Tensor, "2 c d"]
    cy: Float[Tensor, "2 c d"]
    shuffled: Float[Tensor, " c"]
    valued: Float[Tensor, " v"]
    vx: Float[Tensor, "v d"]
    vy: Float[Tensor, "v d"]

    @staticmethod
    def of(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], a: Tensor, b: Tensor, labels: "Labels") -> "Sums":
        """The sums of some pairs in memory."""
        x, y = x.double(), y.double()
        u, v = unit(x), unit(y)
        sign = torch.where(torch.from_numpy(labels.swapped), -1.0, 1.0).double()
        swapped = (sign[:, None] * (x - y)).sum(0)
        x, y = x - a, y - b
        p, q = x.square().sum(1), y.square().sum(1)
        one, other = (_one_hot(codes, labels.n_classes) for codes in (labels.label, labels.shuffled))
        values = torch.cat([x.new_zeros(len(x), 0), *(_one_hot(codes, n) for codes, n in labels.attributes)], dim=1)
        return Sums(
            n=torch.tensor(float(len(x)), dtype=torch.float64), x=x.sum(0), y=y.sum(0), xx=x.T @ x, yy=y.T @ y, xy=x.T @ y,
            u=u.sum(0), v=v.sum(0), uv=(u * v).sum(), p=p.sum(), q=q.sum(),
            pq=torch.stack([p @ p, p @ q, q @ q]), px=torch.stack([p @ x, q @ x, p @ y, q @ y]), swapped=swapped,
            counts=one.sum(0), cx=torch.stack([one.T @ x, other.T @ x]), cy=torch.stack([one.T @ y, other.T @ y]),
            shuffled=other.sum(0), valued=values.sum(0), vx=values.T @ x, vy=values.T @ y,
        )  # fmt: skip


@dataclass(frozen=True)
class Labels:
    """What is known of n pairs: class, shuffled class, whether the modality control swaps them, and values of each attribute."""

    label: Int64[np.ndarray, " n"]
    shuffled: Int64[np.ndarray, " n"]
    swapped: np.ndarray
    n_classes: int
    attributes: tuple[tuple[Int64[np.ndarray, " n"], int], ...] = ()

    @staticmethod
    def of(pairs: Pairs, pair: Int64[np.ndarray, " n"]) -> "Labels":
        """Of some pairs, by their numbers."""
        others = tuple((one.label[pair], len(one.values)) for one in pairs.attributes)
        return Labels(pairs.label[pair], pairs.shuffled[pair], pairs.swapped[pair], len(pairs.classes), others)


@dataclass(frozen=True)
class Drawn:
    """The reservoir: rows of the pairs that were drawn, in float32.

    Attributes:
        pair: Number of each pair.
        x: Rows of the images.
        y: Rows of the texts.
    """

    pair: Int64[np.ndarray, " m"]
    x: Float32[Tensor, "m d"]
    y: Float32[Tensor, "m d"]


@dataclass(frozen=True)
class PassSums(Grouped[Sums]):
    """What one pass, or a part of it, found.

    Attributes:
        references: The points that sums are measured from, of image and text.
        drawn: The reservoir.
    """

    references: tuple[Float[Tensor, " d"], Float[Tensor, " d"]]
    drawn: Drawn

    @property
    def n(self) -> int:
        """Pairs."""
        return round(sum(float(s.n) for s in self.sums))


def unit(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows of norm 1; a row of zeros stays one."""
    return x / x.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)


def _one_hot(codes: Int64[np.ndarray, " n"], n_classes: int) -> Float[Tensor, "n c"]:
    at = torch.from_numpy(codes)
    hot = torch.zeros(len(codes), n_classes + 1, dtype=torch.float64)
    return hot.scatter_(1, torch.where(at >= 0, at, n_classes)[:, None], 1.0)[:, :n_classes]


def gather_part(rows: PooledRows, part: Part, config: SharingConfig) -> PassSums:
    """The sums and the drawn rows of a part, some pairs at a time."""
    a, b = rows.references()
    pairs, width = rows.pairs, rows.store.manifest.width
    nothing = torch.zeros(0, width)
    sums = [Sums.of(nothing, nothing, a, b, Labels.of(pairs, np.zeros(0, np.int64))) for _ in range(config.groups)]
    drawn: list[Drawn] = []
    for pair, x, y in rows.matched(part):
        for g in np.unique(pairs.group[pair]):
            own = np.flatnonzero(pairs.group[pair] == g)
            sums[g] = sums[g] + Sums.of(x[own], y[own], a, b, Labels.of(pairs, pair[own]))
        kept = np.flatnonzero(pairs.drawn[pair])
        drawn.append(Drawn(pair[kept], x[kept].float(), y[kept].float()))
    return PassSums(tuple(sums), (a, b), together(drawn, width))


def together(parts: Sequence[Drawn], width: int) -> Drawn:
    """The rows of all parts, by rising pairs.

    Args:
        parts: Of different pairs.
        width: Of the rows, where there are none.
    """
    if not parts:
        return Drawn(np.zeros(0, np.int64), torch.zeros(0, width), torch.zeros(0, width))
    pair = np.concatenate([part.pair for part in parts])
    order = np.argsort(pair)
    at = torch.from_numpy(order)
    return Drawn(pair[order], torch.cat([part.x for part in parts])[at], torch.cat([part.y for part in parts])[at])


def add_gathered(one: PassSums, other: PassSums) -> PassSums:
    """Two parts together, in their order."""
    return replace(one, sums=by_group([one, other]), drawn=together([one.drawn, other.drawn], one.drawn.x.shape[1]))
