"""Class directions of both modalities compared without the pairs' own likeness: each product is of disjoint sets of pairs.

An image and its caption share more than their class: colour, ground, light. A mean over the pairs of a class keeps some of it,
in both modalities at once, so that cosines of such means are high where classes mean nothing. Here no image meets its own
caption: products are summed over all ordered pairs of different groups, which is what an average over splits comes to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sharing.intervals import Measure
from linrep.sharing.sums import PassSums
from linrep.stats import nulls
from linrep.stats.interval import student
from linrep.stats.jackknife import error, jackknife

FEWEST = 4
"""Classes from which on intervals are over classes; of fewer, over groups of pairs."""
PERMUTATIONS = 1000


@dataclass(frozen=True)
class Products:
    """Inner products of class means of disjoint pairs, about the mean of the classes in each modality.

    Attributes:
        xy: Of images (rows) with texts (columns).
        xx: Of images with images.
        yy: Of texts with texts.
    """

    xy: Float[np.ndarray, "c c"]
    xx: Float[np.ndarray, "c c"]
    yy: Float[np.ndarray, "c c"]

    @property
    def sizes(self) -> Float[np.ndarray, " 3"]:
        """Mean product of a class's two directions, and mean squared length in images and in texts: per degree of freedom."""
        return np.array([np.trace(own) for own in (self.xy, self.xx, self.yy)]) / (len(self.xy) - 1)

    def without_each_class(self) -> Float[np.ndarray, "c 3"]:
        """`sizes` without each class, the others about their own mean: rows and columns sum to 0, so the diagonal says it."""
        c = len(self.xy)
        each = np.stack([own.diagonal() for own in (self.xy, self.xx, self.yy)], axis=1)
        return (each.sum(0) - each * c / (c - 1)) / (c - 2)


def cosine(sizes: Float[np.ndarray, " 3"]) -> float:
    """Mean product over the root of the mean squared lengths; NaN where a modality has none."""
    return float(sizes[0]) / math.sqrt(sizes[1] * sizes[2]) if min(sizes[1:]) > 0 else math.nan


def products(found: PassSums, groups: Sequence[int]) -> Products:
    """The products from some groups of pairs, at least two."""
    x, y = (torch.stack([getattr(found.sums[g], name)[0] for g in groups]) for name in ("cx", "cy"))
    n = torch.stack([found.sums[g].counts for g in groups])

    def apart(one: Float[Tensor, "g c d"], other: Float[Tensor, "g c d"]) -> np.ndarray:
        """Mean product over all rows of one group with all rows of another, by classes; NaN of classes in one group alone."""
        total = one.sum(0) @ other.sum(0).T - torch.einsum("gcd,ged->ce", one, other)
        counted = torch.outer(n.sum(0), n.sum(0)) - n.T @ n
        return _centred(torch.where(counted > 0, total / counted.clamp(min=1), torch.nan).numpy())

    return Products(apart(x, y), apart(x, x), apart(y, y))


def _centred(m: Float[np.ndarray, "c c"]) -> Float[np.ndarray, "c c"]:
    return m - m.mean(0) - m.mean(1)[:, None] + m.mean()


def direction_cosine(found: PassSums, n: int, seed: int) -> Measure:
    """The cosine of class directions in images and in texts.

    Its interval is over classes: others of their kind would have others. The null deals the classes anew in one modality: 0.
    There is no value where the pairs do not separate the classes of a modality: its directions are noise, and so is a cosine.

    Args:
        found: The sums.
        n: Labelled pairs.
        seed: Of the null.
    """
    everyone = range(len(found.sums))
    whole, *halves = (products(found, groups) for groups in (everyone, everyone[::2], everyone[1::2]))
    c, sizes = len(whole.xy), whole.sizes
    if c >= FEWEST:
        left, why = whole.without_each_class(), None
    else:
        left = np.stack([products(found, [g for g in everyone if g != out]).sizes for out in everyone])
        why = f"{c} classes: the interval is over pairs alone"
    reach = student(len(left))
    noise = [name for name, i in (("images", 1), ("texts", 2)) if not sizes[i] > reach * error(left[:, i])]
    if noise:
        why = f"the pairs do not separate classes in {' and '.join(noise)}: their directions are noise"
        return Measure("direction_cosine", math.nan, math.nan, math.nan, 0.0, n, why=why)
    dealt = np.array([whole.xy[np.arange(c), order].sum() for order in nulls.permutations(c, PERMUTATIONS, seed)]) / (c - 1)
    null = nulls.of_draws(dealt / math.sqrt(sizes[1] * sizes[2]))
    low, high = jackknife(cosine(sizes), [cosine(own) for own in left])
    own = (cosine(halves[0].sizes), cosine(halves[1].sizes))
    return Measure("direction_cosine", cosine(sizes), low, high, 0.0, n, own, null.low, null.high, why)


def finds_its_class(found: PassSums, groups: Sequence[int], axis: int) -> np.ndarray:
    """For each class whether its direction is nearest to its own in the other modality: texts along axis 1, images along 0."""
    own = products(found, groups)
    total = found.total(groups)
    counts = total.counts.clamp(min=1)[:, None]
    # Lengths only rank the candidates: plain ones are positive whatever the noise.
    x, y = ((s - s.mean(0)).norm(dim=1).numpy() for s in (total.cx[0] / counts, total.cy[0] / counts))
    tiny = np.finfo(float).tiny
    cosines = own.xy / np.maximum(np.outer(x, y), tiny)
    return np.nan_to_num(cosines, nan=-np.inf).argmax(axis) == np.arange(len(cosines))
